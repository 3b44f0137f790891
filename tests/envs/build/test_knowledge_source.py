"""A knowledge graph from elsewhere: read, linked, and written on the card."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recloop.encoders.base.errors import EncoderError, LogError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.state.batches import NextItemConfig
from recloop.envs.build.encoders import EncoderConfig, chosen_graph
from recloop.envs.build.knowledge import with_knowledge_source
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal
from recloop.envs.users.fitted import FitConfig
from recloop.envs.world.world import Card, World

TITLES = {"1": "Usual Suspects, The (1995)", "2": "Heat (1995)", "3": "Ran (1985)", "4": "4"}
TRIPLES = [
    ("film:The Usual Suspects (1995)", "director", "person:Bryan Singer"),
    ("film:Heat (1995)", "director", "person:Michael Mann"),
    ("film:Chaos", "director", "person:Akira Kurosawa"),
]


def log(entities: list[str | None] | None = None) -> LoggedBehavior:
    items = pd.DataFrame({Columns.title: TITLES, Columns.text: TITLES}, dtype="str")
    if entities is not None:
        items[Columns.entity] = pd.Series(entities, index=items.index, dtype="str")
    seen = pd.DataFrame({Columns.user: ["u"] * 4, Columns.item: list(TITLES), "click": 1.0})
    users = pd.DataFrame(index=pd.Index(["u"], dtype="str"))
    return LoggedBehavior("films", seen, users, items, (Signal("click"),))


def triples(folder: Path) -> str:
    (folder / "films.tsv").write_text("".join("\t".join(row) + "\n" for row in TRIPLES), encoding="utf-8")
    return str(folder / "films.tsv")


def entities(made: LoggedBehavior) -> list[str | None]:
    return [name if isinstance(name, str) else None for name in made.items[Columns.entity]]


def test_items_are_linked_by_title_and_year(tmp_path: Path) -> None:
    said: list[str] = []
    before = replace(log(), notes=("Times are made up.", "3 of 4 items are linked to the knowledge graph."))
    made, report = with_knowledge_source(before, triples(tmp_path), say=said.append)
    assert made.notes == ("Times are made up.",)
    assert entities(made) == ["film:The Usual Suspects (1995)", "film:Heat (1995)", None, None]
    assert made.knowledge is not None
    assert len(made.knowledge.triples) == 3
    assert "2 of 4 items are linked to it: 0 by the log itself, the others by title and year (2" in said[1]
    assert any("1 items are no entity, such as 'Ran (1985)'" in line for line in said)
    card = report.on_card(Card(learned=("before",)))
    assert card.learned[0].endswith("2 of 4 items are linked to it, 2 of them by title and year.")
    assert "3 triples of 3" in card.learned[0]
    assert "nobody looked at each link" in card.assumed[0]
    assert card.figures["knowledge_source"]["by_title_and_year"] == {"title and year": 2, "missing": 1}


def test_links_of_the_log_come_first(tmp_path: Path) -> None:
    made, report = with_knowledge_source(log([None, "gone", "film:Chaos", None]), triples(tmp_path))
    assert entities(made) == ["film:The Usual Suspects (1995)", "film:Heat (1995)", "film:Chaos", None]
    assert report.given == 1
    only, report = with_knowledge_source(log(["film:Heat (1995)", "film:Heat (1995)", None, None]), triples(tmp_path))
    assert entities(only) == ["film:Heat (1995)", "film:Heat (1995)", None, None]
    assert report.on_card(Card()).assumed == ()


def test_a_dump_tells_years_and_is_selected_from(tmp_path: Path) -> None:
    year = '"1995-12-15"^^<http://www.w3.org/2001/XMLSchema#date>'
    (tmp_path / "films.nt").write_text(
        f"<http://ex.org/Heat> <http://ex.org/releaseDate> {year} .\n"
        "<http://ex.org/Heat> <http://ex.org/director> <http://ex.org/Michael_Mann> .\n"
        "<http://ex.org/Heat> <http://ex.org/broken> .\n",
        encoding="utf-8",
    )
    with pytest.raises(EncoderError, match=r"films\.nt, line 3"):
        with_knowledge_source(log(), str(tmp_path / "films.nt"))
    made, _ = with_knowledge_source(log(), str(tmp_path / "films.nt"), on_bad_lines="skip")
    assert entities(made) == [None, "Heat", None, None]
    (tmp_path / "years.rq").write_text("CONSTRUCT WHERE { ?film <http://ex.org/releaseDate> ?date }")
    made, report = with_knowledge_source(log(), str(tmp_path / "films.nt"), str(tmp_path / "years.rq"), "skip")
    assert made.knowledge is not None
    assert made.knowledge.relations == ("releaseDate",)
    assert report.figures["broken"] == 1


def test_a_store_is_a_source_too(tmp_path: Path) -> None:
    pytest.importorskip("ladybug")
    from recloop.encoders.knowledge.stores.places import open_store

    place = f"ladybug:{tmp_path / 'graph.db'}"
    with open_store(place) as store:
        store.build(KnowledgeGraph.from_names(*(list(column) for column in zip(*TRIPLES, strict=True))))
    made, report = with_knowledge_source(log(), place)
    assert entities(made)[:2] == ["film:The Usual Suspects (1995)", "film:Heat (1995)"]
    assert report.figures["kept"] == 3


def test_a_graph_that_knows_none_of_the_items(tmp_path: Path) -> None:
    (tmp_path / "songs.tsv").write_text("song:Hurt (1994)\tby\tband:Nine Inch Nails\n")
    with pytest.raises(LogError, match=r"none of the 4 items of films \(such as 'Usual .*\) is linked to .*songs"):
        with_knowledge_source(log(), str(tmp_path / "songs.tsv"))


@pytest.mark.slow
def test_a_world_with_a_graph_from_elsewhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = pd.Series(
        [f"Film {i}, The ({1960 + i})" for i in range(24)], index=[str(i) for i in range(24)], dtype="str"
    )
    rows = [(f"u{u}", str(i)) for u in range(24) for i in rng.choice(24, 6, replace=False)]
    seen = pd.DataFrame(rows, columns=[Columns.user, Columns.item], dtype="str").assign(click=1.0)
    films = LoggedBehavior(
        "films",
        seen,
        pd.DataFrame(index=pd.Index([f"u{u}" for u in range(24)], dtype="str")),
        pd.DataFrame({Columns.title: items, Columns.text: items}),
        (Signal("click"),),
    )
    lines = [f"film:The Film {i} ({1960 + i})\tgenre\tgenre:{i % 3}" for i in range(20)]
    (tmp_path / "genres.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\n" + "\n".join(lines))
    config = BuildConfig(
        slate_size=3, history_length=8, shown_length=2, members=1, examine=False, use_cache=False,
        encoder=EncoderConfig(
            text="none", dim=8, kg_dim=8, kg_epochs=2, segments=-1, topics=0,
            kg_source=str(tmp_path / "genres.kg"), next_item=NextItemConfig(epochs=1, batch_users=8),
        ),
        users=FitConfig(epochs=1, hidden=8, rank=4, residual=4, negatives=8),
    )  # fmt: skip
    said: list[str] = []
    world = build_world(films, config, say=said.append)
    assert world.knowledge is not None
    assert world.knowledge.relations == ("genre",)
    assert world.card.figures["knowledge_source"]["linked"] == world.card.figures["linked_items"] == 20
    assert any("20 of 24 items are linked to it" in line for line in said)
    world.save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    assert again.card == world.card
    assert again.knowledge is not None
    assert len(again.knowledge.triples) == 20


def test_a_query_needs_a_source() -> None:
    with pytest.raises(EncoderError, match="kg_query selects from kg_source, which is not given"):
        EncoderConfig(kg_query="SELECT ?head ?relation ?tail WHERE { ?head ?relation ?tail }")


def test_relations_are_chosen_and_unknown_ones_named(tmp_path: Path) -> None:
    (tmp_path / "more.tsv").write_text("film:Heat (1995)\tgenre\tgenre:Crime\n", encoding="utf-8")
    made, _ = with_knowledge_source(log(), str(tmp_path / "more.tsv"))
    both = KnowledgeGraph.from_names(["a", "a"], ["genre", "director"], ["b", "c"])
    chosen, report = chosen_graph(replace(made, knowledge=both), EncoderConfig(kg_relations=("genre",)), print)
    assert chosen.knowledge is not None
    assert chosen.knowledge.relations == ("genre",)
    assert report is None
    with pytest.raises(EncoderError, match="unknown relation 'gerne'; did you mean 'genre'"):
        chosen_graph(made, EncoderConfig(kg_relations=("gerne",)), print)
    with pytest.raises(EncoderError, match="kg_relations chooses from the log's knowledge graph, and it has none"):
        chosen_graph(log(), EncoderConfig(kg_relations=("genre",)), print)
