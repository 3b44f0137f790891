"""Intervals against numbers worked out by hand, and their coverage against a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.comparison.intervals import (
    by_user,
    holm,
    improvement,
    ratio_interval,
    t_interval,
    users_needed,
)


def test_t_interval_by_hand() -> None:
    found = t_interval(np.array([2.0, 4.0, 6.0, 8.0]))  # mean 5, s = 2.582, t(3) = 3.182
    assert found.mean == 5
    assert found.half == pytest.approx(3.18245 * 2.58199 / 2, rel=1e-4)
    assert found.sign == 1


def test_a_sample_without_spread_is_a_point() -> None:
    zero, two = t_interval(np.zeros(5)), t_interval(np.full(5, 2.0))
    assert (zero.low, zero.high, zero.p, zero.sign) == (0, 0, 1, 0)
    assert (two.low, two.high, two.p, two.sign) == (2, 2, 0, 1)
    with pytest.raises(RecloopError, match=r"1 value\(s\); at least 2"):
        t_interval(np.array([1.0]))


def test_t_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [(i := t_interval(rng.normal(3, 2, 12))).low <= 3 <= i.high for _ in range(2000)]
    assert 0.93 < np.mean(held) < 0.97


def test_lanes_of_a_user_count_once() -> None:
    values, users = np.array([1.0, 3.0, 10.0]), np.array([5, 5, 2])
    assert by_user(values, users).tolist() == [10.0, 2.0]


def test_improvement_counts_ties_half() -> None:
    found = improvement(np.array([1.0, 2.0, 0.0, -1.0]))
    assert found.mean == pytest.approx((2 + 0.5) / 4)
    everyone = improvement(np.ones(10))
    assert everyone.mean == 1
    assert everyone.low == pytest.approx(1 / (1 + 1.959964**2 / 10), rel=1e-4), "Wilson's lower end for 10 of 10"
    assert everyone.high == pytest.approx(1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_never_helps(p: list[float]) -> None:
    corrected = holm(p)
    assert all(c >= raw for c, raw in zip(corrected, p, strict=True))
    assert all(c <= 1 for c in corrected)
    order = np.argsort(p, kind="stable")
    assert all(np.diff(np.array(corrected)[order]) >= 0)


def test_ratio_interval_covers_and_says_when_nothing_is_known() -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(500):
        below = rng.normal(4, 2, 60)
        above = 0.5 * below + rng.normal(0, 1, 60)
        found = ratio_interval(above, below)
        held.append(found.low <= 0.5 <= found.high)
    assert 0.92 < np.mean(held) < 0.98
    nothing = ratio_interval(rng.normal(0, 1, 20), rng.normal(0, 1, 20))
    assert (nothing.low, nothing.high) == (-math.inf, math.inf)


def test_users_needed_by_hand() -> None:
    differences = np.array([0.0, 2.0])  # mean 1, s = sqrt(2); (1.96 + 0.8416)^2 * 2 = 15.7
    assert users_needed(differences, pairs=1) == 16
    assert users_needed(differences, pairs=10) > 16  # type: ignore[operator]
    assert users_needed(np.array([-1.0, 1.0]), pairs=1) is None
