"""From a table's own columns to the interactions of a log: ids, times, places and signals."""

import shlex
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.answers import NOT_NAMED, LoggedAnswers, answers_of, missing_codes
from recloop.envs.logs.readers.columns.cells import as_ids, no_value
from recloop.envs.logs.readers.columns.names import SHOWN_AND_TAKEN, plain
from recloop.envs.logs.readers.columns.signals import signal_flag
from recloop.envs.logs.readers.columns.times import Moments, decide_times, measure_times, mixed_units
from recloop.envs.logs.readers.events import from_events
from recloop.envs.logs.readers.roles import COLUMN_NAMES, ColumnMapping, Roles, roles_of
from recloop.envs.logs.readers.sessions import SESSION_GAP, ends_by_pause, sessions_of, slate_ids
from recloop.envs.logs.readers.text_table import BadRows, TextTable, shown
from recloop.envs.logs.readers.unfolding import PLACE, SLATE, unfolded
from recloop.envs.logs.reading import ColumnUse
from recloop.envs.logs.schema import Columns, SessionEnd, Signal, Times

_OF_IMPRESSIONS = (Columns.slate, Columns.position, Columns.propensity)
TIMES_OF_SLATES = 0.5
"""From this share of rows that have user and time in common with another on, such rows are one slate."""


@dataclass(frozen=True)
class ReadingOptions:
    """What a person may say of a log beyond its columns.

    Args:
        ignore: columns that are left out.
        missing: cells that mean "not given": `-1`, or `rating=0` for one column.
        events: values of the event column from shallow to deep, such as view click purchase; others are left out.
        views: whether a view of an event log says that an item was shown, or that it was consumed.
        slates: of impressions without a column of slates: `time` takes rows of one user and time for one slate, `row`
            takes every row for one; None measures.
        session_gap: seconds without a row after which a session begins, where no column says; 0 for none.
        times: what the times mean, where you know it; None measures.
        exposures: whether rows also say what was shown and not taken; None: where the consumption has zeros.
    """

    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    views: Literal["exposures", "consumption"] | None = None
    slates: Literal["time", "row"] | None = None
    session_gap: float = SESSION_GAP
    times: Times | None = None
    exposures: bool | None = None

    def __post_init__(self) -> None:
        if self.session_gap < 0:
            raise LogError(f"session_gap={self.session_gap} seconds is below 0; give seconds, or 0 for no sessions")


