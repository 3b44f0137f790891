"""Next answers by stratum: what users were expected to do, the logged answers before it known, beside what they did.

The sum of answers minus expectations over any part of a log that is known before the answers has mean zero in the
truth, whatever policy wrote the log and however it adapted: no policy needs to be known or estimated for it.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from recloop.envs.evidence.fidelity.lanes import LoggedLanes, logged_lanes, past_told
from recloop.envs.evidence.fidelity.replaying import teacher_forced
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.logs.walk import steps_between
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

Bools = npt.NDArray[np.bool_]
Table = npt.NDArray[np.float64]
Sums = dict[tuple[str, str], tuple[Table, Table, Table]]
"""(measure, policy) -> what happened, what was expected, and of how many, by user, float64 (B,) each."""

LATELY = 3
"""Slates in which a group was shown lately."""
SHOWN = (0, 1, 3, 6)
"""Times that a group was shown lately are counted together from each of these to the next; so are the next two."""
TAKEN = (0, 1, 3, 6)
CONSUMED = (0, 1, 5, 20)
POSITIONS = 10
"""Places of a slate with a stratum of their own."""


def next_answers(world: World, users: UserSimulator, sequences: Sequences, rows: Ints, steps: int, seed: int) -> Sums:
    """Consumption and leaving by stratum; empty where the users do not say what they expect.

    Strata of consumption: the policy in force, position, slate of the session, how often the item's group was shown in
    the last `LATELY` slates and how many of it were taken in the slates that an observation holds, how much the user
    had consumed, and whether the item was shown before. Of leaving: policy, slate of the session, consumed.

    Args:
        world: items and their groups; `users` are prepared for it.
        sequences: the log, with slates.
        rows: int64 users, from their first slate that may be scored, cold.
        steps: most slates of each.
        seed: of whatever is drawn at arrival.
    """
    lanes = logged_lanes(sequences, rows, steps)
    if not len(lanes.users):
        return {}
    if sequences.profile_prefix is not None:
        shape = (world.users.history.shape[1], world.users.shown.shape[1])
        before = past_told(sequences, lanes.users, *shape, world.consumes_twice, lanes.items[:1].size)
        lanes = LoggedLanes(**{**vars(lanes), "before": before})
    forecast = teacher_forced(world, users, lanes, np.zeros(len(world.catalogue), dtype=np.float32), seed)
    if forecast is None:
        return {}
    parts = _Strata(world, sequences, lanes)
    there = lanes.given[..., 0]
    actual, expected = np.where(there, lanes.answers[..., 0], 0.0), np.where(there, forecast.mean[..., 0], 0.0)
    name = world.signals[0].name
    found = {
        (f"next {name}{part}", policy): _sums(mask & there, actual, expected)
        for part, policy, mask in parts.of_places()
    }
    known = lanes.left >= 0
    if forecast.leave is None or not known.any():
        return found
    left, leave = (lanes.left == 1).astype(np.float64), np.where(known, forecast.leave, 0.0)
    for part, policy, mask in parts.of_slates():
        found[f"next leaving{part}", policy] = _sums(mask & known, left, leave)
    return found


def _sums(mask: Bools, actual: Table, expected: Table) -> tuple[Table, Table, Table]:
    happened, foreseen, number = (
        (values * mask).reshape(len(mask), -1).sum(1).astype(np.float64) for values in (actual, expected, 1)
    )
    return happened, foreseen, number


class _Strata:
    """Which places (B, T, K) and slates (B, T) are in which part of the log, none of it known from their answers."""

    def __init__(self, world: World, sequences: Sequences, lanes: LoggedLanes) -> None:
        self.lanes, self.names = lanes, sequences.policies
        first = sequences.first_scored[lanes.users]
        self.policy = steps_between(sequences, lanes.users, first, first + lanes.held.sum(1)).policy
        groups = world.catalogue.groups
        self.group = groups[:, 0].numpy() if groups.numel() else np.zeros(len(world.catalogue) + 1, dtype=np.int64)
        self.taken = (lanes.answers[..., 0] > 0.5) & lanes.given[..., 0]
        self.window = world.users.shown.shape[1]

    def of_places(self) -> Iterator[tuple[str, str, Bools]]:
        """Name, policy and mask."""
        lanes = self.lanes
        everywhere = np.ones_like(self.taken)
        k = lanes.items.shape[2]
        place = np.broadcast_to(np.arange(k), everywhere.shape)
        for part, policy, mask in self.of_slates():
            yield part, policy, mask[..., None] & everywhere
        for number in range(min(k, POSITIONS)) if k > 1 else ():
            yield f", position {number + 1}", "", place == number
        if len(np.unique(self.group[:-1])) > 1:
            yield from self._ranges(", group shown {} times lately", self._lately(lanes.given[..., 0], LATELY), SHOWN)
            yield from self._ranges(", group taken {} times", self._lately(self.taken, self.window), TAKEN)
        yield ", item shown before", "", self._again()

    def of_slates(self) -> Iterator[tuple[str, str, Bools]]:
        """Name, policy and mask; the whole first."""
        held = self.lanes.held
        yield "", "", held
        for number, name in enumerate(self.names if len(self.names) > 1 else ()):
            yield "", name, held & (self.policy == number)
        step = self._step()
        for begin, end in spans(int(step.max(initial=0)) + 1):
            span = f", slate {begin + 1}" if end == begin + 1 else f", slates {begin + 1} to {end}"
            yield f"{span} of the session", "", held & (step >= begin) & (step < end)
        consumed = self.taken.sum(2).cumsum(1) - self.taken.sum(2)
        for name, policy, mask in self._ranges(", {} consumed before", consumed, CONSUMED):
            yield name, policy, held & mask

    def _step(self) -> Ints:
        """int64 (B, T): the slate's number in its session, from 0."""
        number = np.broadcast_to(np.arange(self.lanes.held.shape[1]), self.lanes.held.shape)
        started = np.where(self.lanes.begins, number, 0)
        step: Ints = number - np.maximum.accumulate(started, axis=1)
        return step

    def _lately(self, counted: Bools, window: int) -> Ints:
        """int64 (B, T, K): how many places of the item's group were counted in the last `window` slates before."""
        group = self.group[self.lanes.items]  # (B, T, K)
        b, t, _ = group.shape
        total = np.zeros((b, t + 1, int(self.group.max()) + 1), dtype=np.int32)
        rows, steps = np.arange(b)[:, None, None], np.arange(t)[None, :, None]
        np.add.at(total, (rows, steps + 1, group), counted.astype(np.int32))
        total = total.cumsum(1)
        until = np.arange(t)
        recent = total[:, until] - total[:, np.maximum(until - window, 0)]
        return np.asarray(recent[rows, steps, group], dtype=np.int64)

    def _again(self) -> Bools:
        """bool (B, T, K): the item was in an earlier slate of the user."""
        b, t, k = self.lanes.items.shape
        pairs = self.lanes.items.reshape(b, -1) + np.arange(b)[:, None] * (int(self.lanes.items.max(initial=0)) + 1)
        again = np.ones(b * t * k, dtype=bool)
        again[np.unique(pairs.ravel(), return_index=True)[1]] = False
        return again.reshape(b, t, k)

    @staticmethod
    def _ranges(name: str, count: Ints, starts: tuple[int, ...]) -> Iterator[tuple[str, str, Bools]]:
        for low, below in zip(starts, (*starts[1:], 1 << 30), strict=True):
            words = f"{low} or more" if below == 1 << 30 else f"{low}" if below == low + 1 else f"{low} to {below - 1}"
            yield name.format(words), "", (count >= low) & (count < below)


def spans(steps: int) -> list[tuple[int, int]]:
    """Steps in spans that double: 0, 1-2, 3-6, 7-14, ...

    >>> spans(5)
    [(0, 1), (1, 3), (3, 5)]
    """
    found, begin, width = [], 0, 1
    while begin < steps:
        found.append((begin, min(begin + width, steps)))
        begin, width = begin + width, 2 * width
    return found
