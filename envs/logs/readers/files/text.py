"""Delimited text: how it is written, found where nobody says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.files.kinds import kind_of
from recloop.envs.logs.readers.text_table import BadRows, TextTable, decoded_text, read_text_table, shown

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_NO_NAME = re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?|\d{4}-\d\d-\d\d([T ].*)?", re.IGNORECASE)
SAMPLE_LINES = 50
"""Lines that the separator is found from."""
HEAD = 1 << 20
"""Characters, or bytes, of a file that these lines are looked for in."""


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


def read_text(path: Path, bad_rows: BadRows, text: TextFormat) -> TextTable:
    head = decoded_text(path, text.encoding)[:HEAD] if text.separator is None else ""
    table = read_text_table(
        path,
        separator=separator_of(path, text, head),
        columns=text.header or None,
        encoding=text.encoding,
        quoted=True,
        bad_rows=bad_rows,
    )
    if not text.header:
        look_at_header(table)
    return table


def separator_of(path: Path, text: TextFormat, head: str) -> str:
    """As given, else by the first lines."""
    if text.separator is not None:
        return {"tab": "\t", "\\t": "\t"}.get(text.separator, text.separator)
    lines = head.split("\n")[:SAMPLE_LINES]
    return "\t" if kind_of(path) == ".tsv" and "\t" in lines[0] else found_separator(lines)


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


def look_at_header(table: TextTable) -> None:
    """`LogError` where the line of names looks like a row: a number or a moment among the names."""
    numbers = [name for name in table.frame.columns if _NO_NAME.fullmatch(str(name))]
    if numbers and len(table.frame.columns) > 1:
        raise LogError(
            f"{table.path}, line 1: {shown(numbers[0])} is no name of a column, so the file seems to have no line of "
            "names; name its columns: --header user item time ..."
        )
