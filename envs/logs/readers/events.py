"""Event logs: view, click and purchase become answers of one occasion."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError, unknown_name
from recloop.envs.logs.readers.columns.cells import Floats, as_ids, no_value, words
from recloop.envs.logs.readers.columns.names import plain
from recloop.envs.logs.readers.sessions import SESSION_GAP
from recloop.envs.logs.readers.text_table import BadRows, TextTable, shown

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
