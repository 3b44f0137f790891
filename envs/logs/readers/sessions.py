"""Rows that belong together: slates, sessions, and why sessions ended."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import Floats, Ints, Mask, as_ids, no_value
from recloop.envs.logs.readers.text_table import TextTable, shown
from recloop.envs.logs.schema import SessionEnd

SESSION_GAP = 1800.0
"""Seconds without a row after which the next row begins a session, where no column says."""


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
        numbers = sessions_by_pause(users, seconds, gap)
        return pd.Series(numbers).astype("str"), (
            f"No column says which rows are one session: a pause of {gap:g} seconds or more begins one "
            "(--session-gap).",
        )
    ids = as_ids(table.frame[column])
    missing = missing_ids(ids)
    if not missing.any():
        return ids, ()
    numbers = np.arange(len(ids)) if seconds is None or gap <= 0 else sessions_by_pause(users, seconds, gap)
    how = (
        "each is a session of its own" if seconds is None or gap <= 0 else f"pauses of {gap:g} seconds tell them apart"
    )
    alone = pd.Series([f"pause {number}" for number in numbers.tolist()], dtype="str")
    return ids.where(~missing, alone), (f"{int(missing.sum()):,} rows have no {shown(column)}: {how}.",)


def sessions_by_pause(users: pd.Series, seconds: Floats, gap: float) -> Ints:
    """Numbers of sessions (R,), unique over all users.

    A user's row begins a session where `gap` seconds or more have passed since the row before. A row without a
    time goes with what stands before it in the order of the file.

    >>> sessions_by_pause(pd.Series(["a", "a", "a"]), np.array([0.0, 10.0, 5000.0]), 1800.0).tolist()
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
    return numbers


def ends_by_pause(users: pd.Series, sessions: pd.Series, seconds: npt.NDArray[np.float64], gap: float) -> pd.Series:
    """`left` (rows,) where a pause follows the session within the log, `cut` where the log ends too soon to tell."""
    times = pd.Series(seconds, index=users.index)
    ends = times.groupby([users, sessions]).transform("max")
    newest = ends == times.groupby(users).transform("max")
    cut = np.asarray(newest & (times.max() - ends < gap))
    return pd.Series(np.where(cut, str(SessionEnd.cut), str(SessionEnd.left)), index=users.index, dtype="str")
