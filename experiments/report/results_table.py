"""Tables of measured figures: each row with the command and the commit it comes from."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
        return list(csv.DictReader(file))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing_file(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
