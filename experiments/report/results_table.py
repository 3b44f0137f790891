"""Tables of measured figures: each row with the command and the commit it comes from."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recloop.encoders.base.names import csv_rows, csv_text
from recloop.encoders.base.storage import replacing_file

DATA = "data"
"""The column that says what a row was measured on."""


def keep_rows(path: Path, columns: Sequence[str], data: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Put the rows of one data set into a CSV file; those of other data stay, the file is replaced whole."""
    kept = [row for row in _read(path) if row.get(DATA) != data]
    _write(path, columns, [*kept, *({DATA: data, **row} for row in rows)])


def replace_rows(path: Path, columns: Sequence[str], key: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Put rows into a CSV file, each in the place of one with equal `key` columns; the file is replaced whole."""

    def of(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row.get(name, "")) for name in key)

    kept = {of(row): row for row in _read(path)}
    kept.update({of(row): row for row in rows})
    _write(path, columns, kept.values())


def _read(path: Path) -> list[Mapping[str, Any]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        names, *rows = csv_rows(file.read())
    return [dict(zip(names, row, strict=False)) for row in rows]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing_file(path) as part:
        cells = ([row.get(name, "") for name in columns] for row in rows)
        part.write_text(csv_text([columns, *cells]), encoding="utf-8")
