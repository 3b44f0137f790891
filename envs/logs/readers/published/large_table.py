"""Large comma-separated files by Arrow, with the errors of small ones: every cell still knows its file and line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute
import pyarrow.csv

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.text_table import BadRows, TextTable, shown


def read_large_table(path: Path, columns: tuple[str, ...], numeric: tuple[str, ...], bad_rows: BadRows) -> TextTable:
    """Read some columns of a CSV file with a header and without line ends inside of fields.

    Arrow splits the lines and turns numbers into numbers; a column with a cell that is no number stays text, so
    that `TextTable.with_numbers` can name the cell.

    Args:
        path: the file.
        columns: those to read; the others are passed over.
        numeric: those of `columns` that hold numbers.
        bad_rows: decides about ragged lines.

    Raises:
        LogError: no such file, no CSV, a column that is not there; ragged lines as `bad_rows` decides.
    """
    header = _header(path)
    TextTable(path, pd.DataFrame(columns=header), np.zeros(0, dtype=np.int64)).require(*columns)
    ragged: list[int] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append(int(row.number))
        if row.text.strip():
            where = f"{path}, line {row.number}, column {shown(header[min(row.actual_columns, len(header) - 1)])}"
            faults.append(f"{where}: {row.actual_columns} fields where the header has {len(header)}")
        return "skip"

    faults: list[str] = []
    try:
        table = pyarrow.csv.read_csv(
            path,
            # Arrow tells the line of a ragged row on one thread alone.
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=note, ignore_empty_lines=False),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pyarrow.string()),
                strings_can_be_null=False,
            ),
        )
    except (pyarrow.ArrowException, OSError) as error:
        raise LogError(f"{path} is no CSV file that can be read ({str(error).splitlines()[0][:200]})") from None
    for fault in faults:
        bad_rows.meet(path, "ragged line", fault)
    lines = np.delete(np.arange(2, 2 + table.num_rows + len(ragged)), np.array(ragged, dtype=np.int64) - 2)
    cells = {name: _cells(table[name].combine_chunks(), name in numeric) for name in columns}
    frame = pd.DataFrame(cells)
    blank = np.logical_and.reduce([np.asarray(table[name].to_pandas() == "") for name in columns])
    if blank.any():
        frame, lines = frame[~blank].reset_index(drop=True), lines[~blank]
    if frame.empty:
        raise LogError(f"{path} holds no rows; a log needs a header and at least one row")
    return TextTable(path, frame, lines.astype(np.int64))


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline(1 << 20)
    except FileNotFoundError:
        raise LogError(f"{path} is not there; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LogError(f"{path} cannot be read ({str(error)[:100]}); it must be UTF-8 text") from None
    if not first.strip():
        raise LogError(f"{path} is empty; a log needs a header and at least one row")
    return [name.strip().strip('"') for name in first.rstrip("\r\n").split(",")]


def _cells(text: pyarrow.StringArray, numeric: bool) -> pd.Series:
    """A column as float64 where all of its cells are numbers or empty, else as strings."""
    if numeric:
        missing = pyarrow.compute.equal(text, "")
        try:
            values = pyarrow.compute.if_else(missing, None, text).cast(pyarrow.float64())
        except pyarrow.ArrowInvalid:
            return pd.Series(text.to_pandas(), dtype="str")
        numbers = values.to_numpy(zero_copy_only=False)
        if int(np.isnan(numbers).sum()) == int(pyarrow.compute.sum(missing).as_py() or 0):
            return pd.Series(numbers)
    return pd.Series(text.to_pandas(), dtype="str")
