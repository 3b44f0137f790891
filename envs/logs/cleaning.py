"""Cleaning: a new log, and a report of every row that was dropped and every value that was mended."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.any import read_log
from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Signal

Mask = npt.NDArray[np.bool_]

EARLIEST = 0.0
"""1970-01-01 UTC: no log of behaviour begins before."""
LATEST = 4_102_444_800.0
"""2100-01-01 UTC: a later time is mostly one in milliseconds."""
_MEANT = {
    Columns.position: "a place in the slate is a whole number from 0",
    Columns.propensity: "a probability of what was shown lies above 0 and at most at 1",
}
LEAST_USERS = 2
"""Users that a log must hold: simulated users are learned on some and tried on others."""
LEAST_ITEMS = 2
"""Items that a log must hold: with one there is nothing to choose."""


@dataclass(frozen=True)
class CleaningOptions:
    """What cleaning does beyond what it must.

    Args:
        min_user_rows: users with fewer consumptions go, with all their rows; 0 keeps all that have a row.
        min_item_rows: items with fewer consumptions go, from the catalogue too; 0 keeps even those without a
            row. Both together are applied until nothing changes (the iterated k-core).
        max_user_rows: of an over-active user, only the newest so many rows stay; None keeps all.
        one_row_a_pair: of several rows of one user and item only the newest stays. Otherwise only rows equal in
            every column, time included, are duplicates; a log without times has none.
        out_of_range: values of a signal outside its levels or range: `drop` the row, or `clip` to the nearest.
        missing_signals: a signal that is not there: `keep` the row with the signal not given, or `drop` it.
            The consumption itself can never be missing.
        earliest, latest: times outside are impossible; seconds since 1970-01-01 UTC.
        max_loss: share in [0, 1] of the rows that may be dropped for a fault; above, nothing is read. Rows below k and
            above the cap are no loss.
        strict: raise at the first fault instead of dropping or mending it; rows below k and above the cap
            are no faults.
    """

    min_user_rows: int = 0
    min_item_rows: int = 0
    max_user_rows: int | None = None
    one_row_a_pair: bool = False
    out_of_range: Literal["drop", "clip"] = "drop"
    missing_signals: Literal["keep", "drop"] = "keep"
    earliest: float = EARLIEST
    latest: float = LATEST
    max_loss: float = 0.1
    strict: bool = False

    def __post_init__(self) -> None:
        for name, low in (("min_user_rows", 0), ("min_item_rows", 0), ("max_user_rows", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise LogError(f"{name}={value} is below {low}; give {low} or more")
        if not 0 <= self.max_loss <= 1:
            raise LogError(f"max_loss={self.max_loss} is no share; give 0 to 1")
        if not self.earliest < self.latest:
            raise LogError(f"earliest={self.earliest} is not before latest={self.latest}")


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning found.

    Args:
        before: rows, users and items that came in.
        after: rows, users and items that were left.
        dropped: rows dropped, by reason; each row counts once, under the first reason that it meets. Rows that
            a reader had refused, of any of its files, stand first and are not in `before`.
        repaired: values mended, by reason.
        kept: what was noticed and left as it is, by reason.
        tables: rows of the users and items tables that were dropped, by reason.
    """

    before: Mapping[str, int]
    after: Mapping[str, int]
    dropped: Mapping[str, int]
    repaired: Mapping[str, int]
    kept: Mapping[str, int]
    tables: Mapping[str, int]

    def as_dict(self) -> dict[str, dict[str, int]]:
        """The report as plain numbers, for JSON."""
        names = ("before", "after", "dropped", "repaired", "kept", "tables")
        return {name: dict(getattr(self, name)) for name in names}

    def __str__(self) -> str:
        """A small table; a line a reason."""
        lines = [f"{'':<44}{'before':>12}{'after':>12}"]
        lines += [f"{what:<44}{self.before[what]:>12,}{self.after[what]:>12,}" for what in self.before]
        blocks = (
            ("rows dropped", self.dropped),
            ("values mended", self.repaired),
            ("left as it is", self.kept),
            ("dropped from the tables", self.tables),
        )
        for title, counts in blocks:
            lines += [f"{f'{title}: {reason}':<56}{count:>12,}" for reason, count in counts.items()]
        if not self.dropped:
            lines.append("no row was dropped")
        return "\n".join(lines)


