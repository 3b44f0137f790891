"""`recloop graph`: triples into a store, and questions to it, from the command line."""

from pathlib import Path
from typing import Any

import pytest

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.sources import read_triples
from recloop.encoders.knowledge.stores import open_store
from recloop.envs.world.world import save_knowledge
from recloop.experiments.cli import main
from recloop.experiments.provenance import command

TRIPLES = "head\trelation\ttail\nAlien\tby\tScott\nBlade Runner\tby\tScott\nAlien\tkind\t[horror]\n"


@pytest.fixture
def triples(tmp_path: Path) -> Path:
    path = tmp_path / "films.tsv"
    path.write_text(TRIPLES, encoding="utf-8")
    return path


@pytest.fixture
def store(triples: Path, tmp_path: Path) -> str:
    place = f"ladybug:{tmp_path / 'graphs' / 'films.db'}"
    main(["graph", "build", str(triples), "--store", place, "--no-progress"])
    return place


def test_build_then_ask(store: str, triples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["graph", "build", str(triples), "--store", store, "--no-progress"])
    assert capsys.readouterr().out.endswith("films.db: 4 entities; triples: by 2, kind 1\n")
    main(["graph", "paths", "Alien", "Blade Runner", "--store", store])
    assert capsys.readouterr().out == "Alien -by-> Scott <-by- Blade Runner\n"
    main(["graph", "paths", "Alien", "Blade Runner", "--store", store, "--max-hops", "1"])
    assert capsys.readouterr().out == "no path of up to 1 hops\n"
    main(["graph", "neighbours", "Alien", "Scott", "--store", store, "--relations", "kind"])
    assert capsys.readouterr().out == "Alien -kind-> [horror]\n"
    main(["graph", "neighbours", "Scott", "--store", store, "--hops", "2", "--limit", "1"])
    assert capsys.readouterr().out == "Alien -by-> Scott\n... the nearest 1; raise --limit for more\n"


def test_a_world_and_another_store_are_sources_too(
    store: str, triples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "world").mkdir()
    save_knowledge(read_triples(triples)[0], tmp_path / "world" / "knowledge.parquet")
    for number, source in enumerate((str(tmp_path / "world"), store)):
        copy = f"ladybug:{tmp_path / f'{number}.db'}"
        main(["graph", "build", source, "--store", copy, "--no-progress"])
        with open_store(copy) as one, open_store(store) as two:
            first, second = one.graph(), two.graph()
            assert isinstance(first, KnowledgeGraph)
            assert (first.entities, first.triples.tolist()) == (second.entities, second.triples.tolist())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["paths", "Alien", "Heat"], "no entity 'Heat' in the store"),
        (["neighbours"], "no entity to look around; give names"),
        (["neighbours", "Alien", "--relations", "bye"], "unknown relation 'bye'; did you mean 'by'?"),
        (["build", "nowhere.tsv"], "nowhere.tsv is not a file"),
        (["build", "bolt://neo4j:geheim@127.0.0.1:1"], "bolt://neo4j@127.0.0.1:1 cannot be reached"),
        (["build", "."], "holds no knowledge graph; name a world that has one"),
    ],
)
def test_what_goes_wrong_is_one_line(
    store: str, arguments: list[str], said: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["graph", *arguments, "--store", store])
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("recloop: ")
    assert said in shown
    assert shown.count("\n") == 1
    assert "geheim" not in shown


def test_no_password_is_written_into_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["recloop", "build", "--encoder.kg-source=bolt://me:ge=heim@h:1", "neo4j://me:geheim@h/films", "--seed=3"]
    monkeypatch.setattr("sys.argv", given)
    assert command() == "recloop build --encoder.kg-source=bolt://me@h:1 neo4j://me@h/films --seed=3"
