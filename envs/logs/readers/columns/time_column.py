"""Which column of a log says when: by its name, and by values that can be moments."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import is_text, no_value, one_value_each
from recloop.envs.logs.readers.columns.names import TIME_NAMES, plain, usually_called
from recloop.envs.logs.readers.columns.times import DAY, Moments, is_hour_of_day, moments_of
from recloop.envs.logs.readers.text_table import TextTable, shown
from recloop.envs.logs.reading import ColumnUse
from recloop.envs.logs.schema import Columns

_NO_TIME = "called like a time, but its cells are none"
_TIME_ENDS = re.compile(r"(^|_)(time|date|timestamp|ts|at|datetime|ms|when)$|timestamp|time$|^date_")


def time_column(
    table: TextTable,
    names: Sequence[str],
    unit: str | None,
    time_format: str | None,
    ids: tuple[str | None, str | None],
    warnings: list[str],
) -> tuple[str | None, Moments | None, list[ColumnUse]]:
    """The column of times, by its name and its values; `ids` are the columns of users and items."""
    user, item = ids
    usual = usually_called(names, TIME_NAMES, ())
    smelling = [*usual, *(n for n in names if n not in usual and _TIME_ENDS.search(plain(n)))]
    read = {name: moments_of(table, name, unit, time_format) for name in smelling}
    uses: list[ColumnUse] = []
    real: dict[str, Moments] = {}
    counters: dict[str, Moments] = {}
    for name, moments in read.items():
        if moments is None:
            if name in usual:
                uses.append(ColumnUse("log", name, "not used", _NO_TIME))
        elif not moments.known_start:
            if name in usual:
                counters[name] = moments
        else:
            real[name] = moments
    for name in [name for name in real if len(real) > 1 or name not in usual]:
        of = next((ids for ids in (user, item) if ids is not None and _one_each(table, name, ids)), None)
        if of is not None:
            del real[name]
            uses.append(ColumnUse("log", name, "not used", f"each {of} has one alone: no time of behaviour"))
    if not real and not counters:
        real = _by_values(table, [n for n in names if n not in smelling], user)
    if not real:
        return _counter(table, counters, uses, warnings)
    uses += [ColumnUse("log", name, "not used", "its numbers are no moments") for name in counters]
    chosen = _finest_time(table, real)
    uses += [
        ColumnUse("log", name, "not used", f"the time is {chosen}, which is finer") for name in real if name != chosen
    ]
    uses.append(ColumnUse("log", chosen, Columns.time, real[chosen].written))
    return chosen, real[chosen], uses


def _one_each(table: TextTable, column: str, ids: str) -> bool:
    return one_value_each(table.frame[column].astype("str"), table.frame[ids], rows=2, least=2)


def _by_values(table: TextTable, names: Sequence[str], user: str | None) -> dict[str, Moments]:
    """Columns of any name whose values are moments since 1970 and differ within users."""
    found = {}
    for name in names:
        cells = table.frame[name]
        if pd.api.types.is_bool_dtype(cells.dtype) or cells.empty:
            continue
        try:
            moments = moments_of(table, name)
        except LogError:
            continue
        epoch = moments is not None and moments.known_start and not moments.written.startswith("dates written")
        if epoch and not (user is not None and _one_each(table, name, user)):
            assert moments is not None
            found[name] = moments
    return found if len(found) == 1 else {}


def _counter(
    table: TextTable, counters: Mapping[str, Moments], uses: list[ColumnUse], warnings: list[str]
) -> tuple[str | None, Moments | None, list[ColumnUse]]:
    if not counters:
        for use in uses:
            cells = table.frame[use.name]
            filled = cells[~no_value(cells)]
            if is_text(cells) and filled.nunique() > 1 and use.why == _NO_TIME:
                raise LogError(
                    f"{table.path}, column {shown(use.name)}: {shown(filled.iloc[0])} is called a time and cannot be "
                    f"read as one; say how it is written: --columns time={use.name} time_format='%d.%m.%Y %H:%M', or "
                    f"leave it out: --ignore {use.name}"
                )
        if uses:
            warnings.append(f"No time was found, though {', '.join(u.name for u in uses)} is called like one.")
        return None, None, uses
    name, moments = next(iter(counters.items()))
    moments.require_one_reading(table, name)
    if "stamp" not in plain(name) and is_hour_of_day(moments.seconds):
        raise LogError(
            f"{table.path}, column {shown(name)}: whole numbers from 0 to 23 may be hours of a day "
            f"(--ignore {name}) or count from an unknown start (--columns time={name}); say which"
        )
    uses.append(ColumnUse("log", name, Columns.time, moments.written))
    uses += [ColumnUse("log", n, "not used", f"the time is {name}") for n in counters if n != name]
    return name, moments, uses


def _finest_time(table: TextTable, real: Mapping[str, Moments]) -> str:
    """Of columns of moments, the finest, where the coarser ones say the same; `LogError` where they differ."""
    if len(real) == 1:
        return next(iter(real))
    chosen = min(real, key=lambda name: real[name].resolution)
    fine = real[chosen].seconds
    for moments in real.values():
        both = np.isfinite(fine) & np.isfinite(moments.seconds)
        # A day and an hour may be local ones: up to a day apart.
        slack = max(moments.resolution, 1.0) + (DAY if moments.resolution >= 3600 else 0)
        if not both.any() or float(np.mean(np.abs(fine[both] - moments.seconds[both]) <= slack)) < 0.99:
            flags = " or ".join(f"--columns time={n}" for n in real)
            raise LogError(
                f"{table.path}: {' and '.join(map(shown, real))} could each be the time and differ; say which: {flags}"
            )
    return chosen
