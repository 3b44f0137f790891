"""A file, or a folder of parts, as one table."""

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import as_ids
from recloop.envs.logs.readers.files.arrow import read_parquet
from recloop.envs.logs.readers.files.json_lines import read_json
from recloop.envs.logs.readers.files.kinds import BINARY, LINES, TEXT, kind_of, parts_of
from recloop.envs.logs.readers.files.streaming import parquet_batches, sampled_table, sampled_text
from recloop.envs.logs.readers.files.text import TextFormat, read_text
from recloop.envs.logs.readers.text_table import BadRows, TextTable, shown
from recloop.envs.logs.sampling import SampledUsers

_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


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
        return read_parquet(path) if sample is None else sampled_table(path, parquet_batches(path), sample)
    if kind in LINES:
        return read_json(path, bad_rows, text)
    if kind in TEXT:
        return read_text(path, bad_rows, text) if sample is None else sampled_text(path, bad_rows, text, sample)
    raise LogError(
        f"{path} is of kind '{path.suffix}'; the known are {', '.join((*TEXT, *LINES, *BINARY))}, and packed"
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
