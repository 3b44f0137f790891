"""N-Triples dumps: what is kept, what a query selects, and lines that are broken."""

import bz2
import gzip
from pathlib import Path

import pytest

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.ntriples import query_text, read_ntriples

HEAT = "<http://ex.org/film/Heat>"
MANN = "<http://ex.org/person/Q1>"
DUMP = f"""# films
{HEAT} <http://ex.org/p#director> {MANN} .

{HEAT} <http://ex.org/p#genre> <http://ex.org/genre/Crime> .
{HEAT} <http://ex.org/p#genre> <http://ex.org/genre/Crime> .
{HEAT} <http://ex.org/p#released> "1995-12-15"^^<http://www.w3.org/2001/XMLSchema#date> .
{HEAT} <http://ex.org/p#tagline> "A Los Angeles crime saga"@en .
{MANN} <http://www.w3.org/2000/01/rdf-schema#label> "Michael Mann"@en .
{MANN} <http://www.w3.org/2000/01/rdf-schema#label> "Mann, Michael"@de .
_:b0 <http://ex.org/p#genre> <http://ex.org/genre/Crime> .
"""
NAMED = {("Heat", "director", "Michael Mann"), ("Heat", "genre", "Crime")}


def dump(folder: Path, text: str = DUMP) -> Path:
    (folder / "films.nt").write_text(text, encoding="utf-8")
    return folder / "films.nt"


def named(graph: KnowledgeGraph) -> set[tuple[str, str, str]]:
    return {(graph.entities[h], graph.relations[r], graph.entities[t]) for h, r, t in graph.triples.tolist()}


def test_triples_between_things_with_their_labels(tmp_path: Path) -> None:
    graph, report = read_ntriples(dump(tmp_path))
    assert named(graph) == NAMED
    assert (report.rows, report.kept, report.duplicates, report.passed_over, report.broken) == (8, 2, 1, 5, 0)
    german, _ = read_ntriples(dump(tmp_path), labels="de")
    assert "Mann, Michael" in german.entities
    assert "Michael Mann" not in german.entities
    bare, _ = read_ntriples(dump(tmp_path), labels=None)
    assert ("Heat", "director", "Q1") in named(bare)


def test_literals_on_request(tmp_path: Path) -> None:
    assert named(read_ntriples(dump(tmp_path), literals="years")[0]) == NAMED | {("Heat", "released", "1995")}
    every = named(read_ntriples(dump(tmp_path), literals="all")[0])
    assert every == NAMED | {("Heat", "released", "1995"), ("Heat", "tagline", "A Los Angeles crime saga")}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT ?head ?relation ?tail WHERE { ?head ?relation ?tail . FILTER(STRENDS(STR(?relation), '#director')) }",
        "PREFIX p: <http://ex.org/p#> CONSTRUCT { ?f p:director ?d } WHERE { ?f p:director ?d ; p:genre ?g }",
    ],
)
def test_a_query_selects(tmp_path: Path, query: str) -> None:
    graph, report = read_ntriples(dump(tmp_path), query)
    assert named(graph) == {("Heat", "director", "Michael Mann")}
    assert (report.rows, report.kept) == (1, 1)


def test_a_query_may_ask_for_literals_and_joins(tmp_path: Path) -> None:
    query = (
        "PREFIX p: <http://ex.org/p#> SELECT ?tail ?head ?relation WHERE { ?film p:director ?head ; p:released ?tail . "
        "BIND('directed in' AS ?relation) }"
    )
    assert named(read_ntriples(dump(tmp_path), query)[0]) == {("Michael Mann", "directed in", "1995")}


