"""The one walk along a log: users' logged steps in order, and what had happened before each.

A step is a slate, or a single consumption (K = 1) in a log without exposures. It is named by its user's row and its
number among that user's steps, from 0.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.interaction.response import Past
from recloop.envs.logs.sequences import Floats, Ints, Sequences, Slates, rows_of

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LoggedSteps:
    """Logged steps, gathered field by field when they are asked for. Shapes (...) are (Q,), or users by steps (B, T).

    Where no step is `held`, items are N, nothing is given, nobody is known to leave, days are NaN, the policy is -1;
    the other numbers are those of the first step in the same row.

    Args:
        sequences: the log.
        users: int64 (...) rows of the users table; (B, 1) where the steps are (B, T).
        step: int64 (...) steps of the same user before.
        held: bool (...): there is such a step.
    """

    sequences: Sequences
    users: Ints
    step: Ints
    held: Bools

    @cached_property
    def rows(self) -> Ints:
        """int64 (...) rows of `Slates`, or of the consumption in a log without exposures."""
        step = self.step if self.step.ndim == 1 else np.where(self.held, self.step, self.step[:, :1])
        rows: Ints = self.sequences.step_offsets[self.users] + step
        return rows

    @cached_property
    def items(self) -> Ints:
        """int64 (..., K), N at empty places."""
        slates = self.sequences.slates
        items = self.sequences.items[self.rows][..., None] if slates is None else slates.items[self.rows]
        return np.where(self.held[..., None], items, self.sequences.catalogue_size)

    @cached_property
    def given(self) -> Bools:
        """bool (..., K, S): an answer exists."""
        slates = self.sequences.slates
        given = self.sequences.given[self.rows][..., None, :] if slates is None else slates.given[self.rows]
        there: Bools = given & self.held[..., None, None]
        return there

    @cached_property
    def answers(self) -> Floats:
        """float32 (..., K, S); 0 where not given."""
        slates = self.sequences.slates
        answers = self.sequences.feedback[self.rows][..., None, :] if slates is None else slates.answers[self.rows]
        return np.where(self.given, answers, np.float32(0))

    @cached_property
    def left(self) -> npt.NDArray[np.int8]:
        """int8 (...): 1 left after the step, 0 stayed, -1 nobody knows."""
        return self._of_slates("left", np.int8(-1))

    @cached_property
    def days_away(self) -> Floats:
        """float32 (...) days from a session's last step to the next session; NaN where not known."""
        return self._of_slates("days_away", np.float32(np.nan))

    @cached_property
    def policy(self) -> Ints:
        """int64 (...) row in `Sequences.policies` of who showed it; -1 where nobody says."""
        return self._of_slates("policy", np.int64(-1))

    @cached_property
    def session(self) -> Ints:
        """int64 (...) number of the session within the user; 0 in a log without exposures."""
        slates = self.sequences.slates
        return np.zeros_like(self.rows) if slates is None else slates.session[self.rows]

    @cached_property
    def consumed_before(self) -> Ints:
        """int64 (...) items that the user had consumed before the step."""
        slates = self.sequences.slates
        return self.step if slates is None else slates.consumed_before[self.rows]

    def past(self, history: int, shown: int) -> Past:
        """What had happened before each of Q steps, as `past_before` gathers it."""
        return past_before(self.sequences, self.users, self.step, history, shown)

    def _of_slates(self, name: str, unknown: np.generic) -> npt.NDArray[Any]:
        """What the log's slates may say of steps (...), else `unknown`."""
        values = getattr(self.sequences.slates, name, None)
        if values is None:
            return np.full(self.held.shape, unknown, dtype=unknown.dtype)
        return np.where(self.held, values[self.rows], unknown)


def steps_between(sequences: Sequences, users: Ints, begin: Ints, end: Ints) -> LoggedSteps:
    """Each user's steps from `begin` up to but without `end`, all (B,), side by side (B, T); T is at least 1."""
    step = begin[:, None] + np.arange(max(int((end - begin).max(initial=1)), 1))
    return LoggedSteps(sequences, users[:, None], step, step < end[:, None])


