"""Files and frames as one kind of table: delimited text, JSON lines, Parquet, folders of parts, frames in memory."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import as_ids
from recloop.envs.logs.readers.text_table import (
    BadRows,
    TextTable,
    checked_header,
    decoded_text,
    found_encoding,
    ragged_line,
    read_text_table,
    shown,
    without_headers,
)
from recloop.envs.logs.sampling import Ragged, SampledUsers, TextPieces, parquet_batches

TEXT = (".csv", ".tsv", ".txt", ".dat")
LINES = (".jsonl", ".ndjson", ".json")
BINARY = (".parquet", ".pq")
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Text and lines may be packed: `clicks.csv.gz`."""
SUFFIXES = (
    ".csv",
    ".tsv",
    *LINES,
    *BINARY,
    *(f"{kind}{pack}" for kind in (".csv", ".tsv", ".jsonl") for pack in PACKED),
)
"""How files end that are looked for in a folder; a `.txt` or `.dat` is read where it is named."""
SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_NO_NAME = re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?|\d{4}-\d\d-\d\d([T ].*)?", re.IGNORECASE)
SAMPLE_LINES = 50
"""Lines that the separator is found from."""
HEAD, HEAD_ROWS = 1 << 20, 10_000
"""Bytes of text, and rows, that are looked at before all others."""


@dataclass(frozen=True)
class TextFormat:
    """How delimited text is written, where you know it.

    Args:
        separator: between fields; None finds comma, tab, semicolon or bar.
        encoding: such as `cp1252`; None takes UTF-8, and UTF-16 with a byte order mark.
        header: names of the columns of a file without a line of names.
    """

    separator: str | None = None
    encoding: str | None = None
    header: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.separator == "":
            raise LogError("--separator is empty; give a character, such as ';', or tab")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError:
                raise LogError(
                    f"--encoding {self.encoding} is unknown; use for example utf-8, cp1252, utf-16"
                ) from None


def kind_of(path: Path) -> str:
    """The suffix that says how a file is read, without what it is packed with; empty where it says nothing.

    >>> kind_of(Path("clicks.CSV.gz")), kind_of(Path("clicks.parquet"))
    ('.csv', '.parquet')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in (*TEXT, *LINES, *BINARY) else ""


def read_file(
    path: Path, bad_rows: BadRows, text: TextFormat | None = None, sample: SampledUsers | None = None
) -> TextTable:
    """A file, or a folder whose files are parts of one table, as it stands: nothing is guessed of its columns.

    Args:
        path: of it.
        bad_rows: decides about what cannot be read.
        text: how delimited text is written; None finds it.
        sample: whose rows alone are kept; files that `can_stream` then pass by in pieces.

    Raises:
        LogError: no such file; a kind that is not known; parts with different columns; what the format refuses.
    """
    text = text or TextFormat()
    if path.is_dir():
        return _joined(path, [_part(path, part, bad_rows, text, sample) for part in parts_of(path)])
    if not path.is_file():
        raise LogError(f"{path} is {'no file that can be read' if path.exists() else 'not there; check the path'}")
    kind = kind_of(path)
    if kind in BINARY:
        return _read_parquet(path) if sample is None else _sampled(path, parquet_batches(path), sample)
    if kind in LINES:
        return _read_json(path, bad_rows, text)
    if kind in TEXT:
        return _read_text(path, bad_rows, text) if sample is None else _sampled_text(path, bad_rows, text, sample)
    raise LogError(
        f"{path} is of kind '{path.suffix}'; the known are {', '.join((*TEXT, *LINES, *BINARY))}, and packed"
    )


def parts_of(folder: Path) -> list[Path]:
    """The files of a folder that are parts of one table: all of one kind, in order of their names.

    Raises:
        LogError: none, or files of several kinds.
    """
    files = sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith((".", "_")) and kind_of(f))
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) != 1:
        found = f"files of kinds {', '.join(kinds)}" if kinds else "no file that is known"
        raise LogError(f"{folder} holds {found}; give the file, or a folder of parts of one kind")
    return files


def table_of(frame: Any, name: str = "frame") -> TextTable:
    """A pandas, Polars or PyArrow table, or a dict of columns, as a table; named index levels become columns.

    Raises:
        LogError: it is none of these.
    """
    if isinstance(frame, pyarrow.Table):
        return from_arrow(Path(name), frame)
    if isinstance(frame, pd.DataFrame):
        levels = [level for level in frame.index.names if level is not None]
        frame = frame.reset_index(level=levels) if levels else frame
        frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
        return from_arrow(Path(name), _arrow_of(frame))
    try:
        if hasattr(frame, "__arrow_c_stream__"):
            return from_arrow(Path(name), pyarrow.table(frame))
        if isinstance(frame, dict):
            return table_of(pd.DataFrame(frame), name)
    except (ValueError, TypeError, pyarrow.ArrowException) as error:
        raise LogError(f"{name}: {type(frame).__name__} is no table ({str(error).splitlines()[0]})") from None
    raise LogError(
        f"a log of type {type(frame).__name__} is not understood; give a path or a pandas, Polars or PyArrow table"
    )


def _arrow_of(frame: pd.DataFrame) -> pyarrow.Table:
    """Arrow's table; columns of mixed Python values that Arrow refuses become strings."""
    columns = {}
    for name in frame.columns:
        if frame.columns.to_list().count(name) > 1:
            raise LogError(f"column {shown(name)} stands there twice; name each column once")
        if isinstance(frame[name].dtype, pd.PeriodDtype):
            columns[name] = pyarrow.Array.from_pandas(frame[name].dt.start_time)
            continue
        try:
            columns[name] = pyarrow.Array.from_pandas(frame[name])
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            cells = frame[name].map(lambda cell: None if cell is None or cell is pd.NA or cell != cell else str(cell))
            columns[name] = pyarrow.array(cells.tolist(), type=pyarrow.string())
    return pyarrow.table(columns)


