"""When things were done: cells as seconds since 1970, and what the times of a log mean."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import Floats, as_numbers, is_moment, no_value
from recloop.envs.logs.readers.text_table import TextTable, shown
from recloop.envs.logs.schema import Times

Unit = Literal["s", "ms", "us", "ns", "min", "h", "d", "excel"]

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
COARSE = {"min": 60.0, "h": 3600.0, "d": 86_400.0, "excel": 86_400.0}
"""Units that numbers are in only where somebody says so; `excel` counts days from 1899-12-30, as spreadsheets do."""
UNIT_NAMES = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "min": "minutes since 1970",
    "h": "hours since 1970",
    "d": "days since 1970",
    "excel": "days as a spreadsheet counts them",
}
EXCEL_1970 = 25_569
"""1970-01-01 as a spreadsheet counts days."""
FIRST, LAST = 5e8, 4_102_444_800.0
"""1985 and 2100, in seconds: numbers in between, in one of `UNITS`, are taken for times since 1970."""
DATE_DIGITS = {6: "%Y%m", 8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Numbers that are dates written in digits, by how many they have."""
HOURS_OF_DAY = 24
ROWS_TO_DOUBT = 10
"""Rows from which on numbers that all lie where days, minutes or years of this age do may be those."""
_FROM_2000, _TO_2050 = 946_684_800.0, 2_524_608_000.0
READABLE = 0.5
"""A column is one of times where more than this share of its cells can be read as one; the others are malformed."""
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
FORMATS = (
    "%m %d, %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%b %d, %Y %H:%M:%S",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y",
    "%d %b %Y %H:%M:%S",
    "%d/%b/%Y:%H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y.%m.%d",
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%m-%d %H:%M:%S GMT",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%B %d, %Y %I:%M %p",
    "%B %d, %Y %I:%M:%S %p",
    "%b %d, %Y %I:%M %p",
    "%b %d, %Y %I:%M:%S %p",
    "%b %d, %Y, %I:%M:%S %p",
    "%B %d, %Y %H:%M:%S",
    "%B %d, %Y %H:%M",
)
"""Ways of writing a moment that can be read in one way alone, besides ISO 8601."""
_NUMERIC_DATE = re.compile(
    r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})(?:,?[ T]+(\d{1,2}:\d{2}(?::\d{2})?(?: ?[AaPp][Mm])?))?"
)
_FEW_DIGITS = re.compile(r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2}(?:[, T].*)?")
"""A day, a month and a year, in an order that nobody can tell."""


@dataclass(frozen=True)
class Moments:
    """A column as moments.

    Args:
        seconds: float64 (rows,) since 1970-01-01 UTC; NaN where a cell is empty or cannot be read.
        written: how the cells are written, in words.
        resolution: seconds that the column can tell apart; 0 where it is finer than a second.
        known_start: False for numbers that count from an unknown start.
        other: what such numbers may be as well, with the flag that says so.
    """

    seconds: Floats
    written: str
    resolution: float
    known_start: bool = True
    other: str = ""

    def require_one_reading(self, table: TextTable, column: str) -> None:
        """`LogError` where the numbers may be something else."""
        if self.other:
            known = self.seconds[np.isfinite(self.seconds)]
            raise LogError(
                f"{table.path}, column {shown(column)}: {known[0]:.10g} may be {self.other}, or count seconds "
                f"(time_unit=s); say which: --columns time={column} and the one that holds, or leave it out: "
                f"--ignore {column}"
            )


