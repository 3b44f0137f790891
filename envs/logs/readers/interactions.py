"""From a table's own columns to the interactions of a log: ids, times, places and signals."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.scales import CONSUME, consumption, guess_signal
from recloop.envs.logs.readers.text_table import BadRows, TextTable, as_numbers, empty
from recloop.envs.logs.schema import Columns, SessionEnd, Signal, Times

SHOWN_AND_TAKEN = ("label", "click", "clicked", "is_click", CONSUME)
"""Columns of 0 and 1 that say whether what was shown was taken: the consumption of a log with exposures."""
ALIASES = {
    Columns.user: ("user", "user_id", "userid", "uid"),
    Columns.item: ("item", "item_id", "itemid", "iid", "movieid", "movie_id", "product_id", "video_id"),
    Columns.time: ("time", "timestamp", "ts", "datetime", "date"),
    Columns.session: ("session", "session_id", "sessionid"),
    Columns.session_end: ("session_end",),
    Columns.slate: ("slate", "slate_id", "impression_id"),
    Columns.position: ("position",),
    Columns.propensity: ("propensity", "propensity_score"),
    Columns.policy: ("policy", "logging_policy"),
}
"""What columns are called where nobody says; case does not matter."""
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
DAY = 86_400.0
"""Seconds of a day."""
TIES_OF_ENTRY = 0.25
"""From this share of equal neighbouring times on, they are taken for times of entry by itself."""
FEW_TIES_OF_ENTRY = 0.05
"""From this share on, if most users also fit within a day: nobody consumes a history in one sitting."""
WITHIN_DAY_OF_ENTRY = 0.5
"""Share of users whose whole history fits within 24 hours that counts as most users."""
LEAST_ROWS = 5
"""Rows from which on a user counts for the share within a day: a short history proves nothing."""


@dataclass(frozen=True)
class ColumnMapping:
    """Which column of a file is what. None: the file does not have it.

    Args:
        user: ids of users.
        item: ids of items.
        time: numbers since 1970-01-01 UTC in `time_unit`, or dates that pandas can read.
        session: ids of sessions, unique within a user.
        session_end: `left`, `cut` or `unknown`, of the session the row belongs to.
        slate: ids of slates; rows of one (user, slate) were shown together.
        position: place in the slate, a number.
        propensity: probability in (0, 1] that the logging policy showed this item at this place.
        policy: names of the logging policies.
        signals: the answers by column name, the consumption first. Where the first is no consumption (not
            binary, or given on another), one that is 1 in every row is put before it. Empty: guessed.
        time_unit: of a numeric time.
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str | None = None
    session: str | None = None
    session_end: str | None = None
    slate: str | None = None
    position: str | None = None
    propensity: str | None = None
    policy: str | None = None
    signals: tuple[Signal, ...] = ()
    time_unit: Literal["s", "ms", "us", "ns"] = "s"

    @property
    def named(self) -> dict[str, str]:
        """The file's column for each of `Columns.interactions` that the file has."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name in Columns.interactions}
        return {column: name for column, name in values.items() if name is not None}


@dataclass(frozen=True)
class Interactions:
    """The interactions of a log and what is known about them."""

    frame: pd.DataFrame
    signals: tuple[Signal, ...]
    times: Times
    has_exposures: bool
    notes: tuple[str, ...]


def usual_columns(names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that have a usual name (`ALIASES`), by the column of the log they are.

    >>> usual_columns(["userId", "movieId", "rating"])
    {'user': 'userId', 'item': 'movieId'}
    """
    lower = {name.lower(): name for name in names}
    known = {column: [lower[alias] for alias in aliases if alias in lower] for column, aliases in ALIASES.items()}
    return {column: found[0] for column, found in known.items() if found}


def guess_mapping(table: TextTable) -> ColumnMapping:
    """The mapping of a table whose columns have the usual names (`ALIASES`)."""
    found = usual_columns(map(str, table.frame.columns))
    for column in (Columns.user, Columns.item):
        if column not in found:
            raise LogError(
                f"{table.path}, {table.unit} 1: no column is called {' or '.join(ALIASES[column])}; the file has "
                f"{table.names}; say which is the {column} with columns=ColumnMapping({column}=...)"
            )
    return ColumnMapping(**found)  # type: ignore[arg-type]