def _read_parquet(path: Path) -> TextTable:
    try:
        # By itself, not as a part of a data set: `a=1` in the name of a folder is no column.
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise LogError(f"{path} is no Parquet file that can be read ({str(error).splitlines()[0]})") from None
    return from_arrow(path, table.replace_schema_metadata(None))


def from_arrow(path: Path, table: pyarrow.Table) -> TextTable:
    """An Arrow table as a `TextTable`: structs become columns `name.field`, dictionaries and decimals values."""
    flat = _flat(table)
    names = [str(name) for name in flat.column_names]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise LogError(f"{path}: column {shown(name)} stands there twice; name each column once")
    frame = pd.DataFrame({name: _cells(path, name, flat.column(at)) for at, name in enumerate(names)})
    return TextTable(path, frame, np.arange(1, len(frame) + 1), unit="row")


def _flat(table: pyarrow.Table) -> pyarrow.Table:
    while True:
        fields = list(table.schema)
        lists = [f for f in fields if _is_list(f.type) and pyarrow.types.is_struct(f.type.value_type)]
        structs = [f for f in fields if pyarrow.types.is_struct(f.type)]
        if not lists and not structs:
            return table
        names, columns = [], []
        for field in fields:
            column = table.column(field.name).combine_chunks()
            inner = field.type if field in structs else field.type.value_type if field in lists else None
            if inner is None:
                names.append(field.name)
                columns.append(column)
                continue
            for at in range(inner.num_fields):
                whole = inner.num_fields == 1
                names.append(field.name if whole else f"{field.name}.{inner.field(at).name}")
                columns.append(_field(column, at, field in lists))
        table = pyarrow.table(columns, names=names)


def _field(column: Any, at: int, is_list: bool) -> Any:
    if isinstance(column, pyarrow.ChunkedArray):
        column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else pyarrow.array([], column.type)
    if not is_list:
        return column.flatten()[at]
    name = column.type.value_type.field(at).name
    rows = column.to_pylist()
    values = [None if row is None else [None if cell is None else cell[name] for cell in row] for row in rows]
    return pyarrow.array(values, type=pyarrow.list_(column.type.value_type.field(at).type))


