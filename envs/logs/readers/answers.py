"""Which columns of a log are answers: whether something was taken, ratings on a scale, measures."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import (
    Floats,
    as_ids,
    as_numbers,
    codes,
    is_text,
    no_value,
    one_value_each,
    words,
)
from recloop.envs.logs.readers.columns.names import SHOWN_AND_TAKEN, plain
from recloop.envs.logs.readers.columns.signals import (
    CONSUME,
    MOST_LEVELS,
    consumption,
    good_by_name,
    guess_signal,
    named_as_answer,
    rating_scale,
    signal_flag,
)
from recloop.envs.logs.readers.columns.times import FIRST
from recloop.envs.logs.readers.text_table import BadRows, TextTable, shown
from recloop.envs.logs.reading import ColumnUse
from recloop.envs.logs.schema import Signal

OCCASIONS = frozenset(words("order ordered purchase purchased conversion converted cart buy"))
"""Words of answers that are 0 and 1 or a small count; many different numbers are those of occasions."""
COUNTS_FROM = 0.01
"""From this share of what was taken that counts above 1, a column of clicks is one of counts."""
NOT_NAMED = "not named among the signals"
_CALLED = "called like an answer"
TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "t": 1.0, "f": 0.0, "y": 1.0, "n": 0.0}
CODES = (-1.0, 99.0, -99.0, 999.0, -999.0, 9999.0, -9999.0)
"""Numbers that stand for "not given" where they lie far from all other ratings."""
CODE_SHARE = 0.001
"""From this share of the rows on a code is one: rarer, it is a wrong value."""
ZERO_STANDS_OUT = 2.0
"""A 0 beside ratings from 1 that is so many times as frequent as any of them may mean "not given"."""
_THOUSANDS = re.compile(r"[+-]?(?:\d{1,3}|[1-9]\d{0,2}(?:,\d{3})+)")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+(?:,\d+)?")


@dataclass(frozen=True)
class LoggedAnswers:
    """The answers of a log.

    Args:
        table: their columns as numbers.
        signals: the consumption first.
        taken: True where the consumption is a column of the log.
        uses: what became of each column that was looked at.
        notes: sentences for the card.
        warnings: what may be wrong.
        codes: what was taken for not given, as `--missing` says it.
    """

    table: TextTable
    signals: tuple[Signal, ...]
    taken: bool
    uses: tuple[ColumnUse, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


def missing_codes(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`--missing -1 rating=0` by column; the empty name stands for every column.

    >>> missing_codes(["-1", "rating=0"])
    {'': ('-1',), 'rating': ('0',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in given:
        column, _, code = part.rpartition("=")
        found[column] = (*found.get(column, ()), code)
    return found


def answers_of(
    table: TextTable,
    columns: Sequence[str],
    given: tuple[Signal, ...],
    *,
    codes: Mapping[str, tuple[str, ...]],
    item: str,
    user: str,
    bad_rows: BadRows,
    impressions: bool = False,
) -> LoggedAnswers:
    """The signals of a log, as named or by the names and values of its columns.

    Args:
        table: the log.
        columns: those that have no other role.
        given: signals as named; they stand, and no other column becomes one.
        codes: cells that mean "not given", by column; the empty name is every column.
        item, user: the columns of ids: what is the same in all rows of an item says nothing of an answer.
        bad_rows: decides about cells that are neither missing nor a number.
        impressions: whether the log has slates, places or propensities: its rows say what was shown.

    Raises:
        LogError: a column called like a consumption or an answer whose cells cannot be read; a column of 0 and 1 that
            may or may not say what was taken; zeros that may or may not be ratings.
    """
    look = _Look(table, codes, bad_rows, item, user, impressions)
    for column in codes:
        if column and column not in table.frame:
            table.require(column)
    if given:
        return look.as_named(given, columns)
    return look.by_name(columns)


@dataclass
class _Look:
    """One look at the columns of a table; it changes as cells become numbers and bad rows go."""

    table: TextTable
    codes: Mapping[str, tuple[str, ...]]
    bad_rows: BadRows
    item: str
    user: str
    impressions: bool = False
    warnings: list[str] = field(default_factory=list)
    coded: list[str] = field(default_factory=list)
    uses: list[ColumnUse] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_named(self, given: tuple[Signal, ...], columns: Sequence[str]) -> LoggedAnswers:
        first_taken = given[0].kind == "binary" and given[0].given_on is None
        signals = given
        if not first_taken:
            signals = (consumption(), *(s if s.given_on else replace(s, given_on=CONSUME) for s in given))
        names = [s.name for s in signals]
        for signal in signals:
            if signal.given_on is not None and signal.given_on not in names:
                raise LogError(
                    f"{signal.name} is given on {shown(signal.given_on)}, which is no signal; known: {', '.join(names)}"
                )
        self.table.require(*(s.name for s in signals if s.name != CONSUME))
        for signal in signals:
            if signal.name not in self.table.frame:
                continue
            self._as_numbers(signal.name, binary=signal.kind == "binary", needed=signal.name == names[0])
            self.uses.append(ColumnUse("log", signal.name, _role(signal, signal.name == names[0]), "as named"))
        self._rest([c for c in columns if c not in names], NOT_NAMED)
        return self._done(signals, names[0] in self.table.frame)

    def by_name(self, columns: Sequence[str]) -> LoggedAnswers:
        taken = [c for c in columns if plain(c) in SHOWN_AND_TAKEN and not self._missing(c).all()]
        taken.sort(key=lambda c: SHOWN_AND_TAKEN.index(plain(c)))
        first: Signal | None = None
        if taken and plain(taken[0]) == "label" and self._is_scale(taken[0]):
            taken = taken[1:]
        if taken:
            self._as_numbers(taken[0], binary=True, needed=True)
            first = Signal(taken[0])
            if not np.nanmax(self.table.numbers(taken[0]), initial=0) > 0:
                raise LogError(
                    f"{self.table.path}, column {shown(taken[0])} is 0 in every row: nothing that was shown was taken; "
                    f"give the log with what was taken, or leave the column out: --ignore {taken[0]}"
                )
            self.uses.append(ColumnUse("log", taken[0], "consumption", "by its name: whether what was shown was taken"))
        answers = [c for c in columns if (first is None or c != first.name) and self._is_answer(c)]
        rest = [c for c in columns if c not in answers and (first is None or c != first.name)]
        if first is None:
            self._might_be_taken([*(answers if self.impressions else ()), *rest], answers)
        signals = [first or consumption()]
        for column in answers:
            signal = self._answer(column, signals[0].name if first is None else self._given_on(column, signals[0].name))
            if signal is not None:
                signals.append(signal)
        self._rest(rest, "its name is that of no answer; name it with --signals to use it")
        for use in self.uses:
            if use.why.startswith(_CALLED):
                self.warnings.append(f"{shown(use.name)} is not used: it is {use.why}.")
        return self._done(tuple(signals), first is not None)

    def _done(self, signals: tuple[Signal, ...], taken: bool) -> LoggedAnswers:
        return LoggedAnswers(
            self.table, signals, taken, tuple(self.uses), tuple(self.notes), tuple(self.warnings), tuple(self.coded)
        )

    def _cells(self, column: str) -> pd.Series:
        return self.table.frame[column]

    def _missing(self, column: str) -> npt.NDArray[np.bool_]:
        cells = self._cells(column)
        missing = no_value(cells)
        codes = (*self.codes.get("", ()), *self.codes.get(column, ()))
        if codes and not pd.api.types.is_object_dtype(cells.dtype):
            coded = np.asarray(as_ids(cells).isin(codes), dtype=bool)
            numbers, wanted = as_numbers(cells), pd.to_numeric(pd.Series(codes), errors="coerce").dropna()
            missing = missing | coded | np.isin(numbers, wanted)
        return missing

    def _values(self, column: str) -> Floats:
        """Numbers (rows,) of a column, of truth values and of decimal commas too; NaN where missing or unreadable."""
        cells = self._cells(column)
        if pd.api.types.is_object_dtype(cells.dtype):
            return np.full(len(cells), np.nan)
        missing = self._missing(column)
        values = as_numbers(cells)
        if is_text(cells):
            words = cells.str.strip()
            unread = ~np.isfinite(values) & ~missing
            if unread.any():
                truth = words.str.lower().map(TRUTH).to_numpy(dtype=np.float64)
                if np.isfinite(truth[unread]).all():
                    values = np.where(unread, truth, values)
                elif words[~missing].str.fullmatch(_THOUSANDS).all():
                    if not words[~missing].str.count(",").max() > 1:
                        example = words[words.str.contains(",", regex=False)].iloc[0]
                        raise LogError(
                            f"{self.table.path}, column {shown(column)}: {shown(example)} may be thousands or have a "
                            f"decimal comma; write numbers without separators, or leave it out: --ignore {column}"
                        )
                    values = as_numbers(words.str.replace(",", "", regex=False))
                elif words[~missing].str.fullmatch(_DECIMAL_COMMA).all():
                    comma = words.str.contains(",", regex=False)[~missing]
                    if comma.mean() > 0.5 or not np.isfinite(values[~missing]).any():
                        values = as_numbers(words.str.replace(",", ".", regex=False))
        return np.where(missing, np.nan, values)

    def _as_numbers(self, column: str, *, binary: bool, needed: bool) -> None:
        """Make a column numbers; bad rows decides about cells that cannot be read, and missing ones where `needed`."""
        missing, values = self._missing(column), self._values(column)
        if binary:
            known = set(np.unique(values[np.isfinite(values)]).tolist())
            if known == {-1.0, 1.0}:
                values = np.where(values == -1, 0.0, values)
                self.notes.append(f"In {shown(column)} -1 stands for not taken.")
            elif needed and _counts(column, values):
                self.notes.append(
                    f"{shown(column)} counts up to {np.nanmax(values):g}: an item with one or more was taken."
                )
                values = np.where(values > 0, 1.0, values)
            elif needed and known == {-1.0, 0.0, 1.0}:
                raise LogError(
                    f"{self.table.path}, column {shown(column)} holds -1, 0 and 1: is -1 not taken or not known? Say "
                    f"--missing {column}=-1 where it is not known, or write 0 and 1"
                )
        bad = ~np.isfinite(values) & ~missing
        keep = ~bad
        self.table = self.table.without(bad, column, "is not a finite number", f"malformed {column}", self.bad_rows)
        values, missing = values[keep], missing[keep]
        if needed and missing.any():
            table = self.table
            problem = "says not whether the item was taken"
            self.table = table.without(missing, column, problem, f"missing {column}", self.bad_rows)
            values = values[~missing]
        self.table = replace(self.table, frame=self.table.frame.assign(**{column: values}))

    def _is_scale(self, column: str) -> bool:
        values = self._values(column)
        known = np.unique(values[np.isfinite(values)])
        return len(known) > 3 and rating_scale(values) is not None

    def _is_answer(self, column: str) -> bool:
        return named_as_answer(column) and not self._why_none(column)

    def _why_none(self, column: str) -> str:
        """Why a column that is called like an answer is none; empty for an answer."""
        cells = self._cells(column)
        if pd.api.types.is_object_dtype(cells.dtype):
            return "its cells are lists"
        missing, values = self._missing(column), self._values(column)
        if missing.all():
            return "it has one value"
        if np.isfinite(values[~missing]).mean() < 0.5:
            first = cells[~missing].iloc[0]
            return f"{_CALLED}, but most of its cells are no numbers ({shown(first)})"
        words = plain(column).split("_")
        if "score" in words and rating_scale(values) is None:
            return f"{_CALLED}, but its values are on no scale of ratings; name it with --signals to use it"
        known = values[np.isfinite(values)]
        if OCCASIONS.intersection(words) and len(np.unique(known)) > MOST_LEVELS:
            return f"{_CALLED}, but its numbers tell occasions apart; name it with --signals to use it"
        if float(np.median(known)) >= FIRST:
            return f"{_CALLED}, but its numbers are as large as moments; name it with --signals to use it"
        return ""

    def _constant(self, column: str) -> bool:
        return int(codes(self._cells(column)).max(initial=-1)) < 1

    def _of_one(self, column: str, ids: str) -> bool:
        """True where all rows of an id have one value, and ids have several rows: it belongs to the id."""
        return one_value_each(self._cells(column), self._cells(ids), rows=3, least=5)

    def _given_on(self, column: str, taken: str) -> str | None:
        """The consumption, where the answer exists only there; None where rows that were not taken have it too."""
        values = self._values(column)[self.table.numbers(taken) == 0]
        answered = np.isfinite(values) & (values != 0)
        if not len(values):
            return taken
        binary = set(np.unique(values[np.isfinite(values)]).tolist()) <= {0.0, 1.0}
        return None if answered.any() and (binary or answered.mean() > 0.5) else taken

    def _answer(self, column: str, given_on: str | None) -> Signal | None:
        values = self._without_codes(column)
        self._as_numbers(column, binary=False, needed=False)
        values = self.table.numbers(column)
        signal = guess_signal(column, values, given_on)
        if signal is None:
            self.uses.append(ColumnUse("log", column, "not used", "it has one value"))
            return None
        signal = replace(signal, good=good_by_name(column))
        self.uses.append(ColumnUse("log", column, _role(signal, False), "by its name"))
        return signal

    def _without_codes(self, column: str) -> Floats:
        """Codes for "not given" become missing cells."""
        values = self._values(column)
        known = values[np.isfinite(values)]
        rating = any(word in ("rating", "ratings", "stars", "score") for word in plain(column).split("_"))
        if not rating or not len(known):
            return values
        for code in CODES:
            others = known[known != code]
            share = 1 - len(others) / len(known)
            if share < CODE_SHARE or len(np.unique(others)) < 2:
                continue
            low, high = float(others.min()), float(others.max())
            scale = rating_scale(others)
            far = scale is not None if code == -1 else (code > high + (high - low) or code < low - (high - low))
            if far and not (code == -1 and low < 0):
                self.notes.append(
                    f"{shown(column)} is {code:g} in {len(known) - len(others):,} rows, far from all other values: "
                    "taken for not given. Where it is an answer, name the column's values with --signals."
                )
                self.coded.append(f"{column}={code:g}")
                self._forget(column, values == code)
                return self._values(column)
        zeros = known == 0
        counts = np.unique(known[~zeros], return_counts=True)
        scale = rating_scale(known[~zeros])
        if scale is not None and scale[0] > 0 and zeros.sum() >= ZERO_STANDS_OUT * counts[1].max():
            levels = ",".join(f"{level:g}" for level in (0, *scale))
            raise LogError(
                f"{self.table.path}, column {shown(column)}: {int(zeros.sum()):,} of {len(known):,} ratings are 0; are "
                f"they not given (--missing {column}=0) or the lowest rating (--signals {column}:{levels})?"
            )
        return values

    def _forget(self, column: str, gone: npt.NDArray[np.bool_]) -> None:
        cells = self._cells(column)
        blank: object = "" if is_text(cells) else np.nan
        if pd.api.types.is_integer_dtype(cells.dtype):
            cells = cells.astype("float64")
        self.table = replace(self.table, frame=self.table.frame.assign(**{column: cells.where(~gone, blank)}))

    def _might_be_taken(self, columns: Sequence[str], answers: Sequence[str]) -> None:
        """`LogError` where a column of 0 and 1 may say what was taken, and nothing else does."""
        for column in columns:
            values = self._values(column)
            known = set(np.unique(values[np.isfinite(values)]).tolist())
            whole = np.isfinite(values).mean() > 0.5 if len(values) else False
            if known != {0.0, 1.0} or not whole or self._of_one(column, self.item) or self._of_one(column, self.user):
                continue
            others = [name for name in answers if name != column]
            guessed = [guess_signal(name, self._without_codes(name), CONSUME) for name in others]
            rest = [signal_flag(signal) for signal in guessed if signal is not None]
            of_taken = [flag.replace(f"@{CONSUME}", f"@{column}") for flag in rest]
            flags = f"--signals {shlex.join([CONSUME, f'{column}@{CONSUME}', *rest])}"
            raise LogError(
                f"{self.table.path}, column {shown(column)} holds 0 and 1: does it say whether what was shown was "
                f"taken (--signals {shlex.join([column, *of_taken])}), is it an answer to what was taken ({flags}), "
                f"or neither (--ignore {shlex.quote(column)})?"
            )

    def _rest(self, columns: Sequence[str], why: str) -> None:
        known = {use.name for use in self.uses}
        for column in columns:
            if column in known:
                continue
            reason = why
            cells = self._cells(column)
            if pd.api.types.is_object_dtype(cells.dtype):
                reason = "its cells are lists"
            elif self._constant(column):
                reason = "it has one value"
            elif why != NOT_NAMED and named_as_answer(column) and not self._of_one(column, self.item):
                reason = self._why_none(column) or why
            elif len(cells) > 2 and cells.is_unique:
                reason = "it differs in every row"
            elif self._of_one(column, self.item):
                reason = "it is the same in all rows of an item; give it in a table of items (--items-table)"
            elif self._of_one(column, self.user):
                reason = "it is the same in all rows of a user; give it in a table of users (--users-table)"
            self.uses.append(ColumnUse("log", column, "not used", reason))


def _counts(column: str, values: Floats) -> bool:
    """True for clicks and the like that are whole numbers from 0, not rarely above 1."""
    known = values[np.isfinite(values)]
    whole = len(known) > 0 and bool(np.all((known >= 0) & (known == np.floor(known))))
    above = int((known > 1).sum())
    return plain(column) != "label" and whole and above > COUNTS_FROM * int((known > 0).sum())


def _role(signal: Signal, first: bool) -> str:
    return "consumption" if first else f"answer, {signal.kind}"