def build_interactions(
    table: TextTable,
    mapping: ColumnMapping,
    *,
    bad_rows: BadRows,
    numeric: list[str] | None = None,
    times: Times | None = None,
    exposures: bool | None = None,
    entry_because: str = "",
) -> Interactions:
    """Check every row and name its columns.

    Args:
        table: the file.
        mapping: which column is what.
        bad_rows: decides about missing ids, cells that are no numbers, unknown session ends.
        numeric: columns that may be signals where the mapping names none; None looks for them.
        times: what the times mean; None measures.
        exposures: whether rows also say what was shown and not taken; None: where the consumption has zeros.
        entry_because: why the times are known to be times of entry.

    Raises:
        LogError: with file, line and column; also where no row is left.
    """
    named = mapping.named
    table.require(*named.values(), *(s.name for s in mapping.signals if s.name != CONSUME))
    table = _checked(table, mapping, bad_rows)
    spoken_for = set(named.values())
    if numeric is None:
        numeric = [name for name in map(str, table.frame.columns) if _is_numeric(table.frame[name])]
    candidates = [name for name in numeric if name not in spoken_for]
    signals = mapping.signals
    if signals:
        signals = _with_consumption(signals)
        for signal in signals:
            table = table.with_numbers(signal.name, bad_rows) if signal.name in table.frame else table
    else:
        for name in candidates:
            table = table.with_numbers(name, bad_rows)
    if not len(table.frame):
        raise LogError(f"{table.path} holds no rows that can be read; a log needs at least one")
    signals = signals or _guess_signals({name: table.numbers(name) for name in candidates})
    seconds = _seconds(table, mapping) if mapping.time else None
    kind, notes = _meaning(table, mapping, seconds, times, entry_because)
    columns = {name: table.frame[named[name]] for name in (Columns.user, Columns.item)}
    if seconds is not None and kind is not Times.none:
        columns[Columns.time] = pd.Series(seconds)
    for name in (Columns.session, Columns.session_end, Columns.slate, Columns.policy):
        if name in named:
            columns[name] = table.frame[named[name]].astype("str")
    for name in (Columns.position, Columns.propensity):
        if name in named:
            columns[name] = pd.Series(table.numbers(named[name]))
    for signal in signals:
        known = signal.name in table.frame
        columns[signal.name] = pd.Series(table.numbers(signal.name) if known else np.ones(len(table.frame)))
    frame = pd.DataFrame(columns)
    if exposures is None:
        exposures = bool((frame[signals[0].name] == 0).any())
    return Interactions(frame, signals, kind, exposures, notes)


def _checked(table: TextTable, mapping: ColumnMapping, bad_rows: BadRows) -> TextTable:
    """The table less the rows whose ids, places or session ends cannot be read."""
    table = table.with_ids(mapping.user, bad_rows).with_ids(mapping.item, bad_rows)
    if mapping.time is not None:
        seconds = _seconds(table, mapping)
        bad = ~np.isfinite(seconds) & ~empty(table.frame[mapping.time])
        table = table.without(bad, mapping.time, "is no time", f"malformed {mapping.time}", bad_rows)
    for name in (mapping.position, mapping.propensity):
        table = table if name is None else table.with_numbers(name, bad_rows)
    if mapping.session_end is not None:
        known = [str(end) for end in SessionEnd]
        bad = ~np.asarray(table.frame[mapping.session_end].isin(known), dtype=bool)
        problem = f"is no session end; the known are {', '.join(known)}"
        table = table.without(bad, mapping.session_end, problem, "unknown session end", bad_rows)
    return table


def _seconds(table: TextTable, mapping: ColumnMapping) -> npt.NDArray[np.float64]:
    """Times in seconds since 1970-01-01 UTC (rows,); NaN where there is none or none can be read."""
    cells = table.frame[str(mapping.time)]
    numbers = as_numbers(cells)
    if np.isfinite(numbers).any() or pd.api.types.is_numeric_dtype(cells.dtype):
        return np.where(np.isfinite(numbers), numbers * SECONDS[mapping.time_unit], np.nan)
    dates = pd.to_datetime(cells, utc=True, errors="coerce", format="ISO8601")
    since = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return np.asarray(since, dtype=np.float64)


def _meaning(
    table: TextTable,
    mapping: ColumnMapping,
    seconds: npt.NDArray[np.float64] | None,
    times: Times | None,
    entry_because: str,
) -> tuple[Times, tuple[str, ...]]:
    if seconds is None or not np.isfinite(seconds).any():
        return Times.none, ("The log has no times: order only.",)
    evidence = measure_times(table.frame[mapping.user], seconds)
    if times is not None:
        return times, (f"That its times are '{times}' was said by whoever read the log.",)
    kind, note = decide_times(evidence, known_entry=entry_because)
    return kind, (note,)


