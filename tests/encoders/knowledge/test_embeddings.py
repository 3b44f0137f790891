import sys
from typing import Any

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.embeddings import fit_embeddings, item_knowledge, item_relation_tables
from recloop.encoders.knowledge.graph import KnowledgeGraph

MODELS: tuple[Any, ...] = ("transe", "distmult", "complex", "rotate")


@pytest.fixture
def two_circles() -> KnowledgeGraph:
    """Films of two directors, and of two genres that go with them."""
    films = [f"film {i}" for i in range(12)]
    directors = [f"director {i % 2}" for i in range(12)]
    genres = [f"genre {i % 2}" for i in range(12)]
    return KnowledgeGraph.from_names(films * 2, ["by"] * 12 + ["of kind"] * 12, directors + genres)


@pytest.mark.parametrize("model", MODELS)
def test_equal_seeds_give_equal_bits_and_the_global_generator_is_left_alone(
    two_circles: KnowledgeGraph, model: Any
) -> None:
    before = torch.random.get_rng_state()
    a, b, c = (fit_embeddings(two_circles, model, dim=8, epochs=3, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.entities, b.entities)
    assert torch.equal(a.relations, b.relations)
    assert not torch.equal(a.entities, c.entities)
    assert a.vectors().shape == (16, 8)
    assert a.relations.shape == (2, 4 if model == "rotate" else 8)
    torch.testing.assert_close(a.vectors().norm(dim=1), torch.ones(16))
    assert not a.entities.requires_grad


@pytest.mark.parametrize("model", ["transe", "complex"])
def test_films_of_one_director_come_together(two_circles: KnowledgeGraph, model: Any) -> None:
    entities = fit_embeddings(two_circles, model, dim=16, epochs=200, seed=0).vectors()
    rows = two_circles.entity_rows([f"film {i}" for i in range(12)])
    likeness = entities[rows] @ entities[rows].T
    same = torch.tensor([[i % 2 == j % 2 and i != j for j in range(12)] for i in range(12)])
    other = torch.tensor([[i % 2 != j % 2 for j in range(12)] for i in range(12)])
    assert likeness[same].mean() > likeness[other].mean() + 0.2


def test_relation_tables_by_hand() -> None:
    kg = KnowledgeGraph.from_names(
        ["A", "A", "A", "B", "S"], ["actor", "actor", "genre", "actor", "spouse"], ["X", "Y", "drama", "X", "A"]
    )
    vectors = torch.zeros(len(kg.entities), 2)
    vectors[kg.entities.index("X")] = torch.tensor([1.0, 0.0])
    vectors[kg.entities.index("Y")] = torch.tensor([0.0, 1.0])
    vectors[kg.entities.index("drama")] = torch.tensor([0.5, 0.5])
    vectors[kg.entities.index("S")] = torch.tensor([-1.0, 0.0])
    rows = kg.entity_rows(["A", "nobody", "B", None, "A"])  # two items may share an entity
    names, tables = item_relation_tables(kg, rows, vectors)
    assert names == ("actor", "genre", "spouse of")
    assert tables.shape == (6, 3, 2)
    # Three items (A twice) have X, two have Y, drama and S: they count 2/3 and 1/2.
    torch.testing.assert_close(tables[0], torch.tensor([[1 / 3, 0.25], [0.25, 0.25], [-0.5, 0]]))
    assert torch.equal(tables[4], tables[0])
    torch.testing.assert_close(tables[2], torch.tensor([[2 / 3, 0], [0, 0], [0, 0]]))
    assert tables[[1, 3, 5]].abs().sum() == 0
    names, tables = item_relation_tables(kg, rows, vectors, max_relations=1)
    assert names == ("actor",)
    assert tables.shape == (6, 1, 2)


def test_item_knowledge_in_one(two_circles: KnowledgeGraph) -> None:
    rows = two_circles.entity_rows(["film 0", None, "film 2"])
    knowledge = item_knowledge(two_circles, rows, dim=8, epochs=2)
    assert knowledge is not None
    assert knowledge.relations == ("by", "of kind")
    assert knowledge.tables.shape == (4, 2, 8)
    assert torch.equal(knowledge.tables[0], knowledge.tables[2])  # one director, one genre
    assert knowledge.content.shape == (knowledge.tables.shape[0] - 1, knowledge.tables[0].numel())
    assert knowledge.content[1].abs().sum() == 0
    assert item_knowledge(two_circles, np.full(3, -1)) is None


def test_what_cannot_be_fitted_is_named(two_circles: KnowledgeGraph) -> None:
    with pytest.raises(EncoderError, match="did you mean 'transe'"):
        fit_embeddings(two_circles, "trans")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="dim=7 does not suit 'complex'; give an even number"):
        fit_embeddings(two_circles, "complex", dim=7)
    with pytest.raises(EncoderError, match="holds no triples"):
        fit_embeddings(KnowledgeGraph.from_names([], [], []))


def test_without_torch_geometric_the_extra_is_named(
    two_circles: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    with pytest.raises(EncoderError, match=r"pip install 'recloop\[kg\]'"):
        fit_embeddings(two_circles)
