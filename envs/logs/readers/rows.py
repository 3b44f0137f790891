"""What one row of a log is: lists become rows, events become answers, and rows that belong together find each other."""

import ast
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError, unknown_name
from recloop.envs.logs.readers.files import of_values
from recloop.envs.logs.readers.roles import LISTED, plain
from recloop.envs.logs.readers.text_table import BadRows, TextTable, as_ids, is_text, no_value, shown, words
from recloop.envs.logs.reading import ColumnUse

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SLATE, PLACE = "(slate)", "(place)"
"""Columns that unfolding lists adds: the row the list stood in, and the place in it, from 0."""
SESSION_GAP = 1800.0
"""Seconds without a row after which the next row begins a session, where no column says."""
MANY_IDS = 3
"""From so many numbers a cell on, a text of an item column is taken for several ids and not for one."""
MOSTLY = 0.9
"""Share of a column's filled cells from which on all of it is taken for lists, or for slates as MIND writes them."""
EVENTS = {
    "exposure": words("impression impress exposure show shown display recommend"),
    "view": words(
        "view views pv pageview page_view detail detail_view product_view product_viewed view_item view_content browse"
    ),
    "click": words("click clicks clicked clk tap open product_clicked select_item"),
    "like": words("like fav favorite favourite wishlist save bookmark"),
    "cart": words("cart carts product_added addtocart add_to_cart add_cart basket add"),
    "purchase": words(
        "purchase purchases purchased buy bought transaction order orders order_completed checkout conversion pay "
        "payment sale"
    ),
}
"""What events are called, the shallowest first; each becomes a signal of the name on the left."""
_MIND = re.compile(r"\S+-[01](?:\s+\S+-[01])*")
_LIST = re.compile(r"[\[(].*[\])]", re.DOTALL)


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
    lists = {
        str(name): as_lists(table, str(name), bad_rows) for name in table.frame.columns if is_lists(table.frame[name])
    }
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
    return bool(len(filled)) and bool(filled.str.fullmatch(_LIST).mean() >= MOSTLY)


def as_lists(table: TextTable, column: str, bad_rows: BadRows) -> list[list[Any] | None]:
    """Lists of a column, None where a cell is empty or no list."""
    del bad_rows
    return [cell if isinstance(cell, list) else listed(str(cell)) for cell in table.frame[column].tolist()]


def listed(text: str) -> list[Any] | None:
    """A list as Python, JSON or numpy write it; None where it is none.

    >>> listed("['a', 'b']"), listed('["a"]'), listed("['a' 'b']"), listed("[1 2]"), listed("x")
    (['a', 'b'], ['a'], ['a', 'b'], ['1', '2'], None)
    """
    text = text.strip()
    if not _LIST.fullmatch(text):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        # Python joins neighbouring strings: what numpy writes has no commas.
        if isinstance(found, list | tuple) and not (len(found) == 1 and "' '" in text):
            return list(found)
    return [part.strip("'\",") for part in text[1:-1].split()]


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


@dataclass(frozen=True)
class EventLog:
    """An event log as rows of one occasion each.

    Args:
        table: one row an occasion; a column of 0 and 1 for each of `signals`.
        signals: names, the consumption first, then what can follow it, shallow to deep.
        exposures: True where there are occasions at which nothing was taken.
        notes: sentences for the card.
    """

    table: TextTable
    signals: tuple[str, ...]
    exposures: bool
    notes: tuple[str, ...]


