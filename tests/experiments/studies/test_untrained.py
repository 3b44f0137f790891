import math

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.experiments.studies.ablation.scorers import CosineScorer, NeighbourScorer


def test_cosine_to_the_mean_of_the_history() -> None:
    scorer = CosineScorer(torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0], [0.0, 0.0]]))
    scores = scorer(torch.tensor([[0, 1], [4, 0], [4, 4], [3, 1]]))
    half = math.sqrt(0.5)
    expected = [[half, half, 1, 0], [1, 0, half, 0], [0, 0, 0, 0], [0, 1, half, 0]]
    torch.testing.assert_close(scores, torch.tensor(expected))
    with pytest.raises(EncoderError, match="finite table"):
        CosineScorer(torch.tensor([[math.nan]]))


def test_shared_entities_by_hand() -> None:
    kg = KnowledgeGraph.from_names(
        ["A", "A", "B", "B", "C", "D"],
        ["director", "genre", "director", "genre", "genre", "actor"],
        ["Scott", "horror", "Scott", "drama", "drama", "Scott"],
    )
    rows = kg.entity_rows(["A", "B", "C", "D", None])
    scores = NeighbourScorer(kg, rows)(torch.tensor([[0, 5], [0, 2], [4, 5]]))
    # Of 4 linked items "director Scott" and "genre drama" have 2 each, "genre horror" 1.
    two, one = math.log(3), math.log(5)
    a = np.array([two, 0, one]) / math.hypot(two, one)  # director Scott, genre drama, genre horror
    b = np.array([two, two, 0]) / math.hypot(two, two)
    c = np.array([0.0, 1, 0])
    both = (a + c) / np.linalg.norm(a + c)
    expected = [[1, a @ b, 0, 0, 0], [both @ a, both @ b, both @ c, 0, 0], [0, 0, 0, 0, 0]]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float32))


def test_a_triple_said_twice_counts_once() -> None:
    once = KnowledgeGraph.from_names(["A", "B", "B"], ["genre"] * 3, ["drama", "drama", "war"])
    twice = KnowledgeGraph(once.entities, once.relations, np.concatenate([once.triples, once.triples[:1]]))
    rows = once.entity_rows(["A", "B"])
    history = torch.tensor([[0]])
    assert torch.equal(NeighbourScorer(once, rows)(history), NeighbourScorer(twice, rows)(history))


def test_nothing_linked_scores_nothing() -> None:
    kg = KnowledgeGraph.from_names(["A"], ["genre"], ["drama"])
    assert NeighbourScorer(kg, np.array([-1, -1]))(torch.tensor([[0, 1]])).tolist() == [[0, 0]]
