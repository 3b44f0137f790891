"""The embedded store as a file: kept, reopened, replaced whole, damaged, and within its memory."""

import sys
from pathlib import Path

import pytest

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.stores import LadybugStore

FILMS = KnowledgeGraph.from_names(["Alien", "Blade Runner"], ["by", "by"], ["Scott", "Scott"])
OTHERS = KnowledgeGraph.from_names(["Heat"], ["by"], ["Mann"])


def small(path: Path) -> LadybugStore:
    return LadybugStore(path, buffer_pool_size=64 * 2**20, threads=1)


def test_a_file_is_reopened_by_several_and_never_written_by_questions(tmp_path: Path) -> None:
    path = tmp_path / "graphs" / "films.db"
    with small(path) as store:
        store.build(FILMS)
    before = path.read_bytes()
    with small(path) as one, small(path) as two:
        assert one.entities() == two.entities() == 3
        assert [str(p) for p in two.paths("Alien", "Blade Runner")] == ["Alien -by-> Scott <-by- Blade Runner"]
        with pytest.raises(EncoderError, match=r"films\.db cannot answer: .*read-only"):
            one.select("MATCH (n:RecloopEntity) DETACH DELETE n RETURN 1, 2, 3")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_who_asks_while_another_builds_keeps_the_old_graph(tmp_path: Path) -> None:
    path = tmp_path / "graph.db"
    small(path).build(FILMS)
    with small(path) as reader:
        assert reader.entities() == 3
        small(path).build(OTHERS)
        assert reader.graph().entities == FILMS.entities
        reader.close()
        assert reader.graph().entities == OTHERS.entities


def test_a_build_that_breaks_off_leaves_the_last_good_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.db"
    store = small(path)
    store.build(FILMS)
    monkeypatch.setattr("recloop.encoders.knowledge.stores.ladybug_store.TRIPLE", "NoSuchTable")
    with pytest.raises(EncoderError, match=r"graph\.db cannot be built: .*NoSuchTable"):
        store.build(OTHERS)
    assert store.graph().entities == FILMS.entities
    store.close()
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_of_writes_left_by_an_earlier_owner_is_not_replayed(tmp_path: Path) -> None:
    path = tmp_path / "graph.db"
    (tmp_path / "graph.db.wal").write_bytes(b"left behind")
    small(path).build(FILMS)
    assert small(path).entities() == 3
    assert list(tmp_path.iterdir()) == [path]


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "graph.db"
    with pytest.raises(EncoderError, match=r"graph\.db is missing; build the store there first"):
        small(path).entities()
    small(path).build(FILMS)
    whole = path.read_bytes()
    for damaged in (b"hello " * 1000, whole[: len(whole) // 2], bytes(64) + whole[64:]):
        path.write_bytes(damaged)
        said = r"graph\.db cannot be opened as a graph store.*; build it anew"
        with pytest.raises(EncoderError, match=said) as caught:
            small(path).graph()
        assert "\n" not in str(caught.value)
    path.write_bytes(b"")
    with pytest.raises(EncoderError, match=r"graph\.db holds no graph of recloop; build one"):
        small(path).graph()
    small(path).build(FILMS)
    assert small(path).entities() == 3
    with pytest.raises(EncoderError, match="is a folder; name a file"):
        small(tmp_path).build(FILMS)


def test_triples_selected_out_of_a_database_of_someone_else(tmp_path: Path) -> None:
    import ladybug

    path = tmp_path / "theirs.db"
    with ladybug.Database(path, buffer_pool_size=64 * 2**20) as database, ladybug.Connection(database) as connection:
        for statement in (
            "CREATE NODE TABLE Movie(title STRING, PRIMARY KEY(title))",
            "CREATE NODE TABLE Person(name STRING, PRIMARY KEY(name))",
            "CREATE REL TABLE DIRECTED(FROM Person TO Movie)",
            "CREATE (:Person {name: 'Mann'})-[:DIRECTED]->(:Movie {title: 'Heat'})",
        ):
            connection.execute(statement)
    with small(path) as store:
        graph = store.select("MATCH (p:Person)-[r]->(m:Movie) RETURN p.name, label(r), m.title")
        assert (graph.entities, graph.relations) == (("Heat", "Mann"), ("DIRECTED",))
        assert graph.triples.tolist() == [[1, 0, 0]]
        with pytest.raises(EncoderError, match="returns 1 columns; return three: head, relation and tail"):
            store.select("MATCH (p:Person) RETURN p.name")
        with pytest.raises(EncoderError, match=r"finds no triples in .*theirs\.db"):
            store.select("MATCH (p:Person {name: 'Scott'}) RETURN p.name, 'a', 'b'")
        with pytest.raises(EncoderError, match="holds no graph of recloop; build one, or select"):
            store.entities()


def test_memory_is_bounded(tmp_path: Path) -> None:
    big = KnowledgeGraph.from_names([f"entity {i}" for i in range(60_000)], ["r"] * 60_000, ["hub"] * 60_000)
    with pytest.raises(EncoderError, match=r"graph\.db cannot be built: .*[Bb]uffer"):
        LadybugStore(tmp_path / "graph.db", buffer_pool_size=4 * 2**20, threads=1).build(big)
    assert list(tmp_path.iterdir()) == []


def test_without_ladybug_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ladybug", None)
    with pytest.raises(EncoderError, match=r"pip install 'recloop\[kg\]'"):
        small(tmp_path / "graph.db").build(FILMS)
