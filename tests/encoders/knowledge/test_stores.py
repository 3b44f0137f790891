"""The three stores give the same answers: one contract test over all, hand-worked on six films."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.stores import GraphStore, LadybugStore, MemoryStore, Neo4jStore, open_store

ALIEN, BLADE, HEAT = "film:Alien (1979)", "film:Blade Runner (1982)", "film:Heat (1995)"
SCOTT, FICTION, CRIME = "person:Ridley Scott", "genre:sci-fi", "genre:crime"
FILMS = KnowledgeGraph.from_names(
    [ALIEN, BLADE, BLADE, ALIEN, HEAT, BLADE],
    ["genre", "genre", "director", "director", "genre", "genre"],
    [FICTION, FICTION, SCOTT, SCOTT, CRIME, CRIME],
)
STORES = ("memory", "ladybug", "neo4j")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, server: Any) -> Iterator[GraphStore]:
    made: GraphStore = {
        "memory": MemoryStore,
        "ladybug": lambda: LadybugStore(tmp_path / "graph.db", buffer_pool_size=64 * 2**20, threads=1),
        "neo4j": lambda: Neo4jStore(f"bolt://{server.address}", "neo4j", server.password),
    }[request.param]()
    with made:
        made.build(FILMS)
        yield made


def named(graph: KnowledgeGraph) -> list[tuple[str, str, str]]:
    """Triples by name, in their order."""
    return [(graph.entities[h], graph.relations[r], graph.entities[t]) for h, r, t in graph.triples.tolist()]


def test_the_graph_comes_out_as_it_went_in(store: GraphStore) -> None:
    assert store.graph().entities == FILMS.entities
    assert store.graph().relations == FILMS.relations
    assert store.graph().triples.tolist() == FILMS.triples.tolist()
    assert store.graph().triples.dtype == np.int64
    assert store.entities() == 6
    assert list(store.relations().items()) == [("director", 2), ("genre", 4)]
    assert named(store.graph(["director"])) == [(BLADE, "director", SCOTT), (ALIEN, "director", SCOTT)]


def test_building_twice_changes_nothing_and_another_graph_replaces_the_first(store: GraphStore) -> None:
    store.build(FILMS)
    assert named(store.graph()) == named(FILMS)
    twice = KnowledgeGraph(("b", "a"), ("r", "never"), np.array([[0, 0, 1], [0, 0, 1], [1, 0, 1]]))
    store.build(twice)
    assert store.graph().entities == ("b", "a")
    assert store.graph().triples.tolist() == [[0, 0, 1], [1, 0, 1]]  # each triple once
    assert store.relations() == {"r": 2, "never": 0}
    assert named(store.neighbourhood(["a"])) == [("b", "r", "a"), ("a", "r", "a")]
    assert list(map(str, store.paths("a", "b"))) == ["a <-r- b"]


def test_neighbourhoods_by_hand(store: GraphStore) -> None:
    assert named(store.neighbourhood([ALIEN])) == [(ALIEN, "genre", FICTION), (ALIEN, "director", SCOTT)]
    assert named(store.neighbourhood([SCOTT])) == [(BLADE, "director", SCOTT), (ALIEN, "director", SCOTT)]
    assert named(store.neighbourhood([ALIEN], hops=2)) == named(FILMS)[:4]
    assert named(store.neighbourhood([ALIEN], hops=3)) == [*named(FILMS)[:4], (BLADE, "genre", CRIME)]
    assert named(store.neighbourhood([HEAT, ALIEN, HEAT])) == [named(FILMS)[i] for i in (0, 3, 4)]
    only = store.neighbourhood([ALIEN], hops=3, relations=["director"])
    assert named(only) == [(BLADE, "director", SCOTT), (ALIEN, "director", SCOTT)]
    assert len(store.neighbourhood([]).triples) == 0


def test_a_limit_keeps_the_nearest_and_then_the_first_built(store: GraphStore) -> None:
    assert named(store.neighbourhood([SCOTT], hops=2, limit=3)) == [named(FILMS)[i] for i in (0, 2, 3)]
    assert named(store.neighbourhood([SCOTT], hops=3, limit=1)) == [(BLADE, "director", SCOTT)]
    assert named(store.neighbourhood([ALIEN, BLADE], limit=2)) == named(FILMS)[:2]


def test_paths_read_as_sentences(store: GraphStore) -> None:
    assert list(map(str, store.paths(ALIEN, BLADE))) == [
        f"{ALIEN} -genre-> {FICTION} <-genre- {BLADE}",
        f"{ALIEN} -director-> {SCOTT} <-director- {BLADE}",
    ]
    assert list(map(str, store.paths(SCOTT, ALIEN, max_hops=1))) == [f"{SCOTT} <-director- {ALIEN}"]
    assert store.paths(ALIEN, HEAT, max_hops=3) == []
    assert [str(path) for path in store.paths(ALIEN, HEAT, max_hops=4)] == [
        f"{ALIEN} -genre-> {FICTION} <-genre- {BLADE} -genre-> {CRIME} <-genre- {HEAT}",
        f"{ALIEN} -director-> {SCOTT} <-director- {BLADE} -genre-> {CRIME} <-genre- {HEAT}",
    ]
    assert len(store.paths(ALIEN, HEAT, max_hops=4, limit=1)) == 1
    assert [len(path) for path in store.paths(SCOTT, ALIEN, max_hops=3)] == [1, 3]


def test_stores_agree_on_a_random_graph(store: GraphStore) -> None:
    draw = np.random.default_rng(4)
    triples = np.stack([draw.integers(0, 12, 40), draw.integers(0, 3, 40), draw.integers(0, 12, 40)], axis=1)
    graph = KnowledgeGraph(tuple(f"e{i}" for i in range(12)), ("p", "q", "r"), triples)
    plain = MemoryStore(graph)
    store.build(graph)
    for hops, limit, relations in ((1, 9, None), (2, 17, None), (3, 100, ["p"]), (2, 5, ["p", "r"])):
        asked = ["e3", "e0"]
        expected = plain.neighbourhood(asked, hops, relations, limit)
        assert named(store.neighbourhood(asked, hops, relations, limit)) == named(expected)
    for hops, limit in ((2, 5), (3, 40), (4, 30)):
        assert store.paths("e1", "e2", hops, limit) == plain.paths("e1", "e2", hops, limit)


def test_no_name_can_be_taken_for_a_query(store: GraphStore) -> None:
    names = ["Ali'en", 'a "b"', "Amélie\\", "`x` {y: $z}", "-- // RETURN 1", "日本", " "]
    kinds = [f"is {name}" for name in names]
    store.build(KnowledgeGraph.from_names(names, kinds, ["other"] * len(names)))
    for name, kind in zip(names, kinds, strict=True):
        assert list(map(str, store.paths(name, "other", max_hops=1))) == [f"{name} -{kind}-> other"]
        assert named(store.neighbourhood([name], relations=[kind])) == [(name, kind, "other")]


def test_what_is_not_there_is_named(store: GraphStore) -> None:
    with pytest.raises(EncoderError, match=r"no entity 'alien' in the store; nearest: 'film:Alien \(1979\)'"):
        store.neighbourhood(["alien"])
    with pytest.raises(EncoderError, match="no entity 'Solaris' in the store; nothing there contains that name"):
        store.paths(ALIEN, "Solaris")
    with pytest.raises(EncoderError, match="unknown relation 'directr'; did you mean 'director'"):
        store.neighbourhood([ALIEN], relations=["directr"])
    with pytest.raises(EncoderError, match=r"unknown relation 'spouse'.*Known: director, genre"):
        store.graph(["spouse"])
    with pytest.raises(EncoderError, match="hops=4 is outside 1 to 3"):
        store.neighbourhood([ALIEN], hops=4)
    with pytest.raises(EncoderError, match="max_hops=0 is outside 1 to 4"):
        store.paths(ALIEN, BLADE, max_hops=0)
    with pytest.raises(EncoderError, match="limit=0 leaves nothing"):
        store.paths(ALIEN, BLADE, limit=0)
    with pytest.raises(EncoderError, match="to itself"):
        store.paths(ALIEN, ALIEN)


def test_a_graph_that_cannot_be_stored_leaves_the_old_one(store: GraphStore) -> None:
    with pytest.raises(EncoderError, match="holds no triples"):
        store.build(KnowledgeGraph.from_names([], [], []))
    with pytest.raises(EncoderError, match="entity 'a' stands twice"):
        store.build(KnowledgeGraph(("a", "b", "a"), ("r",), np.array([[0, 0, 1]])))
    with pytest.raises(EncoderError, match="points beyond the 2 entities or 1 relations"):
        store.build(KnowledgeGraph(("a", "b"), ("r",), np.array([[0, 0, 2]])))
    assert named(store.graph()) == named(FILMS)


def test_places(tmp_path: Path) -> None:
    with open_store(f"ladybug:{tmp_path / 'graph.db'}") as store:
        assert isinstance(store, LadybugStore)
        store.build(FILMS)
    for place in ("graph.db", "redis://me:geheim@host", "ladybug:", "", "http:geheim"):
        with pytest.raises(EncoderError, match="give ladybug:PATH, bolt://HOST:7687") as caught:
            open_store(place)
        assert "geheim" not in str(caught.value)
