"""Logged steps as a simulation would have met them: the past before a slate, and the slate."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloop.envs.interaction.response import Past
from recloop.envs.logs.sequences import Ints, Sequences, Slates


@dataclass(frozen=True)
class Moments:
    """Q logged steps.

    Args:
        owner: int64 (Q,) row of the user.
        past: what a policy could have known before each slate; `seen` is None.
        slate: int64 (Q, K) what was shown; N at empty places.
        answers: float32 (Q, K, S); 0 where not given.
        given: bool (Q, K, S).
        left: int8 (Q,) 1 left, 0 stayed, -1 nobody knows.
    """

    owner: Tensor
    past: Past
    slate: Tensor
    answers: Tensor
    given: Tensor
    left: Tensor


def moments_at(sequences: Sequences, slates: Slates, rows: Ints, history: int, shown: int) -> Moments:
    """The logged steps in the given rows (Q,) of `slates`, with pasts of `history` items and `shown` slates.

    Pasts reach over session ends, as those of a warm start do; their `step` counts slates within the session.
    """
    owner = slate_owners(slates)[rows]
    past_items, feedback = sequences.last(owner, history, slates.consumed_before[rows])
    place = rows[:, None] - np.arange(shown, 0, -1)  # (Q, L)
    held = place >= slates.offsets[owner][:, None]
    place = np.where(held, place, 0)
    past = Past(
        history=past_items,
        feedback=feedback,
        shown=torch.from_numpy(np.where(held[..., None], slates.items[place], sequences.catalogue_size)),
        answers=torch.from_numpy(np.where(held[..., None, None], slates.answers[place], np.float32(0))),
        step=torch.from_numpy(steps_in_session(slates)[rows]),
        days_away=torch.zeros(len(rows)),
    )
    return Moments(
        owner=torch.from_numpy(owner),
        past=past,
        slate=torch.from_numpy(slates.items[rows]),
        answers=torch.from_numpy(slates.answers[rows]),
        given=torch.from_numpy(slates.given[rows]),
        left=torch.from_numpy(slates.left[rows]),
    )


def slate_owners(slates: Slates) -> Ints:
    """Row of the user of every slate, int64 (Q,)."""
    owners: Ints = np.repeat(np.arange(len(slates.offsets) - 1), np.diff(slates.offsets)).astype(np.int64)
    return owners


def session_starts(slates: Slates) -> Ints:
    """Rows of the slates that open a session, rising; a session's slates stand together."""
    owner = slate_owners(slates)
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
