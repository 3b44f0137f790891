"""JSON objects as a table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.files.text import TextFormat
from recloop.envs.logs.readers.text_table import BadRows, TextTable, decoded_text, shown


def read_json(path: Path, bad_rows: BadRows, text: TextFormat) -> TextTable:
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
