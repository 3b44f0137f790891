"""Tables of measured figures: each row with the command and the commit it comes from."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recloop.encoders.storage import replacing_file

DATA = "data"
"""The column that says what a row was measured on."""


def keep_rows(path: Path, columns: Sequence[str], data: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Put the rows of one data set into a CSV file; those of other data stay, the file is replaced whole."""
    kept: list[Mapping[str, Any]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            kept = [row for row in csv.DictReader(file) if row.get(DATA) != data]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, *({DATA: data, **row} for row in rows)])
    with replacing_file(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