def clean(log: LoggedBehavior, options: CleaningOptions | None = None) -> tuple[LoggedBehavior, CleaningReport]:
    """Drop or mend what a simulation cannot use, and count it.

    Args:
        log: any log; it is not changed.
        options: see `CleaningOptions`.

    Returns:
        A new log whose interactions all name a known user and item, with finite times in order of the file and
        signals within their ranges; and the report.

    Raises:
        LogError: nothing is left, or less than `LEAST_USERS` users or `LEAST_ITEMS` items; with `strict`, the
            first fault.
    """
    return _Cleaning(log, options or CleaningOptions()).run()


def read(source: Any, *, cleaning: CleaningOptions | None = None, **options: Any) -> LoggedBehavior:
    """A log from a path or a table in memory, read and cleaned: what `build_world` takes.

        recloop.read("clicks.csv", user="customer", items="items.csv")

    Args:
        source: see `readers.any.read_log`, which also says what `options` there are.
        cleaning: what cleaning does beyond what it must.

    Raises:
        LogError: what the reader or the cleaning refuses.
    """
    return clean(read_log(source, **options), cleaning)[0]


class _Cleaning:
    """One run of `clean`: the rows that are left so far, and the counts."""

    def __init__(self, log: LoggedBehavior, options: CleaningOptions) -> None:
        self.log, self.options = log, options
        self.rows = log.interactions.copy()
        self.rows["_row"] = np.arange(len(self.rows))
        self.users, self.items = log.users, log.items
        self.dropped = {f"{reason} (at reading)": rows for reason, rows in log.dropped}
        self.repaired: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self.tables: dict[str, int] = {}
        self.wanted: set[str] = set()  # reasons that are no fault of the log

    def run(self) -> tuple[LoggedBehavior, CleaningReport]:
        log = self.log
        before = {"rows": len(log.interactions), "users": len(log.users), "items": len(log.items)}
        self._tables()
        self._ids()
        if log.has_times:
            self._times()
        self._consumption()
        for signal in log.signals[1:]:
            self._signal(signal)
        self._places()
        self._duplicates()
        self._cap()
        self._core()
        self._unused()
        self._not_too_much()
        after = {"rows": len(self.rows), "users": len(self.users), "items": len(self.items)}
        report = CleaningReport(before, after, self.dropped, self.repaired, self.kept, self.tables)
        self._enough(report)
        rows = self.rows.drop(columns="_row").reset_index(drop=True)
        return replace(log, interactions=rows, users=self.users, items=self.items, dropped=()), report

    def _fault(self, bad: Mask, column: str, reason: str) -> None:
        if self.options.strict and bad.any():
            first = int(np.argmax(bad))
            value, row = self.rows[column].iloc[first], self.rows["_row"].iloc[first]
            raise LogError(
                f"{self.log.source or self.log.name}, interaction {row}, column '{column}': {reason} "
                f"({str(value)[:60]!r}); mend it, or clean without strict=True to leave such rows out"
            )

    def _drop(self, bad: Mask, column: str, reason: str, fault: bool = True) -> None:
        if fault:
            self._fault(bad, column, reason)
        else:
            self.wanted.add(reason)
        if bad.any():
            self.dropped[reason] = self.dropped.get(reason, 0) + int(bad.sum())
            self.rows = self.rows[~bad]

    def _mend(self, bad: Mask, column: str, reason: str, values: Any) -> None:
        self._fault(bad, column, reason)
        if bad.any():
            self.repaired[reason] = self.repaired.get(reason, 0) + int(bad.sum())
            self.rows = self.rows.assign(**{column: self.rows[column].where(~bad, values)})

    def _numbers(self, column: str) -> npt.NDArray[np.float64]:
        return np.asarray(pd.to_numeric(self.rows[column], errors="coerce"), dtype=np.float64)

    def _tables(self) -> None:
        """One row an id in the users and the items table."""
        for name in ("users", "items"):
            table: pd.DataFrame = getattr(self, name)
            again = np.asarray(table.index.duplicated() | table.index.isna(), dtype=bool)
            if again.any():
                if self.options.strict:
                    raise LogError(f"{self.log.name}: {table.index[again][0]!r} stands twice in the {name} table")
                self.tables[f"{name} whose id is missing or was there before"] = int(again.sum())
                setattr(self, name, table[~again])

    def _ids(self) -> None:
        for column, table in ((Columns.user, self.users), (Columns.item, self.items)):
            values = self.rows[column]
            self._drop(np.asarray(values.isna() | (values == ""), dtype=bool), column, f"missing {column}")
            unknown = ~np.asarray(self.rows[column].isin(table.index), dtype=bool)
            self._drop(unknown, column, f"{column} in no table")

    def _times(self) -> None:
        column = Columns.time
        self._drop(np.asarray(self.rows[column].isna(), dtype=bool), column, "missing time")
        self._drop(~np.isfinite(self._numbers(column)), column, "malformed time")
        self._drop(self._numbers(column) < self.options.earliest, column, "impossible time, too early")
        self._drop(self._numbers(column) > self.options.latest, column, "impossible time, too late")

    def _consumption(self) -> None:
        name = self.log.consumption.name
        self._drop(np.asarray(self.rows[name].isna(), dtype=bool), name, f"missing {name}")
        self._drop(~np.isin(self._numbers(name), (0.0, 1.0)), name, f"{name} neither 0 nor 1")

    def _signal(self, signal: Signal) -> None:
        name = signal.name
        missing = np.asarray(self.rows[name].isna(), dtype=bool)
        malformed = ~np.isfinite(self._numbers(name)) & ~missing
        self._drop(malformed, name, f"malformed {name}")
        values = self._numbers(name)
        given = np.ones(len(values), dtype=bool)
        if signal.given_on is not None:
            given = self._numbers(signal.given_on) == 1
            self._mend(~given & np.isfinite(values), name, f"{name} without {signal.given_on}", np.nan)
        values = self._numbers(name)
        nearest = _nearest(signal, values)
        wrong = given & np.isfinite(values) & (nearest != values)
        if self.options.out_of_range == "clip":
            self._mend(wrong, name, f"{name} out of range", nearest)
        else:
            self._drop(wrong, name, f"{name} out of range")
            given = given[~wrong]
        absent = given & ~np.isfinite(self._numbers(name))
        if self.options.missing_signals == "drop":
            self._drop(absent, name, f"missing {name}")
        elif absent.any():
            self.kept[f"{name} not given"] = int(absent.sum())

    def _places(self) -> None:
        """Positions, propensities and session ends that mean nothing become missing."""
        if Columns.position in self.rows:
            values = self._numbers(Columns.position)
            wrong = ~np.isnan(values) & ~((values >= 0) & (values == np.floor(values)) & np.isfinite(values))
            self._mend(wrong, Columns.position, "position no whole number from 0", np.nan)
        if Columns.propensity in self.rows:
            values = self._numbers(Columns.propensity)
            wrong = ~np.isnan(values) & ~((values > 0) & (values <= 1))
            self._mend(wrong, Columns.propensity, "propensity outside (0, 1]", np.nan)
        for column in (Columns.position, Columns.propensity):
            lost = sum(count for reason, count in self.repaired.items() if reason.startswith(column))
            if lost > self.options.max_loss * max(len(self.rows), 1):
                example = self.log.interactions[column].loc[self.rows.index[self.rows[column].isna()]].dropna().iloc[0]
                raise LogError(
                    f"{self.log.source or self.log.name}: {lost} of {len(self.rows)} rows have a {column} such as "
                    f"{example:g}, but {_MEANT[column]}; mend it or leave the column out (--ignore), or let more go: "
                    "--clean.max-loss, max_loss="
                )
        if Columns.session_end in self.rows:
            ends = [str(end) for end in SessionEnd]
            wrong = ~np.asarray(self.rows[Columns.session_end].isin(ends), dtype=bool)
            self._mend(wrong, Columns.session_end, "unknown session end", str(SessionEnd.unknown))

    def _duplicates(self) -> None:
        pair = [Columns.user, Columns.item]
        if self.options.one_row_a_pair:
            newest = self.rows.sort_values(Columns.time, kind="stable") if self.log.has_times else self.rows
            newest_rows = newest.drop_duplicates(pair, keep="last")["_row"]
            again = ~np.asarray(self.rows["_row"].isin(newest_rows), dtype=bool)
            self._drop(again, Columns.item, "older row of the same user and item", fault=False)
        elif self.log.has_times:
            columns = [name for name in self.rows.columns if name != "_row"]
            again = np.asarray(self.rows.duplicated(columns), dtype=bool)
            self._drop(again, Columns.item, "duplicate row")

    def _cap(self) -> None:
        limit = self.options.max_user_rows
        if limit is None:
            return
        newest = self.rows.sort_values(Columns.time, kind="stable") if self.log.has_times else self.rows
        from_last = newest.groupby(Columns.user, sort=False).cumcount(ascending=False)
        stays = newest["_row"][np.asarray(from_last < limit)]
        over = ~np.asarray(self.rows["_row"].isin(stays), dtype=bool)
        self._drop(over, Columns.user, f"above {limit} rows of one user", fault=False)

    def _core(self) -> None:
        """Drop users and items with too few consumptions until none is left; items without a row too."""
        k_user, k_item = self.options.min_user_rows, self.options.min_item_rows
        if not (k_user or k_item):
            return
        size = -1
        while size != len(self.rows):
            size = len(self.rows)
            for column, least in ((Columns.user, k_user), (Columns.item, k_item)):
                counts = self._consumed_by(column)
                few = np.asarray(self.rows[column].map(counts).fillna(0) < least, dtype=bool)
                self._drop(few, column, f"{column} below {least} consumptions", fault=False)
        few = np.asarray(pd.Series(self.items.index).map(self._consumed_by(Columns.item)).fillna(0) < k_item)
        if few.any():
            self.tables[f"items below {k_item} consumptions"] = int(few.sum())
            self.items = self.items[~few]

    def _consumed_by(self, column: str) -> pd.Series:
        consumed = self.rows[self._numbers(self.log.consumption.name) == 1]
        counts: pd.Series = consumed[column].value_counts()
        return counts

    def _unused(self) -> None:
        used = np.asarray(self.users.index.isin(self.rows[Columns.user].unique()), dtype=bool)
        if not used.all():
            self.tables["users without a row"] = int((~used).sum())
            self.users = self.users[used]

    def _not_too_much(self) -> None:
        rows = len(self.log.interactions) + sum(rows for _, rows in self.log.dropped)
        lost = sum(rows for reason, rows in self.dropped.items() if reason not in self.wanted)
        if lost > self.options.max_loss * rows and len(self.rows):
            reasons = ", ".join(
                f"{reason}: {rows}" for reason, rows in self.dropped.items() if reason not in self.wanted
            )
            raise LogError(
                f"{self.log.source or self.log.name}: {lost} of {rows} rows would be lost ({reasons}), above "
                f"{self.options.max_loss:.0%}; mend the log or the reading, or let more go: --clean.max-loss, max_loss="
            )

    def _enough(self, report: CleaningReport) -> None:
        source = self.log.source or self.log.name
        reasons = ", ".join(f"{reason}: {rows}" for reason, rows in report.dropped.items()) or "none was dropped"
        if not len(self.rows):
            raise LogError(f"{source}: no row is left of {report.before['rows']} ({reasons}); loosen the cleaning")
        for what, count, least in (
            ("user", len(self.users), LEAST_USERS),
            ("item", len(self.items), LEAST_ITEMS),
        ):
            if count < least:
                raise LogError(
                    f"{source}: the log holds {count} {what}, at least {least} are needed "
                    f"(rows dropped: {reasons}); give a larger log"
                )


def _nearest(signal: Signal, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest value that the signal can take (R,); NaN stays."""
    if signal.kind == "continuous":
        return np.clip(values, *signal.bounds)
    levels = np.array(signal.levels if signal.kind == "ordinal" else (0.0, 1.0))
    known = np.where(np.isfinite(values), values, levels[0])
    nearest = levels[np.abs(known[:, None] - levels).argmin(axis=1)]
    return np.where(np.isfinite(values), nearest, np.nan)
