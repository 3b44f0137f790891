"""Splits of a log into parts. Each says what leaks from one part into another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.compile import ordered_rows
from recloop.envs.logs.schema import LoggedBehavior, Times

Ints = npt.NDArray[np.int64]

_POPULARITY = "what is popular in the held-out time is known to train: the users of all parts live in the same time"
_FUTURE = "train rows of one user may be later than held-out rows of another"
_SAME_USERS = "the held-out rows belong to users whose earlier rows are in train"
_ENTRY = "times are times of entry: their order is the order of typing, and ties are broken by the order of the file"


@dataclass(frozen=True)
class Split:
    """Disjoint parts of a log.

    Args:
        parts: positions by name of the part, rising; of rows of the interactions, or of the users table.
        of: what the positions count.
        leaks: what is known across parts that would not be known in use, in plain sentences.
    """

    parts: Mapping[str, Ints]
    of: Literal["rows", "users"]
    leaks: tuple[str, ...]

    def __getitem__(self, part: str) -> Ints:
        return self.parts[part]


def split_per_user_in_time(log: LoggedBehavior, fractions: Mapping[str, float]) -> Split:
    """Cut every user's rows in order of (time, file order); the first part is the oldest. Slates stay whole.

    A user with few rows may be missing from the later parts: a part ends at the rounded-up share.

    Args:
        log: any log; without times the order of the file counts.
        fractions: shares of each user's rows by name of the part, oldest first, of sum 1.

    Raises:
        LogError: bad fractions, or a part without rows.
    """
    shares = _checked(fractions)
    order, users, begins = ordered_rows(log)
    starts = np.searchsorted(users, users)
    place = begins - starts  # of the slate's first row within its user
    lengths = np.bincount(users)[users] if len(users) else users
    ends = np.ceil(np.cumsum(shares)[:-1] * lengths[:, None] - 1e-9)  # (R, parts - 1)
    part = np.empty(len(order), dtype=np.int64)
    part[order] = (place[:, None] >= ends).sum(axis=1)
    return Split(_parts(log, fractions, part), "rows", _per_user_leaks(log))


def split_by_user(users: int, fractions: Mapping[str, float], seed: int) -> Split:
    """Deal users to parts by a seeded shuffle: the same seed and number of users give the same parts.

    Args:
        users: how many there are; positions count rows of the users table.
        fractions: shares of the users by name of the part, of sum 1.
        seed: of the shuffle.

    Raises:
        LogError: bad fractions, or more parts than users.
    """
    shares = _checked(fractions)
    cuts = _cuts(shares, users)
    sizes = np.diff(np.concatenate([[0], cuts]))
    if (sizes == 0).any():
        empty = list(fractions)[int(np.argmax(sizes == 0))]
        raise LogError(f"part '{empty}' gets none of {users} users; raise its fraction or take a larger log")
    shuffled = np.random.default_rng(seed).permutation(users).astype(np.int64)
    groups = np.split(shuffled, cuts[:-1])
    return Split({n: np.sort(g) for n, g in zip(fractions, groups, strict=True)}, "users", (_POPULARITY,))


def leave_one_out(log: LoggedBehavior) -> Split:
    """Each user's newest consumption is `test`, the one before `valid`, what came before both `train`.

    Users with less than three consumptions are in `train` with all rows. In a log with exposures, rows of and
    after the slate of the `valid` consumption that are not held out themselves are in no part.

    Raises:
        LogError: no user has three consumptions.
    """
    order, users, begins = ordered_rows(log)
    consumed = log.interactions[log.consumption.name].to_numpy(dtype=np.float64)[order] == 1
    taken = np.flatnonzero(consumed)
    lengths = np.bincount(users[taken], minlength=int(users.max(initial=-1)) + 1)
    ends = np.cumsum(lengths)
    long = np.flatnonzero(lengths >= 3)
    test, valid = taken[ends[long] - 1], taken[ends[long] - 2]
    if not len(test):
        raise LogError(f"{log.name}: no user has three consumptions; leave-one-out needs train, valid and test")
    limit = np.full(len(lengths), len(order), dtype=np.int64)
    limit[long] = begins[valid]
    train = np.flatnonzero(np.arange(len(order)) < limit[users])
    parts = {"train": train, "valid": valid, "test": test}
    return Split({n: np.sort(order[rows]) for n, rows in parts.items()}, "rows", _per_user_leaks(log))


def _per_user_leaks(log: LoggedBehavior) -> tuple[str, ...]:
    entry = (_ENTRY,) if log.times is Times.entry else ()
    return (_SAME_USERS, _FUTURE if log.has_times else f"{_FUTURE}: the log has no times to tell", *entry)


def _checked(fractions: Mapping[str, float]) -> npt.NDArray[np.float64]:
    shares = np.array(list(fractions.values()), dtype=np.float64)
    if len(shares) < 2 or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise LogError(f"fractions {dict(fractions)} must be two or more, each above 0, of sum 1")
    return shares


def _cuts(shares: npt.NDArray[np.float64], count: int) -> Ints:
    """Where the parts of `count` things end."""
    cuts: Ints = np.round(np.cumsum(shares) * count).astype(np.int64)
    cuts[-1] = count
    return cuts


def _parts(log: LoggedBehavior, names: Mapping[str, float], part: Ints) -> dict[str, Ints]:
    parts = {name: np.flatnonzero(part == place).astype(np.int64) for place, name in enumerate(names)}
    for name, rows in parts.items():
        if not len(rows):
            raise LogError(
                f"{log.name}: part '{name}' has none of the {len(part)} rows; raise its fraction or take a larger log"
            )
    return parts