def moments_of(
    table: TextTable, column: str, unit: str | None = None, time_format: str | None = None
) -> Moments | None:
    """Cells as moments, or None where most of them cannot be.

    Args:
        table: its rows.
        column: which column.
        unit: of numbers since 1970, of `UNITS` or `COARSE`; None goes by their size.
        time_format: of text, as `strftime` writes it.

    Raises:
        LogError: days and months of text that could be either; numbers that could be seconds, days or dates; an
            unknown unit or a format that does not fit.
    """
    cells = table.frame[column]
    if unit is not None and unit not in UNIT_NAMES:
        raise LogError(f"time_unit={unit} is unknown; use {', '.join(UNIT_NAMES)}")
    if is_moment(cells):
        return _with_resolution(_since_1970(cells), "dates and times")
    if pd.api.types.is_object_dtype(cells.dtype) or pd.api.types.is_bool_dtype(cells.dtype):
        return None
    numbers = as_numbers(cells)
    filled = ~no_value(cells)
    if not filled.any():
        return None
    if time_format is not None:
        found = _parsed(cells, filled, time_format)
        if not np.isfinite(found[filled]).any():
            example = cells[filled].iloc[0]
            raise LogError(
                f"{table.path}, column {shown(column)}: {shown(example)} is not written as time_format={time_format}"
            )
        return _with_resolution(found, f"text as {time_format}")
    if np.isfinite(numbers[filled]).mean() >= READABLE:
        return _of_numbers(numbers, unit)
    return _of_words(table, column, cells, filled)


def _since_1970(moments: pd.Series) -> Floats:
    """Seconds (rows,) of a column of moments, NaN where missing; of any year that its unit can hold."""
    naive = moments if moments.dt.tz is None else moments.dt.tz_convert("UTC").dt.tz_localize(None)
    found = naive.to_numpy()
    seconds = found.astype("datetime64[us]").astype(np.int64) / 1e6
    return np.asarray(np.where(np.isnat(found), np.nan, seconds), dtype=np.float64)


def _of_numbers(numbers: Floats, unit: str | None) -> Moments:
    known = numbers[np.isfinite(numbers)]
    if unit is not None:
        since = numbers - EXCEL_1970 if unit == "excel" else numbers
        return _with_resolution(since * {**UNITS, **COARSE}[unit], UNIT_NAMES[unit])
    middle = float(np.median(known))
    form = _date_digits(known)
    if form is not None:
        whole = pd.Series(np.where(np.isfinite(numbers), numbers, 0)).astype("int64").astype("str")
        found = _parsed(whole, np.isfinite(numbers), form)
        if np.isfinite(found[np.isfinite(numbers)]).all():
            return _with_resolution(found, "dates written in digits")
    for name, scale in UNITS.items():
        if FIRST <= middle * scale <= LAST:
            seconds = numbers * scale
            return _with_resolution(seconds, UNIT_NAMES[name])
    written = "numbers from an unknown start, taken for seconds"
    return Moments(numbers, written, 1.0, known_start=False, other=_other_reading(known))


def _other_reading(known: Floats) -> str:
    """What numbers that are no seconds since 1970 may be, and the flag that says so; empty for a plain count."""
    if len(known) < ROWS_TO_DOUBT:
        return ""
    whole = bool(np.all(known == np.floor(known)))
    low, high = float(known.min()), float(known.max())
    for unit, scale in COARSE.items():
        start = EXCEL_1970 if unit == "excel" else 0
        since = [(value - start) * scale for value in (low, high)]
        if all(_FROM_2000 <= value <= _TO_2050 for value in since):
            return f"{UNIT_NAMES[unit]} (time_unit={unit})"
    if whole and low >= 1900 and high <= 2100:
        return "years (time_format=%Y)"
    if whole and low >= 1e5 and high < 1e6 and np.isfinite(_six_digits(known)).all():
        return "dates written in six digits (time_format=%y%m%d)"
    return ""


def _six_digits(known: Floats) -> Floats:
    words = pd.Series(np.unique(known)).astype("int64").astype("str")
    return _parsed(words, np.ones(len(words), dtype=bool), "%y%m%d")


def _date_digits(known: Floats) -> str | None:
    """The format of whole numbers that all begin with a year of this age and have the same length, or None."""
    if not bool(np.all((known == np.floor(known)) & (known > 0))):
        return None
    lengths = {len(str(int(value))) for value in (known.min(), known.max())}
    length = lengths.pop()
    if lengths or length not in DATE_DIGITS:
        return None
    years = known // 10 ** (length - 4)
    return DATE_DIGITS[length] if bool(np.all((years >= 1900) & (years <= 2100))) else None