@dataclass(frozen=True)
class Interactions:
    """The interactions of a log and what is known about them."""

    frame: pd.DataFrame
    signals: tuple[Signal, ...]
    times: Times
    has_exposures: bool
    notes: tuple[str, ...]
    mapping: ColumnMapping
    uses: tuple[ColumnUse, ...] = ()
    warnings: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    event: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of `build` that say by name what was found."""
        named = {what: getattr(self.mapping, what) for what in COLUMN_NAMES} | {"event": self.event}
        columns = [f"{what}={name}" for what, name in named.items() if name not in (None, SLATE, PLACE)]
        flags = ["--columns", *columns]
        unfolded_rows = SLATE in named.values()
        if not unfolded_rows and not any(use.role == "event" for use in self.uses):
            flags += ["--signals", *map(signal_flag, self.signals)]
        if self.missing:
            flags += ["--missing", *self.missing]
        return tuple(map(shlex.quote, flags))


def build_interactions(
    table: TextTable,
    given: ColumnMapping | None = None,
    options: ReadingOptions | None = None,
    *,
    bad_rows: BadRows,
    entry_because: str = "",
) -> Interactions:
    """Find the columns of a log, check every row, and name its columns.

    Args:
        table: the file.
        given: which column is what, where somebody said so.
        options: what else they said.
        bad_rows: decides about missing ids, cells that are no numbers, unknown session ends.
        entry_because: why the times are known to be times of entry.

    Raises:
        LogError: with file, line and column; two readings that are both possible; where no row is left.
    """
    return _Build(table, given or ColumnMapping(), options or ReadingOptions(), bad_rows).run(entry_because)


@dataclass
class _Build:
    """One reading of a table; its rows and columns change from step to step."""

    table: TextTable
    given: ColumnMapping
    options: ReadingOptions
    bad_rows: BadRows
    uses: list[ColumnUse] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    codes: tuple[str, ...] = ()
    listed: str = ""
    of_row: tuple[str, ...] = ()

    def run(self, entry_because: str) -> Interactions:
        if not len(self.table.frame):
            raise LogError(f"{self.table.path} holds no rows that can be read; a log needs at least one")
        self._unfold()
        roles = self._roles()
        self.uses += [replace(use, why="a list of items") if use.name == self.listed else use for use in roles.uses]
        self.warnings += roles.warnings
        mapping = roles.mapping
        if mapping.time is not None and roles.moments is not None:
            self._as_seconds(mapping.time, roles.moments)
        event = mapping.event
        mapping, exposed = self._events(mapping)
        self._ids_and_numbers(mapping)
        answers = self._answers(mapping)
        if not len(self.table.frame):
            raise LogError(f"{self.table.path} holds no rows that can be read; a log needs at least one")
        frame, kind, exposures = self._frame(mapping, answers, exposed, entry_because)
        return Interactions(
            frame,
            answers.signals,
            kind,
            exposures,
            tuple(self.notes),
            mapping,
            tuple(self.uses),
            tuple(self.warnings),
            (*self.options.missing, *self.codes),
            event,
        )

    def _frame(
        self, mapping: ColumnMapping, answers: LoggedAnswers, exposed: bool, entry_because: str
    ) -> tuple[pd.DataFrame, Times, bool]:
        """The rows as a log keeps them, what their times mean, and whether they say what was not taken."""
        signals = answers.signals
        clash = next((s.name for s in signals if s.name in (*Columns.interactions, Columns.apart)), None)
        if clash is not None:
            raise LogError(
                f"{self.table.path}: a signal cannot be called {shown(clash)}, as a column of logs is; rename it"
            )
        taken = answers.signals[0].name
        values = self.table.numbers(taken) if answers.taken else np.ones(len(self.table.frame))
        exposures = exposed or bool((values == 0).any())
        if self.options.exposures is not None:
            exposures = self.options.exposures
        users = as_ids(self.table.frame[str(mapping.user)])
        seconds = self.table.numbers(str(mapping.time)) if mapping.time else None
        columns = {Columns.user: users, Columns.item: as_ids(self.table.frame[str(mapping.item)])}
        known = seconds is not None and bool(np.isfinite(seconds).any())
        slates = self._slates(mapping, users, seconds if known else None, exposures)
        if slates is not None and mapping.slate is not None:
            self._check_slates(mapping, users, slates, seconds)
        if mapping.slate is not None and not exposures:
            self.notes.append(
                f"Nothing was shown and not taken, so rows are consumptions and {shown(mapping.slate)} is not used."
            )
        kind, note = self._meaning(users, slates, seconds if known else None, entry_because)
        self.notes.append(note)
        if seconds is not None and kind is not Times.none:
            columns[Columns.time] = pd.Series(seconds)
        if slates is not None:
            columns[Columns.slate] = slates
        rhythm = seconds if kind is Times.behavioural else None
        columns |= self._sessions(mapping, users, slates, rhythm, exposures)
        for name in (Columns.position, Columns.propensity):
            column = mapping.named.get(name)
            if column is not None:
                columns[name] = pd.Series(self.table.numbers(column))
        if mapping.policy is not None:
            columns[Columns.policy] = as_ids(self.table.frame[mapping.policy])
        for signal in signals:
            there = signal.name in self.table.frame
            columns[signal.name] = pd.Series(self.table.numbers(signal.name) if there else values)
        frame = pd.DataFrame(columns)
        apart = self._differing(frame, mapping, answers)
        if apart is not None:
            frame[Columns.apart] = apart
        return frame, kind, exposures

    def _roles(self, find_time: bool = True) -> Roles:
        ignore = self.options.ignore
        roles = roles_of(
            self.table, self.given, ignore=ignore, needs_user=self.given.user is not None, find_time=find_time
        )
        if roles.mapping.user is None:
            if roles.mapping.session is None:
                # Says what is missing, as for any log.
                roles_of(self.table, self.given, ignore=ignore, find_time=False)
            session = str(roles.mapping.session)
            said = replace(self.given, user=session, session=None)
            roles = roles_of(self.table, said, ignore=ignore, find_time=find_time)
            if find_time:
                self.warnings.append(f"The log has no users: each {shown(session)} is taken for a user of its own.")
        return roles

    def _unfold(self) -> None:
        """One item a row; the slate and the place are columns then, where the file has none."""
        mapping = self._roles(find_time=False).mapping
        named = mapping.signals[0].name if mapping.signals else None
        names = [str(name) for name in self.table.frame.columns]
        usual = [name for alias in SHOWN_AND_TAKEN for name in names if plain(name) == alias]
        taken = named if named in names else next(iter(usual), None)
        found = unfolded(self.table, str(mapping.item), taken, self.bad_rows)
        self.uses += found.uses
        self.notes += found.notes
        if found.table.frame is not self.table.frame:
            self.listed, self.of_row = str(mapping.item), found.of_row
            self.given = replace(self.given, item=self.listed)
        self.table = found.table
        if found.slates:
            places = {Columns.slate: SLATE, Columns.position: PLACE}
            added = {role: name for role, name in places.items() if getattr(mapping, role) is None}
            self.given = replace(self.given, **added)  # type: ignore[arg-type]
        unused = [name for name in (SLATE, PLACE) if name in self.table.frame and name not in self.given.named.values()]
        self.table = replace(self.table, frame=self.table.frame.drop(columns=unused))

    def _as_seconds(self, column: str, moments: Moments) -> None:
        """The column of times as seconds; cells that are none, and those in another unit, as bad rows decides."""
        if not moments.known_start:
            self.warnings.append(f"The times, {shown(column)}, are {moments.written}.")
        unread = ~np.isfinite(moments.seconds)
        mixed = mixed_units(moments)
        seconds = pd.Series(moments.seconds)
        table = self.table.without(unread, column, "is no time", f"malformed {column}", self.bad_rows)
        problem = f"is in another unit than the other times of this column, {moments.written}"
        table = table.without(mixed[~unread], column, problem, f"{column} in another unit", self.bad_rows)
        kept = seconds[~unread & ~mixed].reset_index(drop=True)
        self.table = replace(table, frame=table.frame.assign(**{column: kept}))

    def _events(self, mapping: ColumnMapping) -> tuple[ColumnMapping, bool]:
        """An event log as one row an occasion; True where there are occasions of which nothing was taken."""
        if mapping.event is None:
            return mapping, False
        seconds = None if mapping.time is None else self.table.numbers(mapping.time)
        columns = {"event": mapping.event, "user": str(mapping.user), "item": str(mapping.item)}
        found = from_events(
            self.table,
            columns,
            seconds,
            order=self.options.events,
            views=self.options.views,
            gap=self.options.session_gap or SESSION_GAP,
            bad_rows=self.bad_rows,
        )
        self.table = found.table
        self.notes += found.notes
        first, *rest = found.signals
        self.made = set(found.signals)
        own = mapping.signals or (Signal(first), *(Signal(name, given_on=first) for name in rest))
        return replace(mapping, event=None, signals=own), found.exposures

    def _ids_and_numbers(self, mapping: ColumnMapping) -> None:
        for name in (mapping.user, mapping.item):
            self.table = self.table.with_ids(str(name), self.bad_rows).without_nobody(str(name), self.bad_rows)
        for name in (mapping.position, mapping.propensity):
            self.table = self.table if name is None else self.table.with_numbers(name, self.bad_rows)
        if mapping.session_end is not None:
            known = [str(end) for end in SessionEnd]
            cells = as_ids(self.table.frame[mapping.session_end]).str.lower()
            words = cells.where(~no_value(cells), str(SessionEnd.unknown))
            self.table = replace(self.table, frame=self.table.frame.assign(**{mapping.session_end: words}))
            bad = ~np.asarray(words.isin(known), dtype=bool)
            problem = f"is no session end; the known are {', '.join(known)}"
            self.table = self.table.without(bad, mapping.session_end, problem, "unknown session end", self.bad_rows)

    def _answers(self, mapping: ColumnMapping) -> LoggedAnswers:
        spoken_for = {*mapping.named.values(), *(use.name for use in self.uses)}
        names = [str(name) for name in self.table.frame.columns]
        signals = {signal.name for signal in mapping.signals}
        one = [name for name in self.of_row if name in names and name not in spoken_for | signals]
        self.uses += [
            ColumnUse("log", name, "not used", "it says something of a whole row, not of one item") for name in one
        ]
        spoken_for.update(one)
        answers = answers_of(
            self.table,
            [name for name in names if name not in spoken_for or name in signals],
            mapping.signals,
            codes=missing_codes(self.options.missing),
            item=str(mapping.item),
            user=str(mapping.user),
            bad_rows=self.bad_rows,
            impressions=any(mapping.named.get(role) for role in _OF_IMPRESSIONS),
        )
        self.table = answers.table
        self.uses += [replace(u, why="made of the events") if u.name in self.made else u for u in answers.uses]
        if self.made:
            events = "the answers of an event log are its events"
            self.uses = [replace(u, why=events) if u.why == NOT_NAMED else u for u in self.uses]
        self.warnings += answers.warnings
        self.codes = answers.codes
        self.notes += answers.notes
        return answers

    def _slates(
        self,
        mapping: ColumnMapping,
        users: pd.Series,
        seconds: npt.NDArray[np.float64] | None,
        exposures: bool,
    ) -> pd.Series | None:
        if not exposures and mapping.slate is None:
            return None
        by_time = self.options.slates == "time"
        if self.options.slates is None and mapping.slate is None and seconds is not None:
            together = pd.DataFrame({"user": users, "time": seconds}).duplicated(keep=False)
            by_time = float(together.mean()) >= TIMES_OF_SLATES
        ids, notes = slate_ids(self.table, users, mapping.slate, seconds, by_time)
        if mapping.slate == SLATE:
            notes = ()
        self.notes += notes
        return ids

    def _check_slates(
        self, mapping: ColumnMapping, users: pd.Series, slates: pd.Series, seconds: npt.NDArray[np.float64] | None
    ) -> None:
        """`LogError` for one slate over all times; a warning where slates lie apart in time or have two policies."""
        rows = pd.DataFrame({"user": users, "slate": slates})
        column = shown(mapping.slate)
        if seconds is not None:
            rows["time"] = seconds
            shown_at = rows.groupby(["user", "slate"], sort=False)["time"].agg(["min", "max", "size"])
            several = shown_at[shown_at["size"] > 1]
            apart = several[several["max"] - several["min"] >= SESSION_GAP]
            said = f"rows of {len(apart):,} of {len(several):,} slates ({column}) lie half an hour or more apart"
            if len(apart) and rows["slate"].nunique() == 1:
                raise LogError(
                    f"{self.table.path}: {said}, so that it says not what was shown together; leave it out: "
                    f"--ignore {mapping.slate}, or name another: --columns slate=COLUMN"
                )
            if len(apart):
                self.warnings.append(f"The {said}: look whether it says what was shown together.")
        if mapping.policy is not None:
            rows["policy"] = as_ids(self.table.frame[mapping.policy])
            mixed = int((rows.groupby(["user", "slate"], sort=False)["policy"].nunique() > 1).sum())
            if mixed:
                self.warnings.append(
                    f"In {mixed:,} slates {shown(mapping.policy)} differs: that of the first row counts."
                )

    def _meaning(
        self,
        users: pd.Series,
        slates: pd.Series | None,
        seconds: npt.NDArray[np.float64] | None,
        entry_because: str,
    ) -> tuple[Times, str]:
        """What the times mean, measured once a slate: its rows share one time, whatever they mean."""
        if seconds is None:
            return Times.none, "The log has no times: order only."
        if self.options.times is not None:
            return self.options.times, f"That its times are '{self.options.times}' was said by whoever read the log."
        if slates is not None:
            first = ~pd.DataFrame({"user": users, "slate": slates}).duplicated().to_numpy()
            users, seconds = users[first], seconds[first]
        return decide_times(measure_times(users, seconds), known_entry=entry_because)

    def _sessions(
        self,
        mapping: ColumnMapping,
        users: pd.Series,
        slates: pd.Series | None,
        seconds: npt.NDArray[np.float64] | None,
        exposures: bool,
    ) -> dict[str, pd.Series]:
        """Sessions, and why each ended: as a column says, or by whether a pause follows."""
        gap = self.options.session_gap
        if mapping.session is None and not exposures:
            return {}
        if seconds is not None and slates is not None:
            # A slate is shown at once: rows that were answered later are of its session.
            seconds = pd.Series(seconds).groupby([users, slates], sort=False).transform("min").to_numpy()
        ids, notes = sessions_of(self.table, users, mapping.session, seconds, gap)
        self.notes += notes
        if ids is None:
            return {}
        columns = {Columns.session: ids}
        if mapping.session_end is not None:
            columns[Columns.session_end] = self.table.frame[mapping.session_end]
        elif mapping.session is None and seconds is not None:
            columns[Columns.session_end] = ends_by_pause(users, ids, seconds, gap)
            self.notes.append("A session that a pause follows was left; one that lasts to the end of the log is cut.")
        elif exposures:
            self.warnings.append(
                "Why sessions ended is not known: users go on for as long as sessions of the log do. A column "
                "that says left, cut or unknown tells more: --columns session_end=COLUMN."
            )
        return columns

    def _differing(self, frame: pd.DataFrame, mapping: ColumnMapping, answers: LoggedAnswers) -> pd.Series | None:
        """Numbers that tell rows apart which are equal in all that is used and differ in what is not; else None."""
        same = frame.duplicated(keep=False)
        used = {*mapping.named.values(), *(s.name for s in answers.signals)}
        unused = [name for name in self.table.frame.columns if name not in used]
        if not same.any() or not unused:
            return None
        rest = self.table.frame.loc[same.to_numpy(), unused].astype("str")
        rest = rest.loc[:, [name for name in rest if not rest[name].is_unique or len(rest) < 3]]
        if not len(rest.columns) or not len(rest.drop_duplicates()):
            return None
        codes = pd.Series(0, index=frame.index)
        codes[same.to_numpy()] = rest.groupby(list(rest.columns), sort=False).ngroup().to_numpy()
        return codes if codes[same.to_numpy()].nunique() > 1 else None