def from_events(
    table: TextTable,
    columns: dict[str, str],
    seconds: Floats | None,
    *,
    order: Sequence[str] = (),
    views: Literal["exposures", "consumption"] | None = None,
    gap: float = SESSION_GAP,
    bad_rows: BadRows,
) -> EventLog:
    """Rows of view, click, purchase become one row an occasion, with an answer for each kind of event.

    An occasion is what a user does with an item from shallow to deep: it ends where an event is no deeper than the one
    before, or after a pause.

    Args:
        columns: the file's columns of `event`, `user` and `item`.
        seconds: times (rows,), or None: then the order of the file stands for them.
        order: the values of the event column from shallow to deep; empty goes by `EVENTS`.
        views: whether a view says that an item was shown, or that it was consumed; None: shown where there are
            clicks, consumed where views are the shallowest event of interest.
        gap: seconds after which an event begins another occasion.
        bad_rows: decides about rows without an event.

    Raises:
        LogError: events of unknown depth, naming `--events`.
    """
    event = columns["event"]
    table = table.without(no_value(table.frame[event]), event, "is no event", f"missing {event}", bad_rows)
    words = as_ids(table.frame[event])
    depth, names, left_out = _depths(table, event, words, order)
    shown_names = _shown(names, views)
    taken = [name for name in names if name not in shown_names]
    if not taken:
        raise LogError(
            f"{table.path}, column {shown(event)}: there are only {', '.join(names)}, and nothing is a "
            "consumption; say what views are: --views consumption"
        )
    kept = np.asarray(depth >= 0)
    depth, table = depth[kept], table.rows(kept)
    seconds = np.arange(len(depth), dtype=np.float64) if seconds is None else seconds[kept]
    user = pd.factorize(as_ids(table.frame[columns["user"]]))[0]
    item = pd.factorize(as_ids(table.frame[columns["item"]]))[0]
    sort = np.lexsort((np.arange(len(depth)), np.where(np.isfinite(seconds), seconds, np.inf), item, user))
    begins = np.ones(len(sort), dtype=bool)
    same = (user[sort][1:] == user[sort][:-1]) & (item[sort][1:] == item[sort][:-1])
    timed = seconds[sort]
    with np.errstate(invalid="ignore"):
        begins[1:] = ~same | (depth[sort][1:] <= depth[sort][:-1]) | (np.diff(timed) > gap)
    occasion = np.cumsum(begins) - 1
    first = sort[begins]
    back = np.argsort(first, kind="stable")
    rank = np.empty(len(first), dtype=np.int64)
    rank[back] = np.arange(len(first))
    done = np.zeros((len(first), len(names)))
    done[rank[occasion], depth[sort]] = 1
    rows = table.rows(first[back])
    frame = rows.frame.drop(columns=[event])
    consumed = done[:, [names.index(name) for name in taken]]
    first_taken = taken[0]
    # Whoever bought has clicked, whether or not the click was logged.
    some = consumed.max(axis=1)
    values = {
        first_taken: some,
        **{n: np.where(some == 1, consumed[:, at], np.nan) for at, n in enumerate(taken) if at},
    }
    frame = frame.drop(columns=[name for name in values if name in frame]).assign(**values)
    notes = [
        f"Events from shallow to deep: {' < '.join(names)}. {len(depth):,} events are {len(first):,} occasions; "
        f"an occasion on which only {' or '.join(shown_names)} was logged was not taken."
        if shown_names
        else f"Events from shallow to deep: {' < '.join(names)}. {len(depth):,} events are {len(first):,} occasions; "
        f"{first_taken} is the consumption."
    ]
    if "view" in names:
        other = "consumption" if "view" in shown_names else "exposures"
        notes.append(
            f"A view is taken for {'something shown' if 'view' in shown_names else 'a consumption'}; "
            f"the other reading: --views {other}."
        )
    notes += [
        f"{count:,} rows of event {shown(name)} are not used: it has no place in the order."
        for name, count in left_out.items()
    ]
    return EventLog(replace(rows, frame=frame), tuple(taken), bool(shown_names), tuple(notes))


def _depths(
    table: TextTable, event: str, words: pd.Series, order: Sequence[str]
) -> tuple[npt.NDArray[np.int64], list[str], dict[str, int]]:
    """The depth of each row's event (-1: not used), the names of the depths, and how many rows are not used."""
    counts = words.value_counts()
    values = [str(value) for value in counts.index]
    if order:
        for name in order:
            if name not in values:
                raise LogError(f"{table.path}, --events: {unknown_name(f'value of {event}', name, values)}")
        place = {name: at for at, name in enumerate(order)}
        left = {value: int(counts[value]) for value in values if value not in place}
        return np.asarray(words.map(place).fillna(-1), dtype=np.int64), list(order), left
    canonical = {alias: name for name, aliases in EVENTS.items() for alias in aliases}
    known = {value: canonical.get(plain(value), "") for value in values}
    unknown = [value for value, name in known.items() if not name]
    every = list(EVENTS)
    example = sorted((v for v in values if known[v]), key=lambda v: every.index(known[v])) or sorted(values)
    if unknown:
        raise LogError(
            f"{table.path}, column {shown(event)}: {', '.join(map(shown, unknown[:5]))} has no known depth; give those "
            f"to use from shallow to deep, as in --events {shlex.join(example)}, or leave the column out: "
            f"--ignore {event}"
        )
    names = [name for name in EVENTS if name in known.values()]
    depths = words.map({value: names.index(name) for value, name in known.items()})
    return np.asarray(depths, dtype=np.int64), names, {}


