"""A log as arrays: every user's consumption and slates in order, by row numbers. What all fitting reads."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.described import Described

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Slates(Described):
    """What was shown, in order, Q slates over all users.

    Args:
        offsets: int64 (U+1,); user u's slates are rows offsets[u] to offsets[u+1].
        items: int64 (Q, K) item rows in order of position; N where a slate is shorter than K.
        answers: float32 (Q, K, S); 0 where not given.
        given: bool (Q, K, S): where an answer exists.
        consumed_before: int64 (Q,): how many items the user had consumed before this slate.
        session: int64 (Q,): the session's number within the user, from 0.
        left: int8 (Q,): 1 where the user left after this slate, 0 where they stayed, -1 where nobody knows.
        days_away: float32 (Q,): days from a session's last slate to the user's next session, NaN elsewhere; None in a
            log without behavioural times.
        propensity: float32 (Q, K): probability with which the logging policy put the item there, NaN where it does
            not say; None where no row says.
        policy: int64 (Q,): row in `Sequences.policies` of who showed the slate; None where the log does not say.
    """

    offsets: Ints
    items: Ints
    answers: Floats
    given: npt.NDArray[np.bool_]
    consumed_before: Ints
    session: Ints
    left: npt.NDArray[np.int8]
    days_away: Floats | None = None
    propensity: Floats | None = None
    policy: Ints | None = None

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is there, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Sequences(Described):
    """Every user's consumption in order, oldest first, and the slates where the log has them.

    Args:
        catalogue_size: N; also the row that stands for an empty place.
        offsets: int64 (U+1,); user u's consumption is rows offsets[u] to offsets[u+1].
        items: int64 (M,) item rows.
        feedback: float32 (M, S) the signals of each consumption; 0 where not given.
        given: bool (M, S) where a signal exists.
        slates: what was shown, or None in a log without exposures.
        policies: names of the logging policies, where the log says who showed what.
        profile_prefix: int64 (U,) first steps of each user (slates, or consumptions in a log without exposures) that
            the users' features tell of; None where features tell of none. No fit and no measure scores these steps:
            their answers are known from the features.
        times: float64 (M,) seconds at which each item was consumed, or typed in; None in a log without times, and in
            worlds built before they were kept.
    """

    catalogue_size: int
    offsets: Ints
    items: Ints
    feedback: Floats
    given: npt.NDArray[np.bool_]
    slates: Slates | None = None
    policies: tuple[str, ...] = ()
    profile_prefix: Ints | None = None
    times: npt.NDArray[np.float64] | None = None

    @classmethod
    def empty(cls, users: int, catalogue_size: int, signals: int) -> "Sequences":
        """Users who did nothing, in a catalogue of N items whose consumption would carry S signals."""
        return cls(
            catalogue_size=catalogue_size,
            offsets=np.zeros(users + 1, dtype=np.int64),
            items=np.zeros(0, dtype=np.int64),
            feedback=np.zeros((0, signals), dtype=np.float32),
            given=np.zeros((0, signals), dtype=bool),
        )

    @property
    def users(self) -> int:
        """Number of users, U."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """How many items each user consumed, (U,)."""
        return np.diff(self.offsets)

    @property
    def step_offsets(self) -> Ints:
        """int64 (U+1,) of the users' slates, or of their consumption in a log without exposures."""
        return self.offsets if self.slates is None else self.slates.offsets

    @property
    def first_scored(self) -> Ints:
        """The step of each user from which fits and measures score, int64 (U,): 0 where features tell of none."""
        return np.zeros(self.users, dtype=np.int64) if self.profile_prefix is None else self.profile_prefix

    def consumed_after(self, users: Ints, steps: Ints) -> Ints:
        """How many items each user had consumed after their first `steps`, both (B,), int64 (B,)."""
        lengths = self.lengths[users]
        if self.slates is None or not len(self.slates.items):
            return np.minimum(steps, lengths)
        rows = self.slates.offsets[users] + steps
        before = self.slates.consumed_before[np.minimum(rows, len(self.slates.items) - 1)]
        consumed: Ints = np.where(rows < self.slates.offsets[users + 1], before, lengths)
        return consumed

    def of(self, user: int) -> tuple[Ints, Floats]:
        """One user's items (M_u,) and feedback (M_u, S)."""
        rows = slice(self.offsets[user], self.offsets[user + 1])
        return self.items[rows], self.feedback[rows]

    def subset(self, users: Ints) -> "Sequences":
        """The given users alone, renumbered 0 to len(users)-1 in their order."""
        rows = rows_of(self.offsets, users)
        slates = None
        if self.slates is not None:
            shown = rows_of(self.slates.offsets, users)
            arrays = {name: value[shown] for name, value in self.slates.arrays().items() if name != "offsets"}
            slates = Slates(offsets=_offsets(np.diff(self.slates.offsets)[users]), **arrays)
        return replace(
            self,
            offsets=_offsets(self.lengths[users]),
            items=self.items[rows],
            feedback=self.feedback[rows],
            given=self.given[rows],
            slates=slates,
            profile_prefix=None if self.profile_prefix is None else self.profile_prefix[users],
            times=None if self.times is None else self.times[rows],
        )

    def popularity(self, users: Ints) -> Floats:
        """How often the given users consumed each item, (N,)."""
        counts = np.bincount(self.items[rows_of(self.offsets, users)], minlength=self.catalogue_size)
        return counts[: self.catalogue_size].astype(np.float32)

    def repeat_rate(self, users: Ints) -> float:
        """Share of the given users' consumptions that are of an item they had consumed before."""
        owner = np.repeat(np.arange(len(users)), self.lengths[users])
        pairs = owner * (self.catalogue_size + 1) + self.items[rows_of(self.offsets, users)]
        return 1.0 - len(np.unique(pairs)) / max(len(pairs), 1)

    def last(self, users: Ints, length: int, ends: Ints | None = None) -> tuple[Tensor, Tensor]:
        """The newest `length` consumptions of each user: items (B, length) int64, feedback (B, length, S).

        Newest last; places before a user's first consumption hold N and zero feedback. `ends` (B,) counts how
        many of a user's consumptions to look at (default: all), so that a moment in the past can be rebuilt.
        """
        counts = self.lengths[users] if ends is None else np.minimum(ends, self.lengths[users])
        back = np.arange(length, 0, -1, dtype=np.int64)  # (length,)
        place = counts[:, None] - back  # (B, length), negative before the first
        rows = np.where(place >= 0, self.offsets[users][:, None] + place, 0)
        empty = place < 0
        items = np.where(empty, self.catalogue_size, self.items[rows] if len(self.items) else rows)
        feedback = np.zeros((*rows.shape, self.feedback.shape[1]), dtype=np.float32)
        if len(self.items):
            feedback = np.where(empty[..., None], np.float32(0), self.feedback[rows])
        return torch.from_numpy(items), torch.from_numpy(feedback)

    def last_slates(self, users: Ints, length: int, k: int, ends: Ints | None = None) -> tuple[Tensor, Tensor]:
        """The newest `length` slates of each user: items (B, length, k), answers (B, length, k, S).

        Newest last, empty places N; slates longer than k lose their lower positions. All empty where the log
        has no exposures. `ends` (B,) counts how many of a user's slates to look at; default all.
        """
        shape = (len(users), length, k)
        items = np.full(shape, self.catalogue_size, dtype=np.int64)
        answers = np.zeros((*shape, self.feedback.shape[1]), dtype=np.float32)
        if self.slates is not None and len(self.slates.items):
            width = min(k, self.slates.items.shape[1])
            counts = np.diff(self.slates.offsets)[users] if ends is None else ends
            place = counts[:, None] - np.arange(length, 0, -1)  # (B, length)
            rows = np.where(place >= 0, self.slates.offsets[users][:, None] + place, 0)
            held = (place >= 0)[..., None]
            items[..., :width] = np.where(held, self.slates.items[rows][..., :width], self.catalogue_size)
            answers[..., :width, :] = np.where(held[..., None], self.slates.answers[rows][..., :width, :], 0)
        return torch.from_numpy(items), torch.from_numpy(answers)


def _offsets(counts: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def rows_of(offsets: Ints, users: Ints) -> Ints:
    """The rows that belong to `users`, concatenated in their order.

    >>> rows_of(np.array([0, 2, 5]), np.array([1, 0])).tolist()
    [2, 3, 4, 0, 1]
    """
    counts = offsets[users + 1] - offsets[users]
    starts = np.repeat(offsets[users], counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows: Ints = starts + within
    return rows
