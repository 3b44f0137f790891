"""Tables of items and of users beside a log: which column is what, decided by the values it holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.readers.item_text import is_title, is_year, texts, titles
from recloop.envs.logs.readers.text_table import BadRows, TextTable, as_numbers
from recloop.envs.logs.reading import ColumnUse
from recloop.envs.logs.schema import Columns


@dataclass(frozen=True)
class ItemsTable:
    """Items as a log keeps them.

    Args:
        frame: indexed by id, with `title` and `text`, and `entity` where there is a graph.
        knowledge: what the columns of attributes say, as triples; None where there is none.
        columns: what became of every column.
        notes: sentences for the card.
    """

    frame: pd.DataFrame
    knowledge: KnowledgeGraph | None = None
    columns: tuple[ColumnUse, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class UsersTable:
    """Users as a log keeps them.

    Args:
        frame: indexed by id; columns of numbers are numbers, the rest strings.
        columns: what became of every column.
        notes: sentences for the card.
    """

    frame: pd.DataFrame
    columns: tuple[ColumnUse, ...] = ()
    notes: tuple[str, ...] = ()


def items_of(
    table: TextTable,
    key: str,
    *,
    text_columns: tuple[str, ...] | None = None,
    title: str | None = None,
    relations: Sequence[str] | None = None,
    bad_rows: BadRows,
) -> ItemsTable:
    """The items of a table.

    Args:
        table: one row an item.
        key: the column of ids.
        text_columns: what the text is made of after the title; None takes every column of words.
        title: the column of titles; None finds it.
        relations: columns that become triples; None takes columns of few values and of lists of labels; empty none.
        bad_rows: decides about missing and repeated ids, and cells that break a column of numbers.

    Raises:
        LogError: with file, line and column.
    """
    table = table.with_ids(key, bad_rows, unique=True)
    if text_columns is not None:
        table.require(*text_columns)
    words = table.frame.set_index(key).astype("str")
    names = [str(name) for name in words.columns]
    head = title or next((name for name in names if is_title(name)), None)
    year = next((name for name in names if is_year(name)), None)
    if text_columns is None:
        text_columns = tuple(
            name for name in names if name not in (head, year) and not np.isfinite(as_numbers(words[name])).any()
        )
    heads = titles(words, head, year)
    frame = words.assign(**{Columns.title: heads, Columns.text: texts(words, heads, text_columns)})
    return ItemsTable(frame.rename_axis(Columns.item))


def users_of(table: TextTable, key: str, *, bad_rows: BadRows) -> UsersTable:
    """The users of a table.

    Args:
        table: one row a user.
        key: the column of ids.
        bad_rows: decides about missing and repeated ids, and cells that break a column of numbers.

    Raises:
        LogError: with file, line and column.
    """
    frame = table.with_ids(key, bad_rows, unique=True).frame.set_index(key)
    for name in frame.columns:
        numbers = as_numbers(frame[name])
        if len(numbers) and np.isfinite(numbers).all():
            frame[name] = numbers
    return UsersTable(frame.rename_axis(Columns.user))