@pytest.mark.parametrize("ending", [".nt.gz", ".nt.bz2", ".NT.GZ"])
def test_packed_dumps(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"films{ending}"
    pack = gzip.compress if ending.lower().endswith("gz") else bz2.compress
    path.write_bytes(pack(DUMP.encode()))
    assert named(read_ntriples(path)[0]) == NAMED
    path.write_bytes(pack(DUMP.encode())[:-20])
    with pytest.raises(EncoderError, match=r"films\.(?i:nt)\.\w+ cannot be read after line \d+ .*; get the file anew"):
        read_ntriples(path)


BROKEN = {
    "no end": f"{HEAT} <http://ex.org/p#genre> <http://ex.org/genre/Thriller>",
    "no object": f"{HEAT} <http://ex.org/p#genre> .",
    "open text": f'{HEAT} <http://ex.org/p#tagline> "A Los Angeles',
    "no utf-8": f'{HEAT} <http://ex.org/p#tagline> "\udcff" .',
    "space in an IRI": f"{HEAT} <http://ex.org/p#genre> <http://ex.org/genre/Film noir> .",
}


NEAR = "CONSTRUCT WHERE { ?head <http://ex.org/p#near> ?tail }"


@pytest.mark.parametrize(("name", "before", "query"), [*((n, 0, None) for n in BROKEN), ("no end", 5_000, NEAR)])
def test_a_broken_line_is_named_and_takes_no_other_with_it(
    tmp_path: Path, name: str, before: int, query: str | None
) -> None:
    good = [f"<http://ex.org/a{i}> <http://ex.org/p#near> <http://ex.org/b{i}> ." for i in range(before + 3)]
    path = tmp_path / "broken.nt"
    lines = [*good[: before + 1], BROKEN[name], *good[before + 1 :]]
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(EncoderError, match=rf"broken\.nt, line {before + 2}, .*on_bad_lines='skip'"):
        read_ntriples(path, query)
    graph, report = read_ntriples(path, query, on_bad_lines="skip")
    assert len(graph.triples) == before + 3
    assert report.broken == 1
    assert f"broken.nt, line {before + 2}" in report.first_broken[0]
    assert "\n" not in report.first_broken[0]


def test_names_that_two_iris_share_are_kept_apart(tmp_path: Path) -> None:
    path = dump(
        tmp_path,
        "<http://a.org/Heat> <http://a.org/by> <http://a.org/Mann> .\n"
        "<http://b.org/Heat> <http://b.org#by> <http://a.org/Am%C3%A9lie> .\n",
    )
    graph, _ = read_ntriples(path)
    assert graph.entities == ("Amélie", "Heat <http://a.org/Heat>", "Heat <http://b.org/Heat>", "Mann")
    assert graph.relations == ("by <http://a.org/by>", "by <http://b.org#by>")


def test_a_property_of_wikidata_has_the_name_of_its_entity(tmp_path: Path) -> None:
    wikidata = "http://www.wikidata.org"
    path = dump(
        tmp_path,
        f"<{wikidata}/entity/Q42198> <{wikidata}/prop/direct/P57> <{wikidata}/entity/Q41148> .\n"
        f'<{wikidata}/entity/P57> <http://www.w3.org/2000/01/rdf-schema#label> "director"@en .\n',
    )
    for query in (None, f"CONSTRUCT WHERE {{ ?film <{wikidata}/prop/direct/P57> ?person }}"):
        assert named(read_ntriples(path, query)[0]) == {("Q42198", "director", "Q41148")}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT ?head WHERE {", r"the SPARQL query is broken \(error at 1:21"),
        ("SELECT ?head ?tail WHERE { ?head ?p ?tail }", r"selects \?head, \?tail and lacks \?relation"),
        ("ASK { ?a ?b ?c }", "is an ASK; give a SELECT"),
        ("SELECT ?head ?relation ?tail WHERE { ?head ?relation ?tail . FILTER(false) }", "no triple was left of"),
    ],
)
def test_queries_that_give_no_triples(tmp_path: Path, query: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message) as caught:
        read_ntriples(dump(tmp_path), query)
    assert "\n" not in str(caught.value)


def test_a_query_is_text_or_a_file(tmp_path: Path) -> None:
    text = "CONSTRUCT WHERE { ?a ?b ?c }"
    (tmp_path / "films.rq").write_text(text)
    assert query_text(text) == text == query_text(str(tmp_path / "films.rq"))
    assert (
        query_text("MATCH (a)-[r]->(b) RETURN a.name, type(r), b.name")
        == "MATCH (a)-[r]->(b) RETURN a.name, type(r), b.name"
    )
    assert query_text(None) is None
    with pytest.raises(EncoderError, match=r"'gone\.rq' is neither a query nor a file"):
        query_text("gone.rq")
