"""Intervals against numbers worked out by hand, and their coverage against a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.comparison.intervals import (
    by_user,
    crossed_interval,
    holm,
    improvement,
    looks_between,
    ratio_interval,
    seeds_needed,
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


def test_a_crossed_interval_adds_up_those_over_users_and_over_trainings() -> None:
    sample = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])  # over users 2, 3, 5.5; over trainings 2, 5
    users, seeds = t_interval(sample.mean(0)), t_interval(sample.mean(1))
    found = crossed_interval(sample)
    assert found.mean == pytest.approx(3.5)
    assert found.half == pytest.approx(math.hypot(users.half, seeds.half))
    alone = np.repeat([[2.0], [5.0], [3.0]], 4, axis=1)  # users alike
    assert crossed_interval(alone).half == pytest.approx(t_interval(alone[:, 0]).half)
    assert crossed_interval(alone).p == pytest.approx(t_interval(alone[:, 0]).p, rel=1e-6)
    assert crossed_interval(sample[:1]) == t_interval(sample[0])
    assert crossed_interval(np.zeros((3, 4))).p == 1


@pytest.mark.parametrize("of_seeds", [0.0, 0.3, 1.0, 5.0])
def test_a_crossed_interval_covers_whatever_varies_more(of_seeds: float) -> None:
    rng = np.random.default_rng(2)
    missed = []
    for _ in range(600):
        parts = rng.normal(size=(3, 1)) * of_seeds, rng.normal(size=30) * 3, rng.normal(size=(3, 30))
        found = crossed_interval(parts[0] + parts[1] + parts[2])
        missed.append(found.p < 0.05)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert np.mean(missed) < 0.07


def test_seeds_needed_grow_with_their_spread_and_end_where_users_lack() -> None:
    rng = np.random.default_rng(3)
    users, seeds = rng.normal(size=200), np.array([[-1.0], [0.0], [1.0]])
    needed = [seeds_needed(1.0 + spread * seeds + 0.1 * users, pairs=6) for spread in (0.01, 1.0, 3.0)]
    assert needed[0] == 2
    assert needed[0] < needed[1] < needed[2]  # type: ignore[operator]
    assert seeds_needed(0.1 + seeds + 5 * users, pairs=6) is None
    assert seeds_needed(np.zeros((3, 5)), pairs=1) is None


def test_what_is_needed_is_not_guessed_from_what_is_no_number() -> None:
    for needed in (users_needed, seeds_needed):
        with pytest.raises(RecloopError, match="a mean difference of nan: how many more"):
            needed(np.full((3, 4), math.nan), pairs=1)
    assert holm([math.nan, 0.01, 0.03]) == pytest.approx([1.0, 0.03, 0.06])


def test_looks_rise_by_half_to_the_most() -> None:
    assert looks_between(3, 10) == (3, 5, 8, 10)
    assert looks_between(4, 4) == (4,)
