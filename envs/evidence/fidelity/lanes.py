"""Logged slates side by side, a lane a user: what simulated users are walked along."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.interaction.response import Past
from recloop.envs.interaction.seen import LoggedItems
from recloop.envs.logs.sequences import Floats, Ints, Sequences
from recloop.envs.logs.walk import past_before, steps_between

Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]
"""Of any type that counts."""

STRETCH = 10
"""Slates that stand for a session in a log that does not say where one ends."""


@dataclass(frozen=True)
class LoggedLanes:
    """The first T slates of B users that may be scored; single consumptions (K = 1) in a log without exposures.

    Args:
        users: int64 (B,) rows of the users table.
        items: int64 (B, T, K); N at empty places and after a user's last slate.
        answers: float32 (B, T, K, S); 0 where not given.
        given: bool (B, T, K, S).
        held: bool (B, T): there is a slate.
        session: int64 (B, T) number of the session within the user.
        left: int8 (B, T) 1 left, 0 stayed, -1 nobody knows.
        days_away: float32 (B, T) days from this slate to the next session, NaN where not known.
        exposures: whether slates were logged, so that not consuming means something.
        before: what users had lived through before; None where they start cold.
    """

    users: Ints
    items: Ints
    answers: Floats
    given: Bools
    held: Bools
    session: Ints
    left: npt.NDArray[np.int8]
    days_away: Floats
    exposures: bool
    before: Past | None = None

    @property
    def begins(self) -> Bools:
        """bool (B, T): the first slate of a later session."""
        begins = np.zeros_like(self.held)
        begins[:, 1:] = self.session[:, 1:] != self.session[:, :-1]
        return begins & self.held

    @property
    def knows_ends(self) -> bool:
        """Whether the log says of any session how it ended."""
        return bool((self.left >= 0).any())

    @property
    def has_sessions(self) -> bool:
        """Whether the log tells one session from another."""
        return self.knows_ends or bool((self.session > 0).any())

    @property
    def stretches(self) -> Ints:
        """int64 (B, T): the session of each slate, or stretches of `STRETCH` slates where nobody knows sessions."""
        if self.has_sessions:
            return self.session
        stretches: Ints = np.broadcast_to(np.arange(self.held.shape[1]) // STRETCH, self.held.shape).astype(np.int64)
        return stretches

    @property
    def absence(self) -> Floats:
        """float32 (B, T): days away before the session that this slate begins, 1 where not known, 0 elsewhere."""
        before = np.zeros(self.held.shape, dtype=np.float32)
        before[:, 1:] = np.nan_to_num(self.days_away[:, :-1], nan=1.0)
        return np.where(self.begins, before, np.float32(0))

    def shown(self, step: int, device: torch.device) -> Tensor:
        """The slates of one step, int64 (B, K)."""
        return torch.from_numpy(self.items[:, step]).to(device)


def logged_lanes(sequences: Sequences, users: Ints, steps: int) -> LoggedLanes:
    """The first `steps` slates (or consumptions) of the users who have any, in their order.

    Those that users' features tell of (`Sequences.profile_prefix`) are left out.
    """
    first = sequences.first_scored
    counts = (np.diff(sequences.step_offsets) - first)[users]
    users, counts = users[counts > 0], counts[counts > 0]
    walked = steps_between(sequences, users, first[users], first[users] + np.minimum(counts, steps))
    return LoggedLanes(
        users=users,
        items=walked.items,
        answers=walked.answers,
        given=walked.given,
        held=walked.held,
        session=walked.session,
        left=walked.left,
        days_away=walked.days_away,
        exposures=sequences.slates is not None,
    )


def past_told(sequences: Sequences, users: Ints, history: int, shown: int, twice: bool, more: int = 0) -> Past:
    """What users (B,) had consumed and been shown when the steps ended that their features tell of.

    Args:
        history, shown: H items and L slates that it holds.
        twice: whether items are consumed again; else `seen` holds those consumed.
        more: items that each may consume from here on.
    """
    first = sequences.first_scored[users]
    past = past_before(sequences, users, first, history, shown)
    if twice:
        return past
    consumed = sequences.consumed_after(users, first)
    everything, _ = sequences.last(users, int(consumed.max(initial=1)), consumed)
    lane = torch.arange(len(users)).repeat_interleave(everything.shape[1])
    consumption = LoggedItems.of(len(users), sequences.catalogue_size, lane, everything.flatten())
    return replace(past, seen=consumption.seen(more))
