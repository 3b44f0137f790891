"""Tables that pass by in pieces, for logs larger than memory: Parquet and delimited text."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.files.arrow import from_arrow
from recloop.envs.logs.readers.files.kinds import BINARY, TEXT, kind_of, parts_of
from recloop.envs.logs.readers.files.text import HEAD, TextFormat, look_at_header, separator_of
from recloop.envs.logs.readers.text_table import (
    BadRows,
    TextTable,
    checked_header,
    found_encoding,
    ragged_line,
    shown,
    without_headers,
)
from recloop.envs.logs.sampling import SampledUsers

PIECE = 1 << 24
"""Bytes of text that are parsed at once."""
ROWS = 1 << 17
"""Rows of Parquet that are decoded at once."""
HEAD_ROWS = 10_000
"""Rows that are looked at before all others."""


@dataclass(frozen=True)
class Ragged:
    """A row of text with another number of fields.

    Args:
        row: from 1; the line of names counts.
        fields: that it has.
    """

    row: int
    fields: int


@dataclass(frozen=True)
class TextPieces:
    """Delimited text that is parsed in pieces, every cell a string.

    Args:
        path: the file; packed by gzip, bzip2 or zstd as its name ends.
        names: of the columns.
        named: whether they stand in its first line.
        separator: one character between fields.
        encoding: as `codecs` names it.
    """

    path: Path
    names: tuple[str, ...]
    named: bool
    separator: str
    encoding: str

    def batches(self, columns: Sequence[str] | None = None, ragged: list[Ragged] | None = None) -> Iterator[Any]:
        """The file in record batches.

        Args:
            columns: to read; None for all.
            ragged: gets every row with another number of fields; such rows are left out.

        Raises:
            LogError: what cannot be parsed, or decoded.
        """

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            if ragged is not None:
                ragged.append(Ragged(row.number or 0, row.actual_columns))
            return "skip"

        # One thread: else Arrow does not know the number of a row that it leaves out.
        reading = pyarrow.csv.ReadOptions(
            use_threads=False,
            block_size=PIECE,
            skip_rows=int(self.named),
            column_names=list(self.names),
            encoding=self.encoding,
        )
        parsing = pyarrow.csv.ParseOptions(delimiter=self.separator, newlines_in_values=True, invalid_row_handler=skip)
        options = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(self.names, pyarrow.string()),
            include_columns=columns,
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        )
        try:
            yield from pyarrow.csv.open_csv(self.path, reading, parsing, options)
        except (pyarrow.ArrowException, OSError, UnicodeError) as error:
            raise LogError(
                f"{self.path} cannot be parsed as it streams by ({str(error).splitlines()[0]}); say how it is written "
                "(--separator, --encoding), or write it as Parquet"
            ) from None


def can_stream(place: Path) -> bool:
    """True for Parquet and delimited text, in one file or in parts: what can pass by in pieces. Arrow knows no xz, and
    where folders are called `user=7` a column may stand in no file."""
    files = parts_of(place) if place.is_dir() else [place]
    named = any("=" in part for file in files for part in file.relative_to(place).parent.parts)
    return not named and all(kind_of(file) in (*BINARY, *TEXT) and file.suffix.lower() != ".xz" for file in files)


def streamed(place: Path, text: TextFormat | None, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The record batches of a file that `can_stream`, or of its parts."""
    for file in parts_of(place) if place.is_dir() else [place]:
        if kind_of(file) in BINARY:
            yield from parquet_batches(file, columns)
        else:
            yield from _pieces(file, text or TextFormat()).batches(columns)


def read_head(place: Path, text: TextFormat | None) -> TextTable:
    """The first rows of a file that `can_stream`: enough to see which column is what.

    Raises:
        LogError: no rows.
    """
    for batch in streamed(place, text):
        if batch.num_rows:
            return from_arrow(place, pyarrow.Table.from_batches([batch.slice(0, HEAD_ROWS)]))
    raise LogError(f"{place} is empty; a log needs a header and at least one row")


def sampled_table(path: Path, batches: Iterable[Any], sample: SampledUsers) -> TextTable:
    """The rows of a sample, which know their number in the file."""
    found, numbers, before = [], [np.zeros(0, dtype=np.int64)], 1
    schema = None
    for batch in batches:
        kept = sample.rows(batch)
        found.append(batch.take(pyarrow.array(kept)))
        numbers.append(before + kept)
        before, schema = before + batch.num_rows, batch.schema
    if schema is None:
        raise LogError(f"{path} is empty; a log needs a header and at least one row")
    table = pyarrow.Table.from_batches(found, schema).replace_schema_metadata(None)
    return replace(from_arrow(path, table), lines=np.concatenate(numbers))


def sampled_text(path: Path, bad_rows: BadRows, text: TextFormat, sample: SampledUsers) -> TextTable:
    ragged: list[Ragged] = []
    pieces = _pieces(path, text)
    table = sampled_table(path, pieces.batches(ragged=ragged), sample)
    for row in ragged:
        bad_rows.meet(path, *ragged_line(path, row.row, row.fields, list(pieces.names)))
    if not text.header:
        look_at_header(table)
    return without_headers(table, bad_rows)


def _pieces(path: Path, text: TextFormat) -> TextPieces:
    try:
        with pyarrow.input_stream(path, compression="detect") as file:
            data = file.read(HEAD)
    except (OSError, pyarrow.ArrowException) as error:
        raise LogError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
    encoding = text.encoding or found_encoding(data)
    head = data.decode(encoding, errors="replace").replace("\r\n", "\n")
    separator = separator_of(path, text, head)
    if len(separator) > 1:
        raise LogError(
            f"{path}: fields between {shown(separator)} cannot stream by; write one character between them, or leave "
            "--sample-users out"
        )
    names = list(text.header) or next(csv.reader([head.split("\n")[0]], delimiter=separator), [])
    if not names:
        raise LogError(f"{path} is empty; a log needs a header and at least one row")
    return TextPieces(path, tuple(checked_header(path, names)), not text.header, separator, encoding)


def parquet_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """A Parquet file in pieces; `LogError` where it is none."""
    try:
        yield from pyarrow.parquet.ParquetFile(path).iter_batches(ROWS, columns=columns)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise LogError(f"{path} is no Parquet file that can be read ({str(error).splitlines()[0]})") from None