def every_step(sequences: Sequences, users: Ints) -> LoggedSteps:
    """All steps of some users (Q,), in the order of users and time."""
    rows = rows_of(sequences.step_offsets, users)
    return steps_at(sequences, rows, np.repeat(users, np.diff(sequences.step_offsets)[users]))


def steps_at(sequences: Sequences, rows: Ints, owner: Ints | None = None) -> LoggedSteps:
    """The steps in rows (Q,) of `Slates` (of the consumption in a log without exposures), and of whom they are."""
    if owner is None:
        owner = np.searchsorted(sequences.step_offsets, rows, side="right") - 1
    return LoggedSteps(sequences, owner, rows - sequences.step_offsets[owner], np.ones(len(rows), dtype=bool))


def past_before(sequences: Sequences, users: Ints, step: Ints, history: int, shown: int) -> Past:
    """What a policy could have known before a step of each user, both (B,): `seen` is None and nobody was away.

    Pasts reach over session ends, as those of a warm start do; their `step` counts slates within the session. In a log
    without exposures nothing was shown, and every step is the first.

    Args:
        step: up to the number of the user's steps, which stands for the time after the log.
        history: H, items that were consumed last.
        shown: L, slates that were shown last, as wide as the log's.
    """
    slates = sequences.slates
    items, feedback = sequences.last(users, history, sequences.consumed_after(users, step))
    lately, answers = sequences.last_slates(users, shown, 1 if slates is None else slates.items.shape[1], step)
    number = np.zeros(len(users), dtype=np.int64)
    if slates is not None and len(slates.items):
        rows = slates.offsets[users] + step
        inside = rows < slates.offsets[users + 1]
        number = np.where(inside, steps_in_session(slates)[np.where(inside, rows, 0)], 0)
    return Past(
        history=items,
        feedback=feedback,
        shown=lately,
        answers=answers,
        step=torch.from_numpy(number),
        days_away=torch.zeros(len(users)),
    )


class ConsumedBefore:
    """Whether a user had consumed an item before a moment, by binary search over (user, item) pairs."""

    def __init__(self, sequences: Sequences, users: Ints) -> None:
        n = sequences.catalogue_size + 1  # the empty place is nobody's
        owner = np.repeat(users, sequences.lengths[users])
        rows = rows_of(sequences.offsets, users)
        keys, first = np.unique(owner * n + sequences.items[rows], return_index=True)
        self.n, self.keys = n, torch.from_numpy(keys)
        self.place = torch.from_numpy(rows[first] - sequences.offsets[owner[first]])

    def __call__(self, users: Tensor, items: Tensor, place: Tensor) -> Tensor:
        """Users (B,), items (B, ..., C) or (C,), moments (B, T) -> bool (B, T, C)."""
        if items.dim() == 1:
            items = items.expand(len(users), -1)
        wanted = users.view(-1, *[1] * (items.dim() - 1)) * self.n + items
        if len(self.keys) == 0:
            first = torch.full_like(wanted, torch.iinfo(torch.int64).max)
        else:
            at = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
            first = torch.where(self.keys[at] == wanted, self.place[at], torch.iinfo(torch.int64).max)
        first = first.unsqueeze(1) if items.dim() == 2 else first
        return first < place.unsqueeze(-1)


def session_starts(slates: Slates) -> Ints:
    """Rows of the slates that open a session, rising; a session's slates stand together."""
    owner = np.repeat(np.arange(len(slates.offsets) - 1), np.diff(slates.offsets))
    opens = np.ones(len(owner), dtype=bool)
    opens[1:] = (slates.session[1:] != slates.session[:-1]) | (owner[1:] != owner[:-1])
    return np.flatnonzero(opens).astype(np.int64)


def steps_in_session(slates: Slates) -> Ints:
    """How many slates of its session came before each slate, int64 (Q,)."""
    count = len(slates.items)
    starts = session_starts(slates)
    lengths = np.diff(np.append(starts, count))
    steps: Ints = (np.arange(count) - np.repeat(starts, lengths)).astype(np.int64)
    return steps
