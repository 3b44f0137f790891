"""Lists and slates in one cell become rows of one item each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import Ints, is_text, no_value
from recloop.envs.logs.readers.columns.labels import LIST, listed
from recloop.envs.logs.readers.columns.names import LISTED, plain
from recloop.envs.logs.readers.files import of_values
from recloop.envs.logs.readers.text_table import BadRows, TextTable, shown
from recloop.envs.logs.reading import ColumnUse

SLATE, PLACE = "(slate)", "(place)"
"""Columns that unfolding lists adds: the row the list stood in, and the place in it, from 0."""
MOSTLY = 0.9
"""Share of a column's filled cells from which on all of it is taken for lists, or for slates as MIND writes them."""
MANY_IDS = 3
"""From so many numbers a cell on, a text of an item column is taken for several ids and not for one."""
_MIND = re.compile(r"\S+-[01](?:\s+\S+-[01])*")


@dataclass(frozen=True)
class Unfolded:
    """A table with one item a row.

    Args:
        table: its rows.
        slates: True where a row of the file was a slate of several items with answers.
        uses: columns that were lists and could not be used.
        notes: sentences for the card.
        of_row: columns that have one value for all items of a row of the file.
    """

    table: TextTable
    slates: bool = False
    uses: tuple[ColumnUse, ...] = ()
    notes: tuple[str, ...] = ()
    of_row: tuple[str, ...] = ()


def unfolded(table: TextTable, item: str, taken: str | None, bad_rows: BadRows) -> Unfolded:
    """One row an item, where a cell of the item column holds a list, or a slate as MIND writes it (`N1-0 N2-1`).

    Lists of the same length are unfolded side by side; a list of what was taken may also name the items.

    Args:
        item: the item column.
        taken: the column of the consumption, where it is known.

    Raises:
        LogError: a cell that is no list among lists; lists of another length, as `bad_rows` decides.
    """
    if _is_mind(table.frame[item]):
        return _from_mind(table, item, bad_rows)
    table = _split_texts(table, item)
    if not is_lists(table.frame[item]):
        return Unfolded(table)
    lists = {str(name): as_lists(table.frame[name]) for name in table.frame.columns if is_lists(table.frame[name])}
    every = lists.pop(item)
    known = np.array([row is not None for row in every])
    table = table.without(~known, item, "is no list of items", f"malformed {item}", bad_rows)
    keep = np.flatnonzero(known)
    items = [every[row] or [] for row in keep.tolist()]
    table, keep = _as_long(table, {n: own for n, own in lists.items() if n != taken}, items, keep, item, bad_rows)
    items = [every[row] or [] for row in keep.tolist()]
    lengths = np.array([len(row) for row in items], dtype=np.int64)
    columns: dict[str, list[Any]] = {item: [cell for row in items for cell in row]}
    uses: list[ColumnUse] = []
    answers = False
    for name, found in lists.items():
        mine = [found[row] or [] for row in keep.tolist()]
        if all(len(own) == length for own, length in zip(mine, lengths.tolist(), strict=True)):
            columns[name] = [cell for row in mine for cell in row]
            answers |= name == taken
        elif name == taken:
            columns[name] = [float(cell in set(own)) for own, row in zip(mine, items, strict=True) for cell in row]
            stray = sum(cell not in set(row) for own, row in zip(mine, items, strict=True) for cell in own)
            if stray:
                raise LogError(
                    f"{table.path}, column {shown(name)}: {stray} entries are no items of their row's {shown(item)}; "
                    "give 0 or 1 an item, or the items that were taken"
                )
            answers = True
        else:
            uses.append(ColumnUse("log", name, "not used", f"its lists are not as long as those of {item}"))
    owner = np.repeat(np.arange(len(items)), lengths)
    long = table.rows(owner)
    frame = long.frame.assign(**{name: _column(values) for name, values in columns.items()})
    frame = frame.drop(columns=[use.name for use in uses])
    frame[SLATE], frame[PLACE] = owner, np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    what = "slates" if answers else "items one after the other"
    empty = int((lengths == 0).sum())
    note = f"A row of the file holds a list of items: {len(items):,} rows were unfolded as {what}, {len(owner):,} items"
    note += f"; {empty:,} of them hold none and say nothing." if empty else "."
    several = bool((lengths > 1).any())
    of_row = tuple(str(name) for name in table.frame.columns if several and name not in columns)
    return Unfolded(replace(long, frame=frame), answers, tuple(uses), (note,), of_row)


