import numpy as np

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.scrambling import scrambled


def test_degrees_survive_and_meaning_does_not() -> None:
    draw = np.random.default_rng(0)
    films = [f"film {i}" for i in range(200)]
    genres = [f"genre {i}" for i in draw.integers(0, 20, 200)]
    makers = [f"director {i}" for i in draw.integers(0, 40, 200)]
    kg = KnowledgeGraph.from_names(films * 2, ["of kind"] * 200 + ["by"] * 200, genres + makers)
    before = kg.triples.copy()
    other = scrambled(kg, 1)
    assert np.array_equal(kg.triples, before)
    assert (other.entities, other.relations) == (kg.entities, kg.relations)
    for relation in range(2):
        mine, theirs = (g.triples[g.triples[:, 1] == relation] for g in (kg, other))
        assert np.array_equal(np.sort(mine[:, 0]), np.sort(theirs[:, 0]))
        assert np.array_equal(np.sort(mine[:, 2]), np.sort(theirs[:, 2]))
    kept = {tuple(t) for t in kg.triples.tolist()} & {tuple(t) for t in other.triples.tolist()}
    assert len(kept) < 0.15 * len(kg.triples)
    assert np.array_equal(other.triples, scrambled(kg, 1).triples)
    assert not np.array_equal(other.triples, scrambled(kg, 2).triples)


def test_nothing_to_deal() -> None:
    empty = KnowledgeGraph.from_names([], [], [])
    assert len(scrambled(empty).triples) == 0
    one = KnowledgeGraph.from_names(["A"], ["is"], ["B"])
    assert np.array_equal(scrambled(one).triples, one.triples)