def _is_list(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _cells(path: Path, name: str, column: Any) -> pd.Series:
    """A column as the kinds of cells that a table holds: numbers, truth values, moments, lists or strings."""
    types, kind = pyarrow.types, column.type
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if types.is_null(kind):
        return pd.Series([""] * len(column), dtype="str")
    if types.is_boolean(kind):
        return pd.Series(column.to_pandas(types_mapper={kind: pd.BooleanDtype()}.get))
    if types.is_integer(kind):
        if column.null_count == 0:
            return pd.Series(column.to_pandas())
        wide = pd.UInt64Dtype() if types.is_uint64(kind) else pd.Int64Dtype()
        column = column.cast(pyarrow.uint64() if types.is_uint64(kind) else pyarrow.int64())
        return pd.Series(column.to_pandas(types_mapper=lambda _: wide))
    if types.is_decimal(kind) and kind.scale == 0:
        return _strings(column.cast(pyarrow.string()))
    if types.is_floating(kind) or types.is_decimal(kind):
        return pd.Series(column.cast(pyarrow.float64()).to_pandas())
    if types.is_timestamp(kind) or types.is_date(kind):
        return _moments(path, name, column)
    if _is_list(kind):
        return pd.Series(column.to_pylist(), dtype=object)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _decoded(path, name, column.to_pylist())
    try:
        return _strings(column.cast(pyarrow.string()))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        return pd.Series([None if cell is None else str(cell) for cell in column.to_pylist()], dtype="str").fillna("")


def _strings(column: pyarrow.ChunkedArray) -> pd.Series:
    return pd.Series(column.to_pandas(), dtype="str").fillna("")


def _moments(path: Path, name: str, column: pyarrow.ChunkedArray) -> pd.Series:
    zone = getattr(column.type, "tz", None)
    try:
        fine = getattr(column.type, "unit", "day") == "ns"
        micro = column.cast(pyarrow.timestamp("us", tz=zone), safe=not fine)
        return pd.to_datetime(pd.Series(micro.to_pandas()))
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise LogError(f"{path}, column {shown(name)}: a date that cannot be held ({str(error)[:80]})") from None


def _decoded(path: Path, name: str, cells: Iterable[bytes | None]) -> pd.Series:
    found = []
    for row, cell in enumerate(cells, start=1):
        try:
            found.append("" if cell is None else cell.decode("utf-8"))
        except UnicodeDecodeError:
            raise LogError(
                f"{path}, row {row}, column {shown(name)}: {shown(cell)} is binary and no UTF-8 "
                "text; write ids as text or numbers"
            ) from None
    return pd.Series(found, dtype="str")


def _read_json(path: Path, bad_rows: BadRows, text: TextFormat) -> TextTable:
    """A JSON object a line, or one array of objects; nested objects become columns `name.field`."""
    body = decoded_text(path, text.encoding)
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    if body.lstrip().startswith("["):
        try:
            found = json.loads(body)
        except ValueError as error:
            raise LogError(f"{path} is no JSON that can be read ({error})") from None
        numbered = list(enumerate(found, start=1))
    else:
        numbered = [(n, line) for n, line in enumerate(body.split("\n"), start=1) if line.strip()]
    for number, record in numbered:
        if isinstance(record, str):
            try:
                record = json.loads(record)
            except (ValueError, RecursionError) as error:
                bad_rows.meet(path, "no JSON", f"{path}, line {number}: {shown(record)} is no JSON ({error})")
                continue
        if not isinstance(record, dict):
            bad_rows.meet(path, "no object", f"{path}, line {number}: {shown(record)} is no JSON object {{...}}")
            continue
        records.append(_nested(record))
        lines.append(number)
    if not records:
        raise LogError(f"{path} holds no records; a log needs at least one")
    names = list(dict.fromkeys(name for record in records for name in record))
    columns: dict[str, list[Any]] = {}
    for name in names:
        columns |= _fields_of(name, [record.get(name) for record in records])
    frame = pd.DataFrame({name: of_values(values) for name, values in columns.items()})
    return TextTable(path, frame, np.array(lines, dtype=np.int64))


def _fields_of(name: str, values: list[Any]) -> dict[str, list[Any]]:
    """A column, or of one of lists of objects a column of lists for each field of theirs."""
    filled = [cell for cell in values if cell]
    if not filled or not all(
        isinstance(cell, list) and all(isinstance(one, dict) and one for one in cell) for cell in filled
    ):
        return {name: values}
    fields = dict.fromkeys(field for cell in filled for one in cell for field in one)
    return {
        f"{name}.{field}": [None if cell is None else [one.get(field) for one in cell] for cell in values]
        for field in fields
    }


def _nested(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) and value:
            found.update(_nested(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def of_values(values: Sequence[Any]) -> pd.Series:
    """JSON values as a column: all numbers, all truth values or all lists stay so; the rest are strings."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {list}:
        return pd.Series(values, dtype=object)
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return pd.Series(values, dtype="Int64")
    exact = all(type(value) is not int or abs(value) <= 2**53 for value in values)
    if kinds and kinds <= {int, float} and exact:
        return pd.Series(values, dtype="float64")
    words = ["" if v is None else v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return pd.Series(words, dtype="str")


def _read_text(path: Path, bad_rows: BadRows, text: TextFormat) -> TextTable:
    head = decoded_text(path, text.encoding)[:HEAD] if text.separator is None else ""
    table = read_text_table(
        path,
        separator=_separator(path, text, head),
        columns=text.header or None,
        encoding=text.encoding,
        quoted=True,
        bad_rows=bad_rows,
    )
    if not text.header:
        _look_at_header(table)
    return table


def _separator(path: Path, text: TextFormat, head: str) -> str:
    """As given, else by the first lines."""
    if text.separator is not None:
        return {"tab": "\t", "\\t": "\t"}.get(text.separator, text.separator)
    lines = head.split("\n")[:SAMPLE_LINES]
    return "\t" if kind_of(path) == ".tsv" and "\t" in lines[0] else found_separator(lines)


def can_stream(place: Path) -> bool:
    """True for Parquet and delimited text, in one file or in parts: what can pass by in pieces."""
    files = parts_of(place) if place.is_dir() else [place]
    return all(kind_of(file) in (*BINARY, *TEXT) for file in files)


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


def _pieces(path: Path, text: TextFormat) -> TextPieces:
    try:
        with pyarrow.input_stream(path, compression="detect") as file:
            data = file.read(HEAD)
    except (OSError, pyarrow.ArrowException) as error:
        raise LogError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
    encoding = text.encoding or found_encoding(data)
    head = data.decode(encoding, errors="replace").replace("\r\n", "\n")
    separator = _separator(path, text, head)
    if len(separator) > 1:
        raise LogError(
            f"{path}: fields between {shown(separator)} cannot stream by; write one character between them, or leave "
            "--sample-users out"
        )
    names = list(text.header) or next(csv.reader([head.split("\n")[0]], delimiter=separator), [])
    if not names:
        raise LogError(f"{path} is empty; a log needs a header and at least one row")
    return TextPieces(path, tuple(checked_header(path, names)), not text.header, separator, encoding)


def _sampled(path: Path, batches: Iterable[Any], sample: SampledUsers) -> TextTable:
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


def _sampled_text(path: Path, bad_rows: BadRows, text: TextFormat, sample: SampledUsers) -> TextTable:
    ragged: list[Ragged] = []
    pieces = _pieces(path, text)
    table = _sampled(path, pieces.batches(ragged=ragged), sample)
    for row in ragged:
        bad_rows.meet(path, *ragged_line(path, row.row, row.fields, list(pieces.names)))
    if not text.header:
        _look_at_header(table)
    return without_headers(table, bad_rows)


def found_separator(lines: Sequence[str]) -> str:
    """The separator that splits the most lines as it splits the first; a comma where none does.

    >>> found_separator(["user;item;price", "u1;i1;3,50", "u2;i2;4,10"])
    ';'
    """

    def even(separator: str) -> tuple[float, int]:
        wide = lines[0].count(separator)
        filled = [line for line in lines if line.strip()]
        return (sum(line.count(separator) == wide for line in filled) / max(len(filled), 1), wide)

    split = {separator: even(separator) for separator in SEPARATORS if separator in lines[0]}
    return max(split, key=lambda separator: split[separator], default=",")


def _look_at_header(table: TextTable) -> None:
    """`LogError` where the line of names looks like a row: a number or a moment among the names."""
    numbers = [name for name in table.frame.columns if _NO_NAME.fullmatch(str(name))]
    if numbers and len(table.frame.columns) > 1:
        raise LogError(
            f"{table.path}, line 1: {shown(numbers[0])} is no name of a column, so the file seems to have no line of "
            "names; name its columns: --header user item time ..."
        )


def _part(
    folder: Path, file: Path, bad_rows: BadRows, text: TextFormat, sample: SampledUsers | None = None
) -> TextTable:
    """A part of a table, with a column for each `name=value` among the folders that it lies in."""
    table = read_file(file, bad_rows, text, sample)
    named = dict(part.split("=", 1) for part in file.relative_to(folder).parent.parts if "=" in part)
    values = {name: "" if value == _NO_PARTITION else unquote(value) for name, value in named.items()}
    columns = {
        name: pd.Series([value] * len(table.frame), dtype="str")
        for name, value in values.items()
        if name not in table.frame
    }
    return replace(table, frame=table.frame.assign(**columns))


def _as_text(folder: Path, name: str, cells: pd.Series) -> pd.Series:
    if pd.api.types.is_object_dtype(cells.dtype):
        raise LogError(f"{folder}: column {shown(name)} holds lists in some parts and text in others; write one kind")
    return as_ids(cells).astype("str")


def _joined(folder: Path, parts: list[TextTable]) -> TextTable:
    """Parts of one table, one below the other."""
    first = parts[0]
    for part in parts[1:]:
        if sorted(part.frame.columns) != sorted(first.frame.columns):
            raise LogError(
                f"{part.path} has the columns {part.names} where {first.path.name} has {first.names}; "
                "a folder of parts must hold one table, give the file"
            )
    frames = [part.frame[first.frame.columns] for part in parts]
    for name in first.frame.columns:
        if any(pd.api.types.is_string_dtype(frame[name].dtype) for frame in frames):
            # An id is a number in one part and text in another.
            frames = [frame.assign(**{name: _as_text(folder, name, frame[name])}) for frame in frames]
    frame = pd.concat(frames, ignore_index=True)
    lines = np.concatenate([part.lines for part in parts])
    files = np.repeat([str(part.path) for part in parts], [len(part.frame) for part in parts])
    return TextTable(folder, frame, lines, unit=first.unit, files=tuple(files))
