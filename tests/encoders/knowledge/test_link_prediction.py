import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.embeddings import fit_embeddings
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.link_prediction import Frequency, rank_triples, split_triples


class Table:
    """Scores read from a table (head, relation, tail)."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def heads(self, relations: Tensor, tails: Tensor) -> Tensor:
        return self.scores[:, relations, tails].T

    def tails(self, heads: Tensor, relations: Tensor) -> Tensor:
        return self.scores[heads, relations]


def test_six_entities_by_hand() -> None:
    # One relation. Tails of entity 0 score 9 8 7 6 5 4; heads of entity 2 score what entity i says of it.
    scores = torch.zeros(6, 1, 6)
    scores[0, 0] = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    scores[1:, 0, 2] = torch.tensor([7.0, 8.0, 1.0, 7.0, 0.0])
    asked = np.array([[0, 0, 2]])
    known = np.array([[0, 0, 1], [0, 0, 2], [2, 0, 2], [4, 0, 2]])
    plain = rank_triples(Table(scores), asked, None)
    # Tails 0 and 1 are better. Head 2 is better, heads 1 and 4 tie: they share places 2 to 4.
    assert plain.ranks["tail"].tolist() == [3]
    assert plain.ranks["head"].tolist() == [3]
    filtered = rank_triples(Table(scores), asked, known)
    # Tail 1 is true as well, and so are heads 2 and 4; head 1 still ties: places 1 and 2.
    assert filtered.ranks["tail"].tolist() == [2]
    assert filtered.ranks["head"].tolist() == [1.5]
    assert filtered.candidates == {"head": np.array([4]), "tail": np.array([5])}
    assert filtered.figures("tail") == {"mrr": 0.5, "hits_at_1": 0, "hits_at_3": 1, "hits_at_10": 1}
    assert filtered.figures()["mrr"] == pytest.approx((1 / 2 + 1 / 1.5) / 2)
    assert filtered.by_chance("head")["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert filtered.by_chance("head")["hits_at_3"] == pytest.approx(3 / 4)


@pytest.fixture(scope="module")
def random_graph() -> KnowledgeGraph:
    draw = np.random.default_rng(5)
    triples = np.stack([draw.integers(0, 30, 400), draw.integers(0, 3, 400), draw.integers(0, 30, 400)], axis=1)
    names = tuple(f"e{i}" for i in range(30))
    return KnowledgeGraph(names, ("a", "b", "c"), triples)


def test_batched_ranks_equal_a_plain_loop(random_graph: KnowledgeGraph) -> None:
    train, held = split_triples(random_graph, 0.2, 1)
    embeddings = fit_embeddings(train, "complex", dim=8, epochs=3)
    known = np.concatenate([train.triples, held])
    truths = {tuple(triple) for triple in known.tolist()}
    ranks = rank_triples(embeddings, held, known, batch_size=7)
    unfiltered = rank_triples(embeddings, held, None)
    for row, (head, relation, tail) in enumerate(held.tolist()):
        for side in ("head", "tail"):
            rivals = [(e, relation, tail) if side == "head" else (head, relation, e) for e in range(30)]
            rivals = [r for r in rivals if r not in truths or r == (head, relation, tail)]
            scores = embeddings.scores(torch.tensor(rivals))
            own = scores[rivals.index((head, relation, tail))]
            expected = 1 + int((scores > own + 1e-6).sum()) + (int(((scores - own).abs() <= 1e-6).sum()) - 1) / 2
            assert ranks.ranks[side][row] == expected
            assert ranks.candidates[side][row] == len(rivals)
    for side in ("head", "tail"):
        assert (ranks.ranks[side] <= unfiltered.ranks[side]).all()
        assert ranks.figures(side)["mrr"] > unfiltered.figures(side)["mrr"]
    pooled = (ranks.figures("head")["mrr"] + ranks.figures("tail")["mrr"]) / 2
    assert ranks.figures()["mrr"] == pytest.approx(pooled)
    of_one = ranks.figures(relation=1)
    mine = held[:, 1] == 1
    assert of_one["mrr"] == pytest.approx(np.mean([(1 / ranks.ranks[s][mine]).mean() for s in ("head", "tail")]))
    assert np.isnan(ranks.figures(relation=99)["mrr"])


def test_all_alike_earns_nothing(random_graph: KnowledgeGraph) -> None:
    ranks = rank_triples(Table(torch.zeros(30, 3, 30)), random_graph.triples, None)
    assert set(ranks.ranks["head"]) == set(ranks.ranks["tail"]) == {15.5}
    with pytest.raises(EncoderError, match="NaN"):
        rank_triples(Table(torch.full((30, 3, 30), float("nan"))), random_graph.triples, None)


def test_frequency_counts_training_triples() -> None:
    kg = KnowledgeGraph.from_names(["A", "B", "C"], ["genre"] * 3, ["drama", "drama", "war"])
    counts = Frequency(kg).tails(torch.tensor([0]), torch.tensor([0]))[0]
    assert dict(zip(kg.entities, counts.tolist(), strict=True)) == {"A": 0, "B": 0, "C": 0, "drama": 2, "war": 1}
    assert Frequency(kg).heads(torch.tensor([0]), torch.tensor([0]))[0].tolist() == [1, 1, 1, 0, 0]


def test_a_split_leaves_everything_known(random_graph: KnowledgeGraph) -> None:
    train, held = split_triples(random_graph, 0.3, 4)
    again, _ = split_triples(random_graph, 0.3, 4)
    assert np.array_equal(train.triples, again.triples)
    assert not np.array_equal(held, split_triples(random_graph, 0.3, 5)[1])
    whole = np.unique(random_graph.triples, axis=0)
    assert np.array_equal(np.unique(np.concatenate([train.triples, held]), axis=0), whole)
    assert len(train.triples) + len(held) == len(whole)
    assert len(held) == round(0.3 * len(whole))
    assert set(train.triples[:, [0, 2]].ravel()) == set(whole[:, [0, 2]].ravel())
    assert set(train.triples[:, 1]) == set(whole[:, 1])


def test_the_last_triple_of_anything_stays() -> None:
    # "B" has one triple, and so has "wrote"; one of A's two may go as "drama" keeps the other.
    kg = KnowledgeGraph.from_names(
        ["A", "A", "B", "C", "A"], ["is"] * 4 + ["wrote"], ["drama", "war", "drama", "war", "war"]
    )
    train, held = split_triples(kg, 0.9, 0)
    lost = {(kg.entities[h], kg.relations[r]) for h, r, _ in held.tolist()}
    assert lost == {("A", "is")}
    assert set(train.triples[:, [0, 2]].ravel()) == set(range(len(kg.entities)))
    with pytest.raises(EncoderError, match="none of the 1 triples can be held out"):
        split_triples(KnowledgeGraph.from_names(["A"], ["is"], ["A"]), 0.5)
    with pytest.raises(EncoderError, match="must lie inside"):
        split_triples(kg, 1.5)


def test_a_graph_of_one_entity_is_fitted_and_ranked_first() -> None:
    kg = KnowledgeGraph.from_names(["A"], ["likes"], ["A"])
    ranks = rank_triples(fit_embeddings(kg, dim=4, epochs=1), kg.triples, kg.triples)
    assert ranks.figures() == {"mrr": 1, "hits_at_1": 1, "hits_at_3": 1, "hits_at_10": 1}


@pytest.mark.parametrize("model", ["transe", "distmult", "complex", "rotate"])
def test_fitted_vectors_predict_a_rule(model: str) -> None:
    """Two directors, each of whom makes one genre alone: a held-out genre follows from the director."""
    films = [f"film {i:02d}" for i in range(40)]
    heads = films * 2
    relations = ["by"] * 40 + ["of kind"] * 40
    tails = [f"director {i % 2}" for i in range(40)] + [f"genre {i % 2}" for i in range(40)]
    kg = KnowledgeGraph.from_names(heads, relations, tails)
    train, held = split_triples(kg, 0.15, 0)
    embeddings = fit_embeddings(train, model, dim=16, epochs=250)  # type: ignore[arg-type]
    ranks = rank_triples(embeddings, held, kg.triples)
    by_count = rank_triples(Frequency(train), held, kg.triples)
    assert by_count.figures("tail")["hits_at_1"] < 0.6
    assert ranks.figures("tail")["hits_at_1"] >= 0.75
