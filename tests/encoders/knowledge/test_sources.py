"""Triples from tables, and what a graph answers about its relations."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.sources import TripleColumns, read_triples

ROWS = [("Heat", "by", "Mann"), ('The "Rock"', "by", "Bay"), ("Heat", "by", "Mann"), ("Heat", "genre", "Crime")]
GRAPH = KnowledgeGraph.from_names(*(list(column) for column in zip(*dict.fromkeys(ROWS), strict=True)))
NAMED = TripleColumns("film", "what", "whom")


def tabs(header: str, rows: list[tuple[str, ...]] | None = None) -> str:
    lines = ["\t".join(row) for row in (ROWS if rows is None else rows)]
    return "\n".join(([header] if header else []) + lines) + "\n"


def same(graph: KnowledgeGraph, other: KnowledgeGraph) -> bool:
    names = graph.entities == other.entities and graph.relations == other.relations
    return names and np.array_equal(graph.triples, other.triples)


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.kg", tabs("head_id:token\trelation_id:token\ttail_id:token"), None),
        ("a.tsv", tabs(""), None),
        ("a.tsv", tabs("Subject\tPredicate\tObject"), None),
        ("a.txt", tabs("film\twhat\twhom"), NAMED),
        ("a.csv", 'tail,weight,head,relation\n' + "".join(
            f'{t},1,"{h.replace(chr(34), chr(34) * 2)}",{r}\n' for h, r, t in ROWS), None),
    ],
)  # fmt: skip
def test_delimited_files(tmp_path: Path, name: str, text: str, columns: TripleColumns | None) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    graph, report = read_triples(tmp_path / name, columns)
    assert same(graph, GRAPH)
    assert (report.rows, report.kept, report.duplicates, report.broken) == (4, 3, 1, 0)


@pytest.mark.parametrize("columns", [None, NAMED])
def test_parquet(tmp_path: Path, columns: TripleColumns | None) -> None:
    names = ("tail", "head", "relation") if columns is None else ("whom", "film", "what")
    frame = pd.DataFrame([(t, h, r) for h, r, t in ROWS], columns=list(names))
    frame.astype("category").to_parquet(tmp_path / "a.parquet")
    assert same(read_triples(tmp_path / "a.parquet", columns)[0], GRAPH)
    numbers = pd.DataFrame({"h": [1, 2], "r": ["by", "by"], "t": [3, None]})
    numbers.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(EncoderError, match=r"b\.parquet, row 2, column 't': the cell is empty"):
        read_triples(tmp_path / "b.parquet")


def test_broken_lines_are_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("head\trelation\ttail\na\tb\tc\n\na\tb\nd\t \tf\na\tb\tc\td\ng\tb\th\n", encoding="utf-8")
    with pytest.raises(EncoderError, match=r"a\.tsv, line 4, column 'tail': 2 fields instead of 3; .*'skip'"):
        read_triples(path)
    graph, report = read_triples(path, on_bad_lines="skip")
    assert len(graph.triples) == 2
    assert report.broken == 3
    assert report.rows == 5
    assert any("line 5, column 'relation': the cell is empty" in line for line in report.first_broken)
    assert any("line 6" in line and "4 fields instead of 3" in line for line in report.first_broken)
    assert "2 triples of 5 (3 broken; first broken:" in str(report)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", b"<a/>", r"a\.xml is in no format of triples that is understood; use one of \.kg"),
        ("a.tsv", b"", r"a\.tsv begins with an empty line"),
        ("a.tsv", b"head\trelation\ttail\n", r"no triple was left of .*a\.tsv"),
        ("a.tsv", b"a\tb\tc\td\n", r"a\.tsv has the columns a, b, c, d, which do not say .*TripleColumns"),
        ("a.tsv", b"a\tb\tc\nd\t\xff\tf\n", r"a\.tsv, line 2 is no UTF-8 text \(invalid start byte\)"),
        ("a.parquet", b"PAR0", r"a\.parquet is no Parquet file that can be read"),
    ],
)
def test_files_that_hold_no_triples(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EncoderError, match=message) as caught:
        read_triples(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"gone\.kg is not a file"):
        read_triples(tmp_path / "gone.kg")
    (tmp_path / "a.tsv").write_text("film\twhat\twho\na\tb\tc\n")
    with pytest.raises(EncoderError, match=r"unknown column 'whom'; did you mean 'who'\?"):
        read_triples(tmp_path / "a.tsv", NAMED)
    with pytest.raises(EncoderError, match="no SPARQL query can select from"):
        read_triples(tmp_path / "a.tsv", query="SELECT * WHERE { ?a ?b ?c }")
    with pytest.raises(EncoderError, match="on_bad_lines='drop' is unknown"):
        read_triples(tmp_path / "a.tsv", on_bad_lines="drop")  # type: ignore[arg-type]


def test_relations_by_name() -> None:
    assert GRAPH.relation("genre") == 1
    with pytest.raises(EncoderError, match="unknown relation 'gerne'; did you mean 'genre'"):
        GRAPH.relation("gerne")
    only = GRAPH.only(["genre"])
    assert only.relations == ("genre",)
    assert only.entities == GRAPH.entities
    assert [GRAPH.entities[t] for t in only.triples[:, 2]] == ["Crime"]
    with pytest.raises(EncoderError, match="unknown relation 'writer'"):
        GRAPH.only(["writer"])


def test_an_unknown_relation_among_many_is_one_short_line() -> None:
    names = [f"P{i}" for i in range(1_000)]
    with pytest.raises(
        EncoderError, match=r"unknown relation 'P1000'; did you mean 'P100'\? .* and 960 more$"
    ) as caught:
        KnowledgeGraph.from_names(names, names, names).relation("P1000")
    assert len(str(caught.value)) < 400


def test_many_names_are_numbered_as_by_hand() -> None:
    generator = np.random.default_rng(0)
    heads, kinds, tails = ([f"{c}{i}" for i in generator.integers(0, 300, 2_000)] for c in ("é", "r", "z"))
    graph = KnowledgeGraph.from_names(heads, kinds, tails)
    assert graph.entities == tuple(sorted({*heads, *tails}))
    assert graph.relations == tuple(sorted(set(kinds)))
    read_back = [(graph.entities[h], graph.relations[r], graph.entities[t]) for h, r, t in graph.triples.tolist()]
    assert read_back == list(zip(heads, kinds, tails, strict=True))
    twice = KnowledgeGraph.from_names(heads + heads[::-1], kinds + kinds[::-1], tails + tails[::-1])
    assert np.array_equal(twice.distinct().triples, graph.distinct().triples)
