"""Sessions, logged or simulated, in one form: what distances and the classifier are measured on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recloop.envs.evidence.fidelity.lanes import Bools, LoggedLanes
from recloop.envs.evidence.fidelity.replaying import Simulated
from recloop.envs.logs.sequences import Floats, Ints


@dataclass(frozen=True)
class Sessions:
    """M sessions of at most T slates, in order of user and number.

    Args:
        lane: int64 (M,) whose, a place among the B users.
        items: int64 (M, T, K); N at empty places.
        answers: float32 (M, T, K, S).
        given: bool (M, T, K, S).
        length: int64 (M,) slates.
        left: int8 (M,) 1 the user left, 0 cut, -1 nobody knows.
        days_away: float32 (M,) until the next session, NaN where not known.
    """

    lane: Ints
    items: Ints
    answers: Floats
    given: Bools
    length: Ints
    left: npt.NDArray[np.int8]
    days_away: Floats

    def __len__(self) -> int:
        return len(self.lane)

    @property
    def clicks(self) -> Floats:
        """float32 (M, T, K): 1 where consumed."""
        return np.where(self.given[..., 0], self.answers[..., 0], np.float32(0))


def open_loop(lanes: LoggedLanes, simulated: Simulated, rival: Simulated, empty: int) -> tuple[Sessions, Sessions]:
    """Logged and simulated sessions on the logged slates, cut so that they can be compared.

    A simulated session cannot outlast the slates of the logged one, so that it is cut where the logged user left. For
    the same law on both sides the logged session is cut where a `rival`, a second run of the simulator with other luck,
    left. Were the simulator the truth, the two sides could be swapped.

    Args:
        lanes: the log.
        simulated, rival: two runs of `simulate`.
        empty: N.
    """
    gone = np.zeros(len(lanes.users), dtype=bool)
    before = np.zeros_like(lanes.held)  # the rival has left this session before
    begins = lanes.begins
    for step in range(lanes.held.shape[1]):
        gone = gone & ~begins[:, step]
        before[:, step] = gone
        gone = gone | rival.left[:, step]
    logged = _split(lanes, lanes.answers, lanes.given, lanes.held & ~before, lanes.left, lanes.days_away, empty)
    left = np.where(lanes.left >= 0, simulated.left.astype(np.int8), np.int8(-1))
    answers, given, days = simulated.answers, simulated.given, simulated.days_away
    return logged, _split(lanes, answers, given, simulated.alive, left, days, empty)


def whole(lanes: LoggedLanes, empty: int) -> Sessions:
    """The sessions as they were logged."""
    return _split(lanes, lanes.answers, lanes.given, lanes.held, lanes.left, lanes.days_away, empty)


def _split(
    lanes: LoggedLanes,
    answers: Floats,
    given: Bools,
    shown: Bools,
    left: npt.NDArray[np.int8],
    days_away: Floats,
    empty: int,
) -> Sessions:
    """Lanes cut into sessions; slates that are not `shown` (B, T) are left out."""
    number = lanes.stretches
    lane, step = np.nonzero(shown)  # in order of lane, then step
    starts = np.ones(len(lane), dtype=bool)
    starts[1:] = (lane[1:] != lane[:-1]) | (number[lane, step][1:] != number[lane, step][:-1])
    session = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    place = np.arange(len(lane)) - first[session]
    count, longest = len(first), int(place.max(initial=-1)) + 1
    k, signals = lanes.items.shape[2], answers.shape[3]
    items = np.full((count, longest, k), empty, dtype=np.int64)
    items[session, place] = lanes.items[lane, step]
    told = np.zeros((count, longest, k, signals), dtype=np.float32)
    told[session, place] = answers[lane, step]
    where = np.zeros((count, longest, k, signals), dtype=bool)
    where[session, place] = given[lane, step]
    last = np.append(first[1:], len(lane)) - 1
    return Sessions(
        lane=lane[first].astype(np.int64),
        items=items,
        answers=told,
        given=where,
        length=np.bincount(session, minlength=count).astype(np.int64),
        left=left[lane[last], step[last]],
        days_away=days_away[lane[last], step[last]],
    )