def _as_long(
    table: TextTable,
    lists: dict[str, list[list[Any] | None]],
    items: Sequence[list[Any] | None],
    keep: Ints,
    item: str,
    bad_rows: BadRows,
) -> tuple[TextTable, Ints]:
    """The table less rows whose list has another length than their items, where nearly all rows have the same."""
    wrong = np.zeros(len(keep), dtype=bool)
    for name, own in lists.items():
        differ = np.array([len(own[row] or []) != len(items[row] or []) for row in keep.tolist()], dtype=bool)
        if 0 < differ.mean() <= 1 - MOSTLY:
            problem = f"has another length than its row's {shown(item)}"
            table.without(differ, name, problem, f"{name} of another length", bad_rows)
            wrong |= differ
    return table.rows(~wrong), keep[~wrong]


def _split_texts(table: TextTable, item: str) -> TextTable:
    """Texts of several ids as lists, where the name of the item column says so (`LISTED`); columns beside it likewise.

    Raises:
        LogError: under another name, cells of several numbers: one id, or several.
    """
    cells = table.frame[item]
    several = plain(item.split(".")[-1]) in LISTED
    separator = "" if is_lists(cells) else _separator_of(cells, any_words=several)
    if not separator:
        return table
    if not several:
        if bool((cells[~no_value(cells)].str.count(re.escape(separator)) + 1 >= MANY_IDS).mean() < MOSTLY):
            return table
        first = cells[~no_value(cells)].iloc[0]
        raise LogError(
            f"{table.path}, column {shown(item)}: {shown(first)} seems to hold several ids; call the column item_ids "
            "to take each by itself, or write ids without separators"
        )
    separators = cells.str.count(re.escape(separator))
    split = {}
    for name in map(str, table.frame.columns):
        own = table.frame[name]
        if is_text(own) and bool((own.str.count(re.escape(separator)) == separators).all()):
            split[name] = own.str.split(separator).map(lambda row: [part.strip() for part in row]).astype(object)
    return replace(table, frame=table.frame.assign(**split))


def _separator_of(cells: pd.Series, any_words: bool) -> str:
    """What stands between several ids of most cells of text, or an empty word; ids have digits, or are any words."""
    if not is_text(cells):
        return ""
    filled = cells[~no_value(cells)].iloc[:1000].str.strip()
    for separator in ("|", ",", ";", " "):
        part = r"[^|,;]+" if any_words and separator != " " else r"[\w-]*\d[\w-]*"
        several = filled.str.contains(separator, regex=False)
        if several.mean() > 0.5 and filled.str.fullmatch(rf"{part}([{separator}] ?{part})*").mean() >= MOSTLY:
            return separator
    return ""


def is_lists(cells: pd.Series) -> bool:
    """True for a column of lists, or of text in brackets that is one."""
    if pd.api.types.is_object_dtype(cells.dtype):
        return True
    if not is_text(cells):
        return False
    filled = cells[~no_value(cells)].iloc[:1000].str.strip()
    return bool(len(filled)) and bool(filled.str.fullmatch(LIST).mean() >= MOSTLY)


def as_lists(cells: pd.Series) -> list[list[Any] | None]:
    """Lists of a column, None where a cell is empty or no list."""
    return [cell if isinstance(cell, list) else listed(str(cell)) for cell in cells.tolist()]


def _column(values: list[Any]) -> pd.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, float, bool}:
        if kinds == {int}:
            return of_values(values)
        return pd.Series(values, dtype="boolean" if kinds == {bool} else "float64")
    return pd.Series(["" if value is None else str(value) for value in values], dtype="str")


def _is_mind(cells: pd.Series) -> bool:
    if not is_text(cells):
        return False
    filled = cells[~no_value(cells)].iloc[:1000].str.strip()
    several = len(filled) and bool(filled.str.contains(r"\s").mean() > 0.5)
    return bool(several) and bool(filled.str.fullmatch(_MIND).mean() >= MOSTLY)


def _from_mind(table: TextTable, item: str, bad_rows: BadRows) -> Unfolded:
    good = np.asarray(table.frame[item].str.strip().str.fullmatch(_MIND), dtype=bool)
    table = table.without(~good, item, "is no slate like N1-0 N2-1", f"malformed {item}", bad_rows)
    split = table.frame[item].str.split()
    lengths = np.array([len(row) for row in split], dtype=np.int64)
    tokens = pd.Series([token for row in split for token in row], dtype="str")
    owner = np.repeat(np.arange(len(split)), lengths)
    long = table.rows(owner)
    frame = long.frame.copy()
    frame[item], frame["click"] = tokens.str.slice(0, -2), tokens.str.slice(-1).astype("float64")
    frame[SLATE], frame[PLACE] = owner, np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    note = f"A row of the file is a slate like N1-0 N2-1: {len(split):,} slates, {len(owner):,} items shown."
    of_row = tuple(str(name) for name in table.frame.columns if name != item)
    return Unfolded(replace(long, frame=frame), True, (), (note,), of_row)
