"""Parquet and frames in memory as tables."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.text_table import TextTable, shown


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


def read_parquet(path: Path) -> TextTable:
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