def _shown(names: Sequence[str], views: str | None) -> list[str]:
    """Which events say that an item was shown and no more."""
    shown_events = [name for name in names if name == "exposure"]
    if "view" in names and (views == "exposures" or (views is None and "click" in names and not shown_events)):
        shown_events.append("view")
    return shown_events


def slate_ids(
    table: TextTable, users: pd.Series, column: str | None, seconds: Floats | None, by_time: bool
) -> tuple[pd.Series | None, tuple[str, ...]]:
    """Ids of slates (rows,), or None where every row is shown by itself.

    A row whose slate is missing (empty, or -1 among ids that are not negative) was shown by itself.

    Args:
        by_time: where no column says, rows of one user and time are one slate.
    """
    if column is None:
        if not by_time or seconds is None:
            return None, ()
        return pd.Series([f"{time:.6f}" for time in seconds], dtype="str"), (
            "No column says which rows were shown together: those of one user and time are taken for one slate "
            "(--slates row takes each by itself).",
        )
    ids = as_ids(table.frame[column])
    missing = missing_ids(ids)
    if not missing.any():
        return ids, ()
    alone = pd.Series([f"alone {row}" for row in range(len(ids))], dtype="str")
    note = f"{int(missing.sum()):,} rows have no {shown(column)}: each was shown by itself."
    return ids.where(~missing, alone), (note,)


def missing_ids(ids: pd.Series) -> Mask:
    """True where an id is empty, or -1 where all others are not negative numbers."""
    missing = no_value(ids)
    minus = np.asarray(ids == "-1", dtype=bool)
    if minus.any():
        others = pd.to_numeric(ids[~missing & ~minus], errors="coerce")
        if not len(others) or bool((others >= 0).all()):
            missing |= minus
    return missing


def sessions_of(
    table: TextTable, users: pd.Series, column: str | None, seconds: Floats | None, gap: float
) -> tuple[pd.Series | None, tuple[str, ...]]:
    """Ids of sessions (rows,), or None: by a column, else by pauses where there are times.

    Rows whose session is missing are told apart by pauses, or one by one without times.
    """
    if column is None:
        if seconds is None or gap <= 0:
            return None, ()
        numbers = sessions_by_pause(users, seconds, gap)[0]
        return pd.Series(numbers).astype("str"), (
            f"No column says which rows are one session: a pause of {gap:g} seconds or more begins one "
            "(--session-gap).",
        )
    ids = as_ids(table.frame[column])
    missing = missing_ids(ids)
    if not missing.any():
        return ids, ()
    numbers = np.arange(len(ids)) if seconds is None or gap <= 0 else sessions_by_pause(users, seconds, gap)[0]
    how = (
        "each is a session of its own" if seconds is None or gap <= 0 else f"pauses of {gap:g} seconds tell them apart"
    )
    alone = pd.Series([f"pause {number}" for number in numbers.tolist()], dtype="str")
    return ids.where(~missing, alone), (f"{int(missing.sum()):,} rows have no {shown(column)}: {how}.",)


def sessions_by_pause(users: pd.Series, seconds: Floats, gap: float) -> tuple[Ints, Mask]:
    """Numbers of sessions (R,), unique over all users, and where the session is its user's last (R,), bool.

    A user's row begins a session where `gap` seconds or more have passed since the row before. A row without a
    time goes with what stands before it in the order of the file.

    >>> sessions_by_pause(pd.Series(["a", "a", "a"]), np.array([0.0, 10.0, 5000.0]), 1800.0)[0].tolist()
    [0, 0, 1]
    """
    if not gap > 0:
        raise LogError(f"session_gap={gap} seconds must be above 0; 1800 is usual")
    owner = pd.factorize(users)[0]
    times = pd.Series(seconds).groupby(owner).ffill().fillna(-np.inf).to_numpy()
    order = np.lexsort((np.arange(len(times)), times, owner))
    begins = np.ones(len(order), dtype=bool)
    same = owner[order][1:] == owner[order][:-1]
    with np.errstate(invalid="ignore"):  # two rows before any time
        pause = np.diff(times[order])
    begins[1:] = ~same | (pause >= gap)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(begins) - 1
    newest = pd.Series(numbers).groupby(owner).transform("max").to_numpy()
    return numbers, numbers == newest
