"""Kendall's tau and claims about pairs, against hand-made values."""

import numpy as np
import pytest
from scipy import stats

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.comparison.pairwise import ClaimCount, ClaimRules, count, pair_claims
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


POLICIES = ("good", "fair", "poor")


def test_a_claim_needs_every_simulator() -> None:
    simulators = np.stack([noisy([3.0, 2.0, 1.0], s) for s in range(4)])
    claims = pair_claims(POLICIES, simulators, [False] * 3, truth=noisy([3.0, 2.0, 1.0], 9))
    assert [(c.better, c.worse, c.made, c.truth) for c in claims] == [
        ("good", "fair", True, 1),
        ("good", "poor", True, 1),
        ("fair", "poor", True, 1),
    ]
    assert count(claims) == ClaimCount(pairs=3, made=3, right=3)
    simulators[3] = noisy([3.0, 0.5, 1.0], 3)  # the judge turns fair and poor round
    claims = pair_claims(POLICIES, simulators, [False] * 3)
    assert [c.made for c in claims] == [True, True, False]
    assert claims[2].against == "1 of 4 simulators say the opposite"
    assert claims[0].truth is None


def test_a_difference_within_the_margin_is_not_claimed() -> None:
    simulators = np.stack([noisy([10.4, 10.0], s) for s in range(3)])
    assert not pair_claims(("a", "b"), simulators, [False] * 2)[0].made  # 4 % of the larger value
    assert pair_claims(("a", "b"), simulators, [False] * 2, rules=ClaimRules(margin=0.03))[0].made
    apart = np.random.default_rng(0).normal(size=(3, 2, Users)) + np.array([2.0, 1.9])[None, :, None]
    rules = ClaimRules(margin=0.0)
    assert not pair_claims(("a", "b"), apart, [False] * 2, rules=rules)[0].made  # 0.1 with an error of 0.07


def test_flags_and_gates_forbid_claims() -> None:
    simulators = np.stack([noisy([3.0, 2.0, 1.0], s) for s in range(2)])
    claims = pair_claims(POLICIES, simulators, [True, False, False])
    assert [c.made for c in claims] == [False, False, True]
    assert "good beyond the support" in claims[0].against
    claims = pair_claims(POLICIES, simulators, [False] * 3, gates_failed=["replay"])
    assert not any(c.made for c in claims)


def test_wrong_claims_and_ties_in_the_truth_are_counted_apart() -> None:
    simulators = np.stack([noisy([3.0, 2.0, 1.0], s) for s in range(2)])
    generator = np.random.default_rng(5)
    truth = generator.normal(size=(3, Users))
    truth[0] += 0.05  # good and fair tie, poor is best by far
    truth[2] += 5
    claims = pair_claims(POLICIES, simulators, [False] * 3, truth=truth)
    assert [c.truth for c in claims] == [0, -1, -1]
    assert count(claims) == ClaimCount(pairs=2, made=2, right=0, on_ties=1)
    assert "opposite" in claims[1].text
