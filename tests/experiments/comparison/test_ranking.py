"""Kendall's tau against hand-made values."""

import numpy as np
import pytest
from scipy import stats

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.comparison.ranking import tau_over_users, taus

Users = 400


def noisy(means: list[float], seed: int, spread: float = 1.0) -> np.ndarray:
    """(P, U) values around means; users share their luck, so that differences are nearly free of noise."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=Users) * spread
    return np.array(means)[:, None] + shared + 0.05 * generator.normal(size=(len(means), Users))


def test_tau_is_that_of_scipy_ties_included() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 5, (20, 9)).astype(float), generator.integers(0, 5, (20, 9)).astype(float)
    wanted = [stats.kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
    assert taus(one, other) == pytest.approx(wanted)
    assert np.isnan(taus(np.ones((1, 3)), np.array([[1.0, 2.0, 3.0]]))).all()


def test_an_order_that_users_do_not_settle_has_a_wide_interval() -> None:
    clear = tau_over_users(noisy([1, 2, 3, 4], 0), noisy([1, 2, 3, 5], 1))
    assert (clear.mean, clear.low, clear.high) == (1.0, 1.0, 1.0)
    means, generator = np.linspace(0, 0.5, 6)[:, None], np.random.default_rng(2)
    doubtful = tau_over_users(means + generator.normal(size=(6, 40)), means + generator.normal(size=(6, 40)))
    assert doubtful.high - doubtful.low > 0.3
    assert doubtful.low <= doubtful.mean <= doubtful.high


def test_orders_that_do_not_pair_are_refused() -> None:
    with pytest.raises(RecloopError, match="do not pair"):
        tau_over_users(np.ones((3, 5)), np.ones((3, 6)))
    with pytest.raises(RecloopError, match="at least 2"):
        tau_over_users(np.ones((1, 5)), np.ones((1, 5)))
