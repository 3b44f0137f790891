"""A log as arrays: row numbers for ids, every user's consumption in order, and the slates where known."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Times
from recloop.envs.logs.sequences import Floats, Ints, Sequences, Slates

Mask = npt.NDArray[np.bool_]
_DAY_SECONDS = 86400.0


def compile_sequences(log: LoggedBehavior) -> tuple[Sequences, tuple[str, ...], tuple[str, ...]]:
    """Order a log within its users and put row numbers for ids.

    Row numbers follow the items and the users table. A user's rows are in the order of (time, file order), or
    of the file alone where the log has no times. In a log with exposures, rows of one (user, slate) stand
    together at the slate's first time, ordered by position (else time, then file order); without a slate
    column every row is a slate of its own. Empty places of a slate are at its end.

    Returns:
        The sequences, the item ids (N,) and the user ids (U,).

    Raises:
        LogError: an interaction of an item or user that is in no table, an id twice in a table, a missing
            time, a consumption that is neither 0 nor 1. Cleaning mends these.
    """
    rows = log.interactions
    users = _row_numbers(log, Columns.user, log.users.index)
    items = _row_numbers(log, Columns.item, log.items.index)
    answers, given = _signals(log)
    order = _order(log, users)
    users, items, answers, given = users[order], items[order], answers[order], given[order]
    consumed = answers[:, 0] == 1
    slates: Slates | None = None
    policies: tuple[str, ...] = ()
    if log.has_exposures:
        slates, policies = _slates(log, rows.iloc[order], users, items, answers, given, consumed)
    sequences = Sequences(
        catalogue_size=len(log.items),
        offsets=_offsets(users[consumed], len(log.users)),
        items=items[consumed],
        feedback=answers[consumed],
        given=given[consumed],
        slates=slates,
        policies=policies,
        times=_times(log)[order][consumed] if log.has_times else None,
    )
    return sequences, tuple(map(str, log.items.index)), tuple(map(str, log.users.index))


def ordered_rows(log: LoggedBehavior) -> tuple[Ints, Ints, Ints]:
    """The order in which `compile_sequences` puts the rows of a log.

    Returns:
        The positions of the rows in that order (R,); the user's row number of each (R,), rising; and where in
        the order the slate of each begins (R,), a row of its own in a log without exposures.
    """
    users = _row_numbers(log, Columns.user, log.users.index)
    order = _order(log, users)
    users = users[order]
    begins = np.ones(len(order), dtype=bool)
    if log.has_exposures:
        keys = _slate_keys(log.interactions.iloc[order], users)
        begins[1:] = keys[1:] != keys[:-1]
    return order, users, np.flatnonzero(begins)[np.cumsum(begins) - 1]


def _order(log: LoggedBehavior, users: Ints) -> Ints:
    return _slate_order(log, users) if log.has_exposures else _time_order(log, users)


def _row_numbers(log: LoggedBehavior, column: str, ids: pd.Index) -> Ints:
    """Row numbers (R,) of a column of external ids."""
    if not ids.is_unique:
        twice = ids[ids.duplicated()][0]
        raise LogError(f"{log.name}: {column} '{twice}' stands twice in the {column}s table; keep one row")
    numbers = np.asarray(ids.get_indexer(pd.Index(log.interactions[column])), dtype=np.int64)
    if (numbers < 0).any():
        row = int(np.argmax(numbers < 0))
        value = log.interactions[column].iloc[row]
        raise LogError(
            f"{log.name}: {column} '{value}' of interaction {row} is not in the {column}s table; "
            "add it there or clean the log first"
        )
    return numbers


def _signals(log: LoggedBehavior) -> tuple[Floats, Mask]:
    """Answers (R, S) with 0 where not given, and where they are given (R, S)."""
    names = [signal.name for signal in log.signals]
    values = log.interactions[names].to_numpy(dtype=np.float64, na_value=np.nan)
    given = np.isfinite(values)
    for place, signal in enumerate(log.signals):
        if signal.given_on is not None:
            given[:, place] &= values[:, names.index(signal.given_on)] == 1
    wrong = ~np.isin(values[:, 0], (0.0, 1.0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise LogError(
            f"{log.name}: '{names[0]}' of interaction {row} is {values[row, 0]}; it must be 0 or 1, clean the log first"
        )
    return np.where(given, values, 0).astype(np.float32), given


def _times(log: LoggedBehavior) -> npt.NDArray[np.float64]:
    """Times (R,); file order where the log has none."""
    if not log.has_times:
        return np.arange(len(log.interactions), dtype=np.float64)
    times = log.interactions[Columns.time].to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(times).all():
        row = int(np.argmax(~np.isfinite(times)))
        raise LogError(f"{log.name}: the time of interaction {row} is {times[row]}; clean the log first")
    return times


def _time_order(log: LoggedBehavior, users: Ints) -> Ints:
    """Rows by (user, time, file order)."""
    return np.lexsort((_times(log), users)).astype(np.int64)


def _slate_keys(rows: pd.DataFrame, users: Ints) -> Ints:
    """A number (R,) for each (user, slate); every row its own where there is no slate column."""
    if Columns.slate not in rows:
        return np.arange(len(rows), dtype=np.int64)
    codes, _ = pd.factorize(rows[Columns.slate], use_na_sentinel=False)
    pairs = users * (int(codes.max(initial=0)) + 1) + codes
    keys: Ints = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
    return keys


def _slate_order(log: LoggedBehavior, users: Ints) -> Ints:
    """Rows by (user, first time of the slate, first row of the slate, position, time, file order)."""
    rows, times = log.interactions, _times(log)
    keys = _slate_keys(rows, users)
    start = np.full(int(keys.max(initial=-1)) + 1, np.inf)
    np.minimum.at(start, keys, times)
    first = np.full(len(start), len(rows), dtype=np.int64)
    np.minimum.at(first, keys, np.arange(len(rows)))
    place = np.zeros(len(rows))
    if Columns.position in rows:
        place = rows[Columns.position].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.lexsort((times, place, first[keys], start[keys], users)).astype(np.int64)


def _slates(
    log: LoggedBehavior,
    rows: pd.DataFrame,
    users: Ints,
    items: Ints,
    answers: Floats,
    given: Mask,
    consumed: Mask,
) -> tuple[Slates, tuple[str, ...]]:
    """The slates of rows that are already in order, and the names of who showed them."""
    count = len(items)
    keys = _slate_keys(rows, users)
    begins = np.ones(count, dtype=bool)
    begins[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(begins)
    slate = np.cumsum(begins) - 1  # (R,)
    place = np.arange(count) - starts[slate]
    shape = (len(starts), int(place.max(initial=0)) + 1)
    slate_items = np.full(shape, len(log.items), dtype=np.int64)
    slate_items[slate, place] = items
    slate_answers = np.zeros((*shape, answers.shape[1]), dtype=np.float32)
    slate_answers[slate, place] = answers
    slate_given = np.zeros((*shape, answers.shape[1]), dtype=bool)
    slate_given[slate, place] = given
    owner = users[starts]
    before = np.concatenate([[0], np.cumsum(consumed)])[starts]  # over all users
    offsets = _offsets(owner, len(log.users))
    user_start = np.concatenate([[0], np.cumsum(consumed)])[np.searchsorted(users, owner)]
    session = _sessions(rows.iloc[starts], owner)
    propensity = None
    if Columns.propensity in rows:
        propensity = np.full(shape, np.nan, dtype=np.float32)
        propensity[slate, place] = _propensities(log, rows)
    policy = None
    policies: tuple[str, ...] = ()
    if Columns.policy in rows:
        policy, names = pd.factorize(rows[Columns.policy].iloc[starts].astype(str), sort=True)
        policies = tuple(map(str, names))
    slates = Slates(
        offsets=offsets,
        items=slate_items,
        answers=slate_answers,
        given=slate_given,
        consumed_before=(before - user_start).astype(np.int64),
        session=session,
        left=_left(rows.iloc[starts], owner, session),
        days_away=_days_away(log, rows.iloc[starts], owner, session),
        propensity=propensity,
        policy=None if policy is None else policy.astype(np.int64),
    )
    return slates, policies


def _propensities(log: LoggedBehavior, rows: pd.DataFrame) -> Floats:
    """Of rows (R,), NaN where missing; `LogError` where one is no probability."""
    values = rows[Columns.propensity].to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = (values <= 0) | (values > 1 + 1e-6)
    if wrong.any():
        row = rows.index[int(np.argmax(wrong))]
        raise LogError(
            f"{log.name}: the propensity of interaction {row} is {values[wrong][0]:g}; a shown item had a probability "
            "in (0, 1]: mend the log, or drop the column to fit without propensities"
        )
    return values.astype(np.float32)


def _days_away(log: LoggedBehavior, slates: pd.DataFrame, owner: Ints, session: Ints) -> Floats | None:
    """Days from each session's last slate to its user's next session (Q,), NaN elsewhere."""
    if log.times is not Times.behavioural or Columns.session not in slates:
        return None
    times = slates[Columns.time].to_numpy(dtype=np.float64)
    days = np.full(len(times), np.nan, dtype=np.float32)
    last = np.flatnonzero((owner[1:] == owner[:-1]) & (session[1:] != session[:-1]))
    days[last] = (times[last + 1] - times[last]) / _DAY_SECONDS
    return days


def _sessions(slates: pd.DataFrame, owner: Ints) -> Ints:
    """The session's number within its user (Q,), in order of first appearance; 0 where there are none."""
    if Columns.session not in slates:
        return np.zeros(len(slates), dtype=np.int64)
    codes = pd.factorize(slates[Columns.session], use_na_sentinel=False)[0]
    _, first, which = np.unique(np.stack([owner, codes]), axis=1, return_index=True, return_inverse=True)
    # `owner` rises, so sessions in order of first appearance are counted from each user's first one.
    rank = np.argsort(np.argsort(first))[which.reshape(-1)]
    numbers: Ints = (rank - rank[np.searchsorted(owner, owner)]).astype(np.int64)
    return numbers


def _left(slates: pd.DataFrame, owner: Ints, session: Ints) -> npt.NDArray[np.int8]:
    """Whether the user left after each slate (Q,): 1, 0, or -1 where nobody knows."""
    left = np.full(len(slates), -1, dtype=np.int8)
    if Columns.session_end not in slates or not len(slates):
        return left
    frame = pd.DataFrame({"user": owner, "session": session, "row": np.arange(len(slates))})
    last = frame.groupby(["user", "session"])["row"].transform("max").to_numpy()
    ends = slates[Columns.session_end].astype("str").to_numpy()[last]  # the session's last slate speaks for it
    known = np.isin(ends, (SessionEnd.left, SessionEnd.cut))
    final = frame["row"].to_numpy() == last
    left[known & ~final] = 0
    left[final & (ends == SessionEnd.left)] = 1
    return left


def _offsets(users: Ints, count: int) -> Ints:
    """Where each user's rows begin (count+1,), for rows in order of user."""
    return np.searchsorted(users, np.arange(count + 1)).astype(np.int64)