def _is_numeric(cells: pd.Series) -> bool:
    """True where every cell is a number or empty, and not all are empty."""
    missing = empty(cells)
    return not missing.all() and bool(np.isfinite(as_numbers(cells))[~missing].all())


def _with_consumption(signals: tuple[Signal, ...]) -> tuple[Signal, ...]:
    """The signals with the consumption first; what has no `given_on` of its own is then given on it."""
    if signals[0].kind == "binary" and signals[0].given_on is None:
        return signals
    return (consumption(), *(s if s.given_on else replace(s, given_on=CONSUME) for s in signals))


def _guess_signals(values: dict[str, npt.NDArray[np.float64]]) -> tuple[Signal, ...]:
    """The signals of the numeric columns, the consumption first."""
    on_off = [name for name, own in values.items() if set(np.unique(own)) == {0.0, 1.0}]
    taken = next((name for name in SHOWN_AND_TAKEN if name in on_off), None)
    first = consumption() if taken is None else Signal(taken)
    rest = [guess_signal(name, own, first.name) for name, own in values.items() if name != first.name]
    return (first, *(signal for signal in rest if signal is not None))


@dataclass(frozen=True)
class TimesEvidence:
    """What was measured on the times of a log.

    Args:
        ties: share of the pairs of neighbouring rows of a user that carry the same time, in [0, 1].
        within_day: share of users, of those with `LEAST_ROWS` rows, whose history fits within 24 hours.
        whole_days: True where every time is a midnight: dates, not times.
        rows: rows with a time.
    """

    ties: float
    within_day: float
    whole_days: bool
    rows: int


def measure_times(users: npt.ArrayLike, times: npt.ArrayLike) -> TimesEvidence:
    """Measure times (R,), in seconds, of rows of `users` (R,), any labels. Rows without a time do not count.

    >>> measure_times(["a", "a", "a", "b"], [10.0, 10.0, 99.0, 5.0]).ties
    0.5
    """
    seconds = np.asarray(times, dtype=np.float64)
    known = np.isfinite(seconds)
    labels = np.unique(np.asarray(users).astype(str), return_inverse=True)[1][known]
    seconds = seconds[known]
    order = np.lexsort((seconds, labels))
    labels, seconds = labels[order], seconds[order]
    neighbours = labels[1:] == labels[:-1]
    ties = float(np.mean(seconds[1:][neighbours] == seconds[:-1][neighbours])) if neighbours.any() else 0.0
    starts = np.flatnonzero(np.concatenate([[True], ~neighbours])) if len(seconds) else np.zeros(0, dtype=int)
    ends = np.concatenate([starts[1:], [len(seconds)]]) - 1 if len(seconds) else starts
    long = ends - starts + 1 >= LEAST_ROWS
    spans = (seconds[ends] - seconds[starts])[long]
    within = float(np.mean(spans <= DAY)) if len(spans) else 0.0
    whole = bool(len(seconds)) and bool(np.all(seconds % DAY == 0))
    return TimesEvidence(ties, within, whole, len(seconds))


def decide_times(evidence: TimesEvidence, *, known_entry: str = "") -> tuple[Times, str]:
    """What the times mean, and why in a sentence for the card.

    Args:
        evidence: what `measure_times` found.
        known_entry: a reason to know that they are times of entry, whatever was measured (MovieLens).
    """
    shares = (
        f"{evidence.ties:.0%} of a user's neighbouring rows carry the same time and "
        f"{evidence.within_day:.0%} of users have their whole history within 24 hours"
    )
    if not evidence.rows:
        return Times.none, "The log has no times: order only."
    if known_entry:
        return Times.entry, f"Times are times of typing-in: {known_entry}; {shares}."
    if evidence.whole_days:
        return Times.entry, "Times are whole days: the order within a day and every rhythm are unknown."
    few = evidence.ties >= FEW_TIES_OF_ENTRY and evidence.within_day >= WITHIN_DAY_OF_ENTRY
    if evidence.ties >= TIES_OF_ENTRY or few:
        return Times.entry, f"Times are taken for times of typing-in: {shares}."
    return Times.behavioural, f"Times are taken for times of behaviour: {shares}."
