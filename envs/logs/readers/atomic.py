"""RecBole atomic files: `.inter` and, beside it, `.user .item .kg .link`.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html. Differences: ids stay strings; `session`,
`session_end`, `slate`, `position` and `propensity` are understood as columns of the log (`Columns`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recloop.encoders.errors import LogError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.readers.scales import CONSUME, consumption, guess_signal
from recloop.envs.logs.readers.side_files import (
    AtomicTable,
    read_atomic,
    read_items,
    read_knowledge,
    read_users,
    with_entities,
    with_missing,
)
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times
from recloop.envs.logs.times import decide_times, measure_times

SHOWN_AND_TAKEN = ("label", "click", "clicked", "is_click")
"""Columns of 0 and 1 that say whether what was shown was taken: the consumption of a log with exposures."""
TAKEN_OVER = {
    "session_id": Columns.session,
    **{name: name for name in (Columns.session, Columns.session_end, Columns.slate)},
    **{name: name for name in (Columns.position, Columns.propensity)},
}
"""Fields of an `.inter` file that are columns of the log, by their name in the file."""


@dataclass(frozen=True)
class AtomicFields:
    """What the id and time columns of the files are called."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"


@dataclass(frozen=True)
class SideTables:
    """What lay beside the interactions."""

    items: pd.DataFrame
    users: pd.DataFrame
    knowledge: KnowledgeGraph | None
    notes: tuple[str, ...]


def read_atomic_log(
    path: Path,
    *,
    fields: AtomicFields | None = None,
    times: Times | None = None,
    signals: tuple[Signal, ...] | None = None,
    text_columns: tuple[str, ...] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a RecBole log.

    Args:
        path: the `.inter` file; files of the same stem beside it are read too.
        fields: names of the id and time columns, where they are not RecBole's.
        times: what the times mean, where you know it; None measures (`envs/logs/times.py`).
        signals: the answers, the consumption first, by column name; None guesses them: a `consume` that is 1
            in every row, or a column of `SHOWN_AND_TAKEN` that holds zeros too, then every further float
            column (`readers/scales.py`).
        text_columns: of the `.item` file, what the text is made of after the title.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column.
    """
    fields, bad_rows = fields or AtomicFields(), BadRows(on_bad_rows)
    atomic = read_atomic(path, bad_rows)
    atomic.table.require(fields.user, fields.item)
    table = atomic.table.with_ids(fields.user, bad_rows).with_ids(fields.item, bad_rows)
    if not len(table.frame):
        raise LogError(f"{path} holds no rows that can be read; a log needs at least one")
    atomic = AtomicTable(table, atomic.kinds)
    columns = {Columns.user: table.frame[fields.user], Columns.item: table.frame[fields.item]}
    columns |= {
        name: pd.Series(table.numbers(old)) if atomic.kinds[old] == "float" else table.frame[old]
        for old, name in TAKEN_OVER.items()
        if old in atomic.kinds
    }
    notes: list[str] = []
    kind = Times.none if fields.time not in atomic.kinds else times
    if kind is None:
        evidence = measure_times(table.frame[fields.user], table.numbers(fields.time))
        kind, note = decide_times(evidence, known_entry=known_entry_times(path.stem))
        notes.append(note)
    if kind is not Times.none:
        columns[Columns.time] = pd.Series(table.numbers(fields.time))
    guessed, exposures = (signals, None) if signals else _guess_signals(atomic, fields)
    for signal in guessed:
        if signal.name in atomic.kinds:
            columns[signal.name] = pd.Series(table.numbers(signal.name))
        elif signal.name == CONSUME:
            columns[CONSUME] = pd.Series(np.ones(len(table.frame)))
        else:
            table.require(signal.name)
    interactions = pd.DataFrame(columns)
    if exposures is None:
        exposures = bool((interactions[guessed[0].name] == 0).any())
    side = read_side_tables(path.with_suffix(""), interactions, fields, text_columns, bad_rows)
    return LoggedBehavior(
        name=path.stem,
        interactions=interactions,
        users=side.users,
        items=side.items,
        signals=guessed,
        times=kind,
        has_exposures=exposures,
        knowledge=side.knowledge,
        source=str(path),
        notes=(*notes, *side.notes),
        dropped=bad_rows.as_dropped(),
    )


def read_side_tables(
    stem: Path,
    interactions: pd.DataFrame,
    fields: AtomicFields,
    text_columns: tuple[str, ...] | None,
    bad_rows: BadRows,
) -> SideTables:
    """Read `stem.item .user .kg .link` where they exist; ids that only `interactions` name get a row too."""
    item, user, kg, link = (stem.with_name(f"{stem.name}.{end}") for end in ("item", "user", "kg", "link"))
    notes: list[str] = []
    items = pd.DataFrame({Columns.title: [], Columns.text: []}, dtype="str")
    items = items.set_axis(pd.Index([], dtype="str", name=Columns.item))
    users = pd.DataFrame(index=pd.Index([], dtype="str", name=Columns.user))
    if item.exists():
        items = read_items(item, fields.item, bad_rows, text_columns)
        extra = interactions[Columns.item][~interactions[Columns.item].isin(items.index)].nunique()
        if extra:
            notes.append(f"{extra} items have no row in {item.name}: their id stands for their title.")
    else:
        notes.append("The log has no texts of items: an item's id stands for its title.")
    if user.exists():
        users = read_users(user, fields.user, bad_rows)
    items = with_missing(items, interactions[Columns.item])
    users = with_missing(users, interactions[Columns.user])
    knowledge = None
    if kg.exists():
        knowledge = read_knowledge(kg, bad_rows)
        if link.exists():
            items, note = with_entities(items, link, fields.item, knowledge, bad_rows)
            notes.append(note)
        else:
            knowledge = None
            notes.append(f"{kg.name} is not used: no {link.name} says which entity an item is.")
    return SideTables(items, users, knowledge, tuple(notes))


def known_entry_times(name: str) -> str:
    """Why a log of this name has times of entry; empty where nothing is known.

    >>> known_entry_times("ml-100k")
    'this is MovieLens, where people rate films they saw long ago'
    """
    movielens = name.lower().startswith(("ml-", "movielens"))
    return "this is MovieLens, where people rate films they saw long ago" if movielens else ""


def _guess_signals(atomic: AtomicTable, fields: AtomicFields) -> tuple[tuple[Signal, ...], bool]:
    """The signals of the float columns, the consumption first, and whether the log has exposures."""
    spoken_for = {fields.user, fields.item, fields.time, *TAKEN_OVER}
    names = [n for n, kind in atomic.kinds.items() if kind == "float" and n not in spoken_for]
    values = {name: atomic.table.numbers(name) for name in names}
    taken = next(
        (n for n in SHOWN_AND_TAKEN if n in values and set(np.unique(values[n])) == {0.0, 1.0}), None
    )
    first = consumption() if taken is None else Signal(taken)
    rest = [guess_signal(name, values[name], first.name) for name in names if name != taken]
    return (first, *(signal for signal in rest if signal is not None)), taken is not None