def _of_words(table: TextTable, column: str, cells: pd.Series, filled: npt.NDArray[np.bool_]) -> Moments | None:
    words = cells.astype("str").str.strip()
    least = READABLE * filled.sum()
    iso = pd.to_datetime(words.where(filled), utc=True, errors="coerce", format="ISO8601")
    if int(iso.notna().sum()) >= least:
        return _with_resolution(_since_1970(iso), "dates and times, ISO 8601")
    sample = words[filled].iloc[:1000]
    numeric = sample.str.fullmatch(_NUMERIC_DATE.pattern)
    if bool(numeric.mean() >= READABLE):
        return _of_numeric_dates(table, column, words, filled)
    first = sample.iloc[:20]
    for form in FORMATS:
        if np.isfinite(_parsed(first, np.ones(len(first), dtype=bool), form)).any():
            found = _parsed(words, filled, form)
            if np.isfinite(found).sum() >= least:
                return _with_resolution(found, f"text as {form}")
    if bool(sample.str.fullmatch(_FEW_DIGITS.pattern).mean() >= READABLE):
        raise LogError(
            f"{table.path}, column {shown(column)}: {shown(sample.iloc[0])} has a year of two digits; say which is the "
            f"day, the month and the year: --columns time={column} time_format='%d.%m.%y %H:%M'"
        )
    return None


def _of_numeric_dates(table: TextTable, column: str, words: pd.Series, filled: npt.NDArray[np.bool_]) -> Moments | None:
    """`14/09/2020 8:05` or `9/14/2020 8:05 AM`: which is the day shows where one of them is above twelve."""
    parts = words[filled].str.extract(_NUMERIC_DATE)
    first, second = (pd.to_numeric(parts[at]).max() for at in (0, 1))
    clock = parts[3].dropna()
    mark = re.search(r"\d([/.-])\d", words[filled].iloc[0])
    dash = mark.group(1) if mark else "/"
    day_first, month_first = f"%d{dash}%m{dash}%Y", f"%m{dash}%d{dash}%Y"
    if first > 12 and second > 12:
        return None
    if first <= 12 and second <= 12:
        raise LogError(
            f"{table.path}, column {shown(column)}: {shown(words[filled].iloc[0])} may be the day or the month first; "
            f"say which: --columns time={column} time_format='{day_first}' or time_format='{month_first}' "
            "(add %H:%M:%S where there are times)"
        )
    form = day_first if first > 12 else month_first
    if len(clock):
        example = clock.iloc[0]
        form += ", " if "," in words[filled].iloc[0] else " "
        form += "%I" if example[-1] in "mM" else "%H"
        form += ":%M:%S" if example.count(":") == 2 else ":%M"
        form += " %p" if example[-1] in "mM" else ""
    return _with_resolution(_parsed(words, filled, form), f"text as {form}")


def _parsed(cells: pd.Series, filled: npt.NDArray[np.bool_], form: str) -> Floats:
    """Seconds of cells written in one format; NaN where one is not."""
    words = cells.astype("str").str.strip().where(filled)
    try:
        moments = pd.to_datetime(words, utc=True, errors="coerce", format=form)
    except ValueError as error:
        raise LogError(f"time_format={form} is no format ({error}); write it as for example %d/%m/%Y") from None
    return _since_1970(moments)


def _with_resolution(seconds: Floats, written: str) -> Moments:
    known = seconds[np.isfinite(seconds)]
    whole = next((step for step in (DAY, 3600.0, 60.0, 1.0) if len(known) and bool(np.all(known % step == 0))), 0.0)
    return Moments(seconds, written, whole)


def mixed_units(moments: Moments) -> npt.NDArray[np.bool_]:
    """True (rows,) where a number is in a finer unit than most of its column (milliseconds among seconds)."""
    known = np.isfinite(moments.seconds)
    far = known & (np.abs(moments.seconds) > LAST * 10)
    return far if moments.known_start and 0 < far.sum() < known.sum() / 2 else np.zeros(len(known), dtype=bool)


def is_hour_of_day(seconds: Floats) -> bool:
    """True for whole numbers 0 to 23 over many rows: an hour, or a counter, but no moment."""
    known = seconds[np.isfinite(seconds)]
    whole = bool(np.all((known >= 0) & (known < HOURS_OF_DAY) & (known == np.floor(known))))
    return len(known) >= 4 * HOURS_OF_DAY and whole


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
