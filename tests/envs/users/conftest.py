"""Logs worked out by hand for fitted users, and a world small enough to hold them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.users.fitted import FitConfig

CONSUME = Signal("consume")
RATING = Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0, 4.0, 5.0), given_on="consume")
WATCHED = Signal("watched", "continuous", range=(0.0, 1.0), given_on="consume")
ITEMS, TASTES, DIM = 36, 3, 8
QUICK = FitConfig(
    epochs=8, hidden=16, rank=8, residual=4, negatives=24, history=8, lead=3, window=10, batch=32, lr=2e-2
)


@dataclass(frozen=True)
class Case:
    """A log with what was planted in it."""

    sequences: Sequences
    signals: tuple[Signal, ...]
    vectors: Tensor
    profile: Tensor
    taste: np.ndarray
    groups: Tensor

    @property
    def rows(self) -> np.ndarray:
        return np.arange(self.sequences.users)


def item_vectors() -> Tensor:
    """Item i belongs to taste i % 3, told by the first three of its eight numbers; row N is zero."""
    noise = torch.randn(ITEMS + 1, DIM, generator=torch.Generator().manual_seed(5)) * 0.3
    noise[torch.arange(ITEMS), torch.arange(ITEMS) % TASTES] += 1
    vectors = torch.nn.functional.normalize(noise, dim=1)
    vectors[-1] = 0
    return vectors


def taste_groups() -> Tensor:
    """One grouping, (N+1, 1): the items' tastes; row N holds how many there are."""
    return torch.cat([torch.arange(ITEMS) % TASTES, torch.tensor([TASTES])]).unsqueeze(1)


def consumption_log(users: int = 90, length: int = 10, seed: int = 0, again: bool = False) -> Case:
    """Nine in ten consumptions follow the user's taste, and are rated 4 or 5; the others 1 or 2."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(TASTES, size=users)
    items = []
    for user in range(users):
        weight = np.where(np.arange(ITEMS) % TASTES == taste[user], 0.9 / 12, 0.1 / 24)
        items.append(rng.choice(ITEMS, length, replace=again, p=weight / weight.sum()))
    rows = np.concatenate(items).astype(np.int64)
    liked = rows % TASTES == np.repeat(taste, length)
    rating = np.where(liked, 4, 1) + rng.integers(2, size=len(rows))
    feedback = np.stack([np.ones(len(rows)), rating], axis=1).astype(np.float32)
    sequences = Sequences(
        catalogue_size=ITEMS,
        offsets=np.arange(users + 1, dtype=np.int64) * length,
        items=rows,
        feedback=feedback,
        given=np.ones(feedback.shape, dtype=bool),
    )
    nothing = torch.zeros(ITEMS + 1, 0, dtype=torch.int64)
    return Case(sequences, (CONSUME, RATING), item_vectors(), torch.zeros(users, 2), taste, nothing)


def slate_log(
    users: int = 90,
    slates: int = 24,
    k: int = 3,
    seed: int = 0,
    cut: int | None = None,
    leave: Callable[[int, bool], float] | None = None,
    bored: float = 1.0,
) -> Case:
    """Slates of random items. At the top 8 in 10 of one's taste are consumed, 1 in 10 of others; below, half.

    An item of the taste of which the last slate held one already is consumed `bored` times as often. What was
    consumed was watched to about 0.8 where it is of one's taste, to 0.3 elsewhere. `leave` (step in the session,
    consumed) is the chance to leave; sessions are cut after `cut` slates.
    """
    rng = np.random.default_rng(seed)
    taste = rng.integers(TASTES, size=users)
    place_effect = np.array([1.0, *[0.5] * (k - 1)])
    items, answers, given, session, left, before, offsets = [], [], [], [], [], [], [0]
    for user in range(users):
        number, step, count, last = 0, 0, 0, np.zeros(0, dtype=np.int64)
        for _ in range(slates):
            slate = rng.choice(ITEMS, k, replace=False)
            chance = np.where(slate % TASTES == taste[user], 0.8, 0.1) * place_effect
            chance = chance * np.where(np.isin(slate % TASTES, last % TASTES), bored, 1.0)
            consumed = rng.random(k) < chance
            watched = np.clip(rng.normal(np.where(slate % TASTES == taste[user], 0.8, 0.3), 0.1), 0, 1) * consumed
            items.append(slate)
            answers.append(np.stack([consumed, watched], axis=1))
            given.append(np.stack([np.ones(k, dtype=bool), consumed], axis=1))
            session.append(number)
            before.append(count)
            count += int(consumed.sum())
            gone = leave is not None and rng.random() < leave(step, bool(consumed.any()))
            stopped = cut is not None and step + 1 == cut
            left.append(-1 if leave is None or (stopped and not gone) else int(gone))
            step, number = (0, number + 1) if gone or stopped else (step + 1, number)
            last = slate
        offsets.append(len(items))
    table, values = np.stack(items).astype(np.int64), np.stack(answers).astype(np.float32)
    held = np.stack(given)
    taken = values[..., 0] > 0.5
    owner = np.repeat(np.arange(users), slates)
    sequences = Sequences(
        catalogue_size=ITEMS,
        offsets=np.searchsorted(np.repeat(owner, taken.sum(1)), np.arange(users + 1)).astype(np.int64),
        items=table[taken],
        feedback=values[taken],
        given=held[taken],
        slates=Slates(
            offsets=np.array(offsets, dtype=np.int64),
            items=table,
            answers=values,
            given=held,
            consumed_before=np.array(before, dtype=np.int64),
            session=np.array(session, dtype=np.int64),
            left=np.array(left, dtype=np.int8),
        ),
    )
    return Case(sequences, (CONSUME, WATCHED), item_vectors(), torch.zeros(users, 2), taste, taste_groups())


def world_of(case: Case, history: int = 8, shown: int = 3, k: int = 3) -> Any:
    """What simulators read of a world."""
    rows = case.rows
    consumed, feedback = case.sequences.last(rows, history)
    slates, answers = case.sequences.last_slates(rows, shown, k)
    table = SimpleNamespace(
        part=torch.zeros(len(rows), dtype=torch.int64),
        profile=case.profile,
        history=consumed,
        feedback=feedback,
        shown=slates,
        answers=answers,
    )
    return SimpleNamespace(signals=case.signals, item_vectors=case.vectors, users=table, slate_size=k)


def cold(case: Case) -> Case:
    """The same users, of whom nothing is known at the start."""
    s = case.sequences
    return replace(case, sequences=Sequences.empty(s.users, s.catalogue_size, len(case.signals)))


def draws(lanes: int, step: int = 0) -> Draw:
    """Of every lane's first episode."""
    lane = torch.arange(lanes)
    return Draw.at(0, lane, torch.zeros_like(lane), torch.full_like(lane, step))


def past_at_arrival(world: Any, users: Tensor) -> Past:
    """The past of users who have just arrived."""
    table = world.users
    return Past(
        history=table.history[users],
        feedback=table.feedback[users],
        shown=table.shown[users],
        answers=table.answers[users],
        step=torch.zeros(len(users), dtype=torch.int64),
        days_away=torch.zeros(len(users)),
    )


@pytest.fixture(scope="session")
def consumption() -> Case:
    return consumption_log()
