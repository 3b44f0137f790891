"""Tiny logs whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from recloop.experiments.off_policy.choices import Floats, LoggedChoices

ARMS = np.array([0.1, 0.3, 0.6])
LOGGED = np.array([0.5, 0.3, 0.2])


def _bandit(rows: int, seed: int, logged: Floats = LOGGED) -> LoggedChoices:
    """One of three arms a row, each row a user."""
    rng = np.random.default_rng(seed)
    arm = rng.choice(3, size=rows, p=logged)
    click = (rng.random(rows) < ARMS[arm]).astype(float)
    return _choices(arm[:, None], click[:, None], logged[arm][:, None], np.arange(rows), np.arange(rows), 3)


def _slates(sessions: int, seed: int) -> LoggedChoices:
    """Sessions of one to four slates of two of four items, drawn alike without repeats; some second places empty."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 5, sessions)
    session = np.repeat(np.arange(sessions), length)
    items = np.argsort(rng.random((len(session), 4)), axis=1)[:, :2]
    items[rng.random(len(items)) < 0.2, 1] = 4
    reward = rng.random(items.shape).round(2) * (items < 4)
    chance = np.where(items < 4, np.array([1 / 4, 1 / 3]), np.nan)
    return _choices(items, reward, chance, session // 2, session, 4)


def _choices(
    items: np.ndarray,
    rewards: np.ndarray,
    propensity: np.ndarray | None,
    user: np.ndarray,
    session: np.ndarray,
    n: int,
    context: np.ndarray | None = None,
) -> LoggedChoices:
    """Logged choices with everything admissible."""
    first = np.zeros(len(items), dtype=np.int64)
    return LoggedChoices(
        name="tiny",
        items=items.astype(np.int64),
        rewards=rewards,
        propensity=propensity,
        user=user.astype(np.int64),
        session=session.astype(np.int64),
        observation={
            "action_mask": torch.ones(len(items), n, dtype=torch.bool),
            "first_place": torch.from_numpy(first),
        },
        first=first,
        context=np.zeros((len(items), 0)) if context is None else context,
    )


@pytest.fixture
def bandit() -> Callable[..., LoggedChoices]:
    """See `_bandit`."""
    return _bandit


@pytest.fixture
def slates() -> Callable[..., LoggedChoices]:
    """See `_slates`."""
    return _slates


@pytest.fixture
def choices() -> Callable[..., LoggedChoices]:
    """See `_choices`."""
    return _choices
