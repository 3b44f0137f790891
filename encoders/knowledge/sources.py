"""Triples from files: RecBole `.kg`, TSV, CSV, Parquet, and N-Triples dumps, with a report of what was left out."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from recloop.encoders.base.errors import EncoderError, unknown_name
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.ntriples import DUMPS, read_ntriples
from recloop.encoders.knowledge.triple_report import BadLines, OnBadLines, TripleReport

SEPARATORS = {".kg": "\t", ".tsv": "\t", ".txt": "\t", ".csv": ","}
"""Delimited files that are understood, and what stands between their fields."""
SUFFIXES = (*SEPARATORS, ".parquet", *DUMPS)
_HEADERS = {
    "head": ("head", "head_id", "subject", "source", "h", "s"),
    "relation": ("relation", "relation_id", "predicate", "property", "r", "p"),
    "tail": ("tail", "tail_id", "object", "target", "t", "o"),
}
"""What files call the three columns, less a type after a colon."""


@dataclass(frozen=True)
class TripleColumns:
    """Which column of a table is what."""

    head: str
    relation: str
    tail: str

    @property
    def names(self) -> tuple[str, str, str]:
        """The three, in the order of a triple."""
        return (self.head, self.relation, self.tail)


def read_triples(
    path: Path,
    columns: TripleColumns | None = None,
    *,
    query: str | None = None,
    labels: str | None = "en",
    literals: Literal["none", "years", "all"] = "none",
    on_bad_lines: OnBadLines = "error",
) -> tuple[KnowledgeGraph, TripleReport]:
    """Read a knowledge graph, each triple once.

    The suffix says the format: `.kg .tsv .txt` (tabs, no quotes), `.csv` (quotes, no line ends in a field),
    `.parquet`, and the dumps of `read_ntriples` (`.nt`, `.nt.gz`, `.nt.bz2`). Delimited files may go without a header
    where they have three columns.

    Args:
        columns: which column is what; None goes by the usual names, else by order where there are three.
        query, labels, literals: of dumps; see `read_ntriples`.
        on_bad_lines: `error` raises at the first line that cannot be read, `skip` leaves it out and counts it.

    Raises:
        EncoderError: no such file, an unknown format, a missing column, bad lines (file, line and column), or no
            triple at all.
    """
    suffix = next((end for end in SUFFIXES if path.name.lower().endswith(end)), None)
    if suffix is None:
        raise EncoderError(f"{path} is in no format of triples that is understood; use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise EncoderError(f"{path} is not a file; check the path of the triples")
    if suffix in DUMPS:
        return read_ntriples(path, query, labels=labels, literals=literals, on_bad_lines=on_bad_lines)
    if query is not None:
        raise EncoderError(f"{path} is a table, which no SPARQL query can select from; leave the query out")
    bad = BadLines(on_bad_lines)
    table = _parquet(path, columns) if suffix == ".parquet" else _delimited(path, SEPARATORS[suffix], columns, bad)
    return _graph(path, table, bad)


@dataclass(frozen=True)
class _Table:
    """Three columns of strings, what the file calls them, and where each row stands."""

    columns: tuple[pyarrow.ChunkedArray, ...]
    names: tuple[str, ...]
    lines: npt.NDArray[np.int64]
    unit: str = "line"


def _graph(path: Path, table: _Table, bad: BadLines) -> tuple[KnowledgeGraph, TripleReport]:
    """The graph of a table: cells trimmed, blank lines passed over, rows with an empty cell broken."""
    cells = [pyarrow.compute.utf8_trim_whitespace(column) for column in table.columns]
    empty = np.stack([np.asarray(pyarrow.compute.equal(pyarrow.compute.fill_null(cell, ""), "")) for cell in cells])
    for row in np.flatnonzero(empty.any(axis=0) & ~empty.all(axis=0)).tolist():
        name = table.names[int(np.argmax(empty[:, row]))]
        bad.meet(f"{path}, {table.unit} {table.lines[row]}, column '{name}': the cell is empty")
    keep = pyarrow.array(~empty.any(axis=0))
    return bad.closed(path, KnowledgeGraph.from_arrow(*(cell.filter(keep) for cell in cells)))


def _parquet(path: Path, columns: TripleColumns | None) -> _Table:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        header = list(file.schema_arrow.names)
        places = _places(path, header, columns)
        if places is None:
            raise _no_columns(path, header)
        names = tuple(header[place] for place in places)
        table = file.read(columns=list(names))
    except (pyarrow.ArrowException, OSError) as error:
        raise EncoderError(f"{path} is no Parquet file that can be read ({_first_line(error)})") from None
    cells = tuple(_strings(path, name, table[name]) for name in names)
    return _Table(cells, names, np.arange(1, table.num_rows + 1), unit="row")


def _strings(path: Path, name: str, column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    try:
        return column.cast(pyarrow.large_string())
    except pyarrow.ArrowException:
        raise EncoderError(f"{path}, column '{name}' holds {column.type}; give names or numbers") from None


def _delimited(path: Path, separator: str, columns: TripleColumns | None, bad: BadLines) -> _Table:
    header = _first_fields(path, separator)
    places = _places(path, header, columns)
    if places is None and len(header) != 3:
        raise _no_columns(path, header)
    names = [f"column {place + 1}" for place in range(3)] if places is None else header
    first = 1 if places is None else 2
    ragged: list[tuple[int, int, bool]] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append((int(row.number), int(row.actual_columns), not row.text.strip()))
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            path,
            # Arrow tells the line of a ragged row on one thread alone.
            read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=names, skip_rows=first - 1),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=separator,
                quote_char='"' if separator == "," else False,
                invalid_row_handler=note,
                ignore_empty_lines=False,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.large_string()), strings_can_be_null=False
            ),
        )
    except pyarrow.ArrowException as error:
        raise _unreadable(path, error) from None
    for line, fields, blank in ragged:
        if not blank:
            column = names[min(fields, len(names) - 1)]
            bad.meet(f"{path}, line {line}, column '{column}': {fields} fields instead of {len(names)}")
    gone = np.array([line for line, _, _ in ragged], dtype=np.int64) - first
    lines = np.delete(np.arange(first, first + table.num_rows + len(ragged)), gone)
    own = tuple(names) if places is None else tuple(names[place] for place in places)
    return _Table(tuple(table[name] for name in own), own, lines)


def _first_fields(path: Path, separator: str) -> list[str]:
    with path.open("rb") as file:
        first = file.readline(1 << 20)
    try:
        line = first.decode("utf-8-sig").rstrip("\r\n")
        quoting: Any = {"quoting": csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE}
        fields = [cell.strip() for cell in next(csv.reader([line], delimiter=separator, **quoting), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise EncoderError(f"{path}, line 1 cannot be read ({_first_line(error)}); it must be UTF-8 text") from None
    if not any(fields):
        raise EncoderError(f"{path} begins with an empty line; it needs triples, with a header before them or without")
    return fields


def _unreadable(path: Path, error: Exception) -> EncoderError:
    """The error for a file that Arrow gave up on; the line where that is no UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as problem:
                return EncoderError(f"{path}, line {number} is no UTF-8 text ({problem.reason}); convert the file")
    return EncoderError(f"{path} cannot be read as columns of text ({_first_line(error)}); mend the file")


def _places(path: Path, header: list[str], columns: TripleColumns | None) -> tuple[int, ...] | None:
    """Where head, relation and tail stand; None where the first line is no header that says so."""
    if columns is not None:
        for name in columns.names:
            if name not in header:
                raise EncoderError(f"{path}: {unknown_name('column', name, header)}")
        return tuple(header.index(name) for name in columns.names)
    plain = [cell.partition(":")[0].lower() for cell in header]
    found = [next((plain.index(name) for name in usual if name in plain), None) for usual in _HEADERS.values()]
    places = tuple(place for place in found if place is not None)
    return places if len(places) == 3 else None


def _no_columns(path: Path, header: list[str]) -> EncoderError:
    return EncoderError(
        f"{path} has the columns {', '.join(header[:20])}, which do not say what is head, relation and tail; name them "
        "by TripleColumns(head, relation, tail)"
    )


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
