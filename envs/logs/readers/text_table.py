"""Delimited text as a table of strings whose every cell still knows its file, line and column.

All text readers stand on this. The fast path is vectorised; a place is looked up only when it is needed.
"""

import bz2
import csv
import gzip
import io
import lzma
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import Mask, as_ids, as_numbers, no_value

FIELD_LIMIT = 100_000
"""Longest field in characters: a longer one is a broken file, or no field but a document."""
SHOWN = 60
"""Characters of a bad value that a message repeats."""

UNNAMED = "Unnamed: 0"
"""The first column where it has no name: the numbers that pandas writes beside its rows."""
NAMES_SHOWN = 20
"""Columns that a message lists."""

UNPACKED_LIMIT = 1 << 34
"""Bytes that a packed file may unpack to."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV",
    b"PAR1": "Parquet; let its name end in .parquet",
    b"SQLite format 3": "a database; write the table as CSV or Parquet",
}
"""How files begin that are no text, and what they are."""
NO_PERSON = ("na", "n/a", "unknown", "anonymous", "guest", "undefined", "not set", "(not set)", "-")
"""What programs write where they do not know who it was; an id by itself, unless all other ids are numbers."""

OnBadRows = Literal["error", "drop"]


def shown(value: object) -> str:
    """A value as an error message repeats it: quoted, and cut where it is long.

    >>> shown("abc"), shown("x" * 70)
    ("'abc'", "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'... (70 characters)")
    """
    text = str(value)
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}... ({len(text)} characters)"


@dataclass
class BadRows:
    """What to do with rows that cannot be read: raise at the first, or drop and count them by reason.

    Args:
        on_bad_rows: `error` raises a `LogError` at the first bad row, `drop` leaves it out and counts it.
        counts: rows dropped so far, by reason.
    """

    on_bad_rows: OnBadRows = "error"
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.on_bad_rows not in ("error", "drop"):
            raise LogError(f"on_bad_rows={self.on_bad_rows!r} is unknown; use 'error' or 'drop'")

    def meet(self, path: Path, reason: str, message: str, rows: int = 1) -> None:
        """Raise `message`, or count `rows` of the file `path` under `reason`."""
        if self.on_bad_rows == "error":
            raise LogError(f"{message}; mend the file, or leave such rows out: --bad-rows drop, on_bad_rows='drop'")
        self.counts[f"{reason} in {path.name}"] += rows

    def as_dropped(self) -> tuple[tuple[str, int], ...]:
        """The counts as `LoggedBehavior.dropped` keeps them."""
        return tuple(self.counts.items())


@dataclass(frozen=True)
class TextTable:
    """A table of strings, and of numbers where a column was checked to hold them.

    Args:
        path: the file it came from.
        frame: one row a data line.
        lines: int64 (rows,) the line of each row in the file, from 1.
        unit: what `lines` counts; rows in a binary file.
        files: of a table in parts, the file that each row stands in; empty where all stand in `path`.
    """

    path: Path
    frame: pd.DataFrame
    lines: npt.NDArray[np.int64]
    unit: str = "line"
    files: tuple[str, ...] = ()

    def place(self, row: int, column: str | None = None) -> str:
        """Where a row stands, for an error message."""
        where = f"{self.files[row] if self.files else self.path}, {self.unit} {self.lines[row]}"
        return where if column is None else f"{where}, column {shown(column)}"

    @property
    def names(self) -> str:
        """The names of the columns, for an error message."""
        names = [shown(name) for name in self.frame.columns[:NAMES_SHOWN]]
        more = len(self.frame.columns) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")

    def require(self, *columns: str) -> None:
        """`LogError` where a column is missing."""
        for column in columns:
            if column not in self.frame.columns:
                raise LogError(
                    f"{self.path}, {self.unit} 1: there is no column {shown(column)}; the file has {self.names}"
                )

    def without(self, bad: Mask, column: str, problem: str, reason: str, bad_rows: BadRows) -> "TextTable":
        """The table less the rows marked in `bad`; `bad_rows` decides whether the first is an error."""
        if not bad.any():
            return self
        first = int(np.argmax(bad))
        value = self.frame[column].iloc[first]
        bad_rows.meet(self.path, reason, f"{self.place(first, column)}: {shown(value)} {problem}", int(bad.sum()))
        return self.rows(~bad)

    def rows(self, kept: Mask | npt.NDArray[np.int64]) -> "TextTable":
        """The table of some rows: a mask, or row numbers, which may repeat."""
        numbers = np.flatnonzero(kept) if kept.dtype == bool else kept
        files = tuple(self.files[row] for row in numbers.tolist()) if self.files else ()
        frame = self.frame.iloc[numbers].reset_index(drop=True)
        return replace(self, frame=frame, lines=self.lines[numbers], files=files)

    def renamed(self, names: dict[str, str]) -> "TextTable":
        """The table with columns renamed, where they are there."""
        return replace(self, frame=self.frame.rename(columns=names))

    def without_nobody(self, column: str, bad_rows: BadRows) -> "TextTable":
        """The table less the rows whose id is a word for nobody, or -1, where all other ids are numbers from 0."""
        ids = self.frame[column]
        nobody = np.asarray(ids.str.lower().isin((*NO_PERSON, "-1")), dtype=bool)
        if not nobody.any() or nobody.all() or not ids[~nobody].str.fullmatch(r"\d+").all():
            return self
        problem = "is no id where all others are numbers from 0: those rows would become one stranger"
        return self.without(nobody, column, problem, f"unknown {column}", bad_rows)

    def with_ids(self, column: str, bad_rows: BadRows, unique: bool = False) -> "TextTable":
        """The table less the rows whose id is empty or, where `unique`, was there before."""
        self.require(column)
        named = replace(self, frame=self.frame.assign(**{column: as_ids(self.frame[column])}))
        table = named.without(no_value(named.frame[column]), column, "is no id", f"missing {column}", bad_rows)
        if not unique:
            return table
        again = table.frame[column].duplicated().to_numpy()
        return table.without(again, column, "stands here a second time", f"duplicate {column}", bad_rows)

    def with_numbers(self, column: str, bad_rows: BadRows) -> "TextTable":
        """The table with a column as numbers, less the rows whose cell is neither empty nor a finite number."""
        cells = self.frame[column]
        numbers = as_numbers(cells)
        bad = ~np.isfinite(numbers) & ~no_value(cells)
        table = self.without(bad, column, "is not a finite number", f"malformed {column}", bad_rows)
        return replace(table, frame=table.frame.assign(**{column: numbers[~bad]}))

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """A column as float64 (rows,); NaN where the cell is empty or no finite number."""
        return as_numbers(self.frame[column])


def read_text_table(
    path: Path,
    *,
    separator: str = "\t",
    columns: tuple[str, ...] | None = None,
    encoding: str | None = None,
    quoted: bool = False,
    bad_rows: BadRows,
) -> TextTable:
    """Read a delimited text file. Blank lines hold nothing and are passed over.

    Args:
        path: the file.
        separator: between fields; may be longer than one character, as the `::` of MovieLens.
        columns: names of the columns; None reads them from the first line.
        encoding: of the text; None: UTF-8, or UTF-16 where a byte order mark says so.
        quoted: fields may stand in double quotes and then hold separators and line ends, as in CSV.
        bad_rows: decides about ragged lines and overlong fields.

    Raises:
        LogError: no such file, empty, undecodable bytes, NUL characters, a header with an empty or repeated
            name; ragged lines and fields above `FIELD_LIMIT` characters as `bad_rows` decides.
    """
    text = decoded_text(path, encoding)
    if quoted and '"' in text and len(separator) == 1:
        rows, lines = _split_quoted(path, text, separator)
        header = rows.pop(0) if columns is None else list(columns)
        lines = lines[1:] if columns is None else lines
        names = checked_header(path, header)
        rows, lines = _checked_rows(path, rows, lines, names, bad_rows)
        frame = pd.DataFrame(rows, columns=names, dtype="str")
        return without_headers(TextTable(path, frame, np.array(lines, dtype=np.int64)), bad_rows)
    head, _, body = (text, "", "") if columns is not None else text.partition("\n")
    first_line = 1 if columns is not None else 2
    names = checked_header(path, list(columns) if columns is not None else head.split(separator))
    body = text if columns is not None else body
    kept, line_numbers = _checked_lines(path, body, separator, names, first_line, bad_rows)
    return without_headers(TextTable(path, _parse(kept, separator, names), line_numbers), bad_rows)


def without_headers(table: TextTable, bad_rows: BadRows) -> TextTable:
    """The table less the rows that repeat its names, as files put one after the other have."""
    first = str(table.frame.columns[0])
    again = np.asarray(table.frame[first] == first, dtype=bool)
    if again.any():
        names = [str(name) for name in table.frame.columns]
        again = again & np.asarray(
            (table.frame.apply(lambda cells: cells.str.strip()) == names).all(axis=1), dtype=bool
        )
    return table.without(again, first, "and the names after it stand here again", "repeated line of names", bad_rows)


def decoded_text(path: Path, encoding: str | None = None) -> str:
    """The text of a file, unpacked, its line ends as newlines; `LogError` where it is not there, empty or no text.

    Args:
        path: the file; gzip, bzip2 and xz are known by their first bytes.
        encoding: None takes UTF-8, and UTF-16 where the file begins with its byte order mark.
    """
    try:
        if path.exists() and not path.is_file():
            raise LogError(f"{path} is no file of text: a folder, a pipe or a device; give a regular file")
        data = _unpacked(path, path.read_bytes())
    except FileNotFoundError:
        raise LogError(f"{path} is not there; check the path") from None
    except OSError as error:
        raise LogError(f"{path} cannot be read ({error.strerror})") from None
    other = next((kind for magic, kind in _NO_TEXT.items() if data.startswith(magic)), None)
    if other is not None:
        raise LogError(f"{path} is {other}")
    coding = encoding or found_encoding(data)
    try:
        text = data.decode(coding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        start = data.rfind(b"\n", 0, error.start) + 1
        raise LogError(
            f"{path}, line {line}, byte {error.start - start + 1}: 0x{data[error.start]:02x} is not "
            f"{coding.removesuffix('-sig')}; say what the file is written in, such as --encoding cp1252, or "
            "convert it"
        ) from None
    if not text.strip():
        raise LogError(f"{path} is empty; a log needs a header and at least one row")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise LogError(f"{path}, line {line}: a NUL character; this is no text file")
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    return text if "\n" in text else text.replace("\r", "\n")


def found_encoding(data: bytes) -> str:
    """UTF-8, and UTF-16 where a byte order mark says so, by the first bytes of a file."""
    return "utf-16" if data.startswith(_UTF16) else "utf-8-sig"


def _unpacked(path: Path, data: bytes) -> bytes:
    kinds = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
    opened = next((kind for magic, kind in kinds.items() if data.startswith(magic)), None)
    if opened is None:
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            return _unpacked_zstd(path, data)
        return data
    try:
        with opened(io.BytesIO(data)) as file:  # type: ignore[operator]
            body: bytes = file.read(UNPACKED_LIMIT + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise LogError(f"{path} is packed and cannot be unpacked ({error})") from None
    if len(body) > UNPACKED_LIMIT:
        raise LogError(f"{path} unpacks to more than {UNPACKED_LIMIT >> 30} GiB; unpack it and give parts")
    return body


def _unpacked_zstd(path: Path, data: bytes) -> bytes:
    try:
        return bytes(pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd").read())
    except (OSError, pyarrow.ArrowException) as error:
        raise LogError(f"{path} is packed and cannot be unpacked ({error})") from None


def checked_header(path: Path, header: list[str]) -> list[str]:
    """The names without white space around them; `LogError` for one that is empty, too long, or there twice."""
    names = [name.strip() for name in header]
    if len(names) > 1 and not names[0]:
        names[0] = UNNAMED  # the index that pandas writes
    for place, name in enumerate(names, start=1):
        if not name or len(name) > FIELD_LIMIT:
            problem = "has no name" if not name else f"has a name above {FIELD_LIMIT} characters"
            raise LogError(f"{path}, line 1: column {place} {problem}; name every column")
        if name in names[: place - 1]:
            raise LogError(f"{path}, line 1: column {shown(name)} stands there twice; name each column once")
    return names


def ragged_line(path: Path, line: int, fields: int, names: list[str]) -> tuple[str, str]:
    """Reason and message of a line with another number of fields than there are names."""
    column = names[min(fields, len(names) - 1)]
    return "ragged line", (
        f"{path}, line {line}, column {shown(column)}: {fields} fields where the header has {len(names)}"
    )


def _too_long(path: Path, line: int, column: str, length: int) -> tuple[str, str]:
    return "field too long", (
        f"{path}, line {line}, column {shown(column)}: a field of {length} characters; the limit is {FIELD_LIMIT}"
    )


def _checked_lines(
    path: Path, body: str, separator: str, names: list[str], first_line: int, bad_rows: BadRows
) -> tuple[str, npt.NDArray[np.int64]]:
    """The body less its blank and bad lines, and the line number of each that is left."""
    lines = body.split("\n")
    counts = np.fromiter((line.count(separator) for line in lines), dtype=np.int64, count=len(lines))
    lengths = np.fromiter(map(len, lines), dtype=np.int64, count=len(lines))
    numbers = np.arange(first_line, first_line + len(lines))
    drop = lengths == 0
    suspects = np.flatnonzero(~drop & ((counts != len(names) - 1) | (lengths > FIELD_LIMIT)))
    for row in suspects.tolist():
        fields = lines[row].split(separator)
        if len(fields) != len(names):
            blank = not lines[row].strip()
            drop[row] = True
            if not blank:
                bad_rows.meet(path, *ragged_line(path, int(numbers[row]), len(fields), names))
            continue
        for name, cell in zip(names, fields, strict=True):
            if len(cell) > FIELD_LIMIT:
                drop[row] = True
                bad_rows.meet(path, *_too_long(path, int(numbers[row]), name, len(cell)))
                break
    if drop.any():
        lines = [line for line, gone in zip(lines, drop.tolist(), strict=True) if not gone]
    return "\n".join(lines), numbers[~drop]


def _parse(body: str, separator: str, names: list[str]) -> pd.DataFrame:
    """Lines known to be even, as columns of strings."""
    if not body:
        return pd.DataFrame({name: pd.Series([], dtype="str") for name in names})
    flat = body.replace("\n", separator).split(separator)
    width = len(names)
    return pd.DataFrame({name: pd.Series(flat[i::width], dtype="str") for i, name in enumerate(names)})


def _split_quoted(path: Path, text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Rows of a file with quoted fields, and the line each begins at."""
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start = 1
    try:
        for fields in reader:
            if fields and any(fields):
                rows.append(fields)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise LogError(f"{path}, line {start}: {error}; check the quotes of this row") from None
    if not rows:
        raise LogError(f"{path} is empty; a log needs a header and at least one row")
    return rows, lines


def _checked_rows(
    path: Path, rows: list[list[str]], lines: list[int], names: list[str], bad_rows: BadRows
) -> tuple[list[list[str]], list[int]]:
    """Rows of quoted files less the ragged ones and those with an overlong field."""
    good: list[list[str]] = []
    good_lines: list[int] = []
    for fields, line in zip(rows, lines, strict=True):
        if len(fields) != len(names):
            bad_rows.meet(path, *ragged_line(path, line, len(fields), names))
            continue
        longest = max(range(len(fields)), key=lambda place: len(fields[place]))
        if len(fields[longest]) > FIELD_LIMIT:
            bad_rows.meet(path, *_too_long(path, line, names[longest], len(fields[longest])))
            continue
        good.append(fields)
        good_lines.append(line)
    return good, good_lines
