"""Estimators against plain loops and worked examples, and without bias where the truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.off_policy import estimators as est
from recloop.experiments.off_policy.choices import LoggedChoices
from recloop.experiments.off_policy.estimators import Sums, WeightedEpisodes, by_users, episodes_of, value_of
from recloop.experiments.off_policy.targets import PlaceShares, Target, target_of

Make = Callable[..., LoggedChoices]


def episodes(
    weight: list[list[float]], reward: list[list[float]], model: float = 0.0, places: int = 2
) -> WeightedEpisodes:
    """Each a user of their own; the model says the same of everything, and of what the target shows twice that."""
    w, r = np.array(weight), np.array(reward)
    flat, ones = np.full(w.shape, model), np.ones_like(w)
    return WeightedEpisodes(np.arange(len(w)), ones > 0, w, ones, r, flat, 2 * flat, places)


BY_HAND = episodes([[2.0, 1.0], [0.5, 4.0]], [[1.0, 0.0], [1.0, 1.0]], model=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dm", 0.4),  # 2 places of 0.2
        ("ips", (1 * 1 + 4 * 2) / 2),
        ("clipped-ips", (1 * 1 + 2**0.5 * 2) / 2),
        ("snips", (1 * 1 + 4 * 2) / (1 + 4)),
        ("pdis", ((2 * 1 + 1 * 0) + (0.5 * 1 + 4 * 1)) / 2),
        ("snpdis", (2 * 1 + 0.5 * 1) / 2.5 + (1 * 0 + 4 * 1) / 5),
        ("dr", 0.4 + ((2 * 0.9 - 1 * 0.1) + (0.5 * 0.9 + 4 * 0.9)) / 2),
    ],
)
def test_by_hand(name: str, value: float) -> None:
    assert value_of(est.ESTIMATORS[name](BY_HAND)) == pytest.approx(value)


def test_switch_leaves_out_what_is_above_its_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(est, "tau_of", lambda e: 3.0)
    assert value_of(est.switch_dr(BY_HAND)) == pytest.approx(0.4 + ((2 * 0.9 - 0.1) + 0.5 * 0.9) / 2)


def test_a_difference_by_hand() -> None:
    other = episodes([[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]])
    apart, total = np.array([0.0, 3.0]), np.array([1.0, 2.0])
    beta = np.cov(apart * total, apart, ddof=0)[0, 1] / apart.var()
    assert value_of(est.delta_ips(BY_HAND, other)) == pytest.approx(np.mean(apart * (total - beta)))
    assert value_of(est.delta_ips(BY_HAND, BY_HAND)) == 0.0


def slow_session(log: LoggedChoices, target: Target, horizon: int) -> float:
    """Per-decision importance sampling of sessions, in plain loops."""
    assert log.propensity is not None
    total, sessions = 0.0, sorted(set(log.session))
    for session in sessions:
        weight = 1.0
        for row in np.flatnonzero(log.session == session)[:horizon]:
            for place in range(log.items.shape[1]):
                if log.items[row, place] == log.catalogue_size:
                    continue
                weight *= target.chance[row, place] / log.propensity[row, place]
                total += weight * log.rewards[row, place]
    return total / len(sessions)


@pytest.mark.parametrize("horizon", [1, 2, 9])
def test_sessions_are_what_plain_loops_say(horizon: int, slates: Make) -> None:
    log = slates(sessions=40, seed=1)
    target = target_of(PlaceShares(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).double(), "shares"), log)
    fast = episodes_of(log, target, "session", horizon)
    assert value_of(est.pdis(fast)) == pytest.approx(slow_session(log, target, horizon))


def slow_bootstrap(sums: Sums, counts: np.ndarray) -> float:
    above = sum(counts[u] * sums[0][u] for u in range(len(counts)))
    below = sum(counts[u] * sums[1][u] for u in range(len(counts)))
    return float(sum(a / b for a, b in zip(above, below, strict=True)))


def test_the_bootstrap_resamples_users_together() -> None:
    sums = [by_users(which(BY_HAND), BY_HAND.user) for which in (est.ips, est.snpdis)]
    found = est.bootstrap(sums, seed=3, resamples=5)
    counts = np.random.default_rng(3).multinomial(2, [0.5, 0.5], size=5)
    slow = [[slow_bootstrap(one, row) for one in sums] for row in counts]
    np.testing.assert_allclose(found, slow)
    with pytest.raises(RecloopError, match=r"an interval over 1 user\(s\); at least 2"):
        est.bootstrap([(np.ones((1, 1)), np.ones((1, 1)))])


def test_bernstein_is_the_formula_and_wider_than_what_it_bounds() -> None:
    x = np.random.default_rng(0).random(400)
    low, high = est.bernstein((x[:, None], np.ones((400, 1))), 1.0)
    log = np.log(4 / 0.05)
    half = (2 * x.var(ddof=1) * log / 400) ** 0.5 + 7 * log / (3 * 399)
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half))
    assert high - low > 2 * 1.96 * x.std() / 20


@pytest.mark.parametrize("name", [name for name in est.ESTIMATORS if name not in ("dm", "clipped-ips", "switch-dr")])
def test_no_bias_in_a_bandit_whose_value_is_known(name: str, bandit: Make) -> None:
    """Arms earn 0.1, 0.3, 0.6; the target takes them with 0.1, 0.2, 0.7: 0.49 a slate, and the log takes others."""
    values = []
    for seed in range(40):
        log = bandit(400, seed)
        target = target_of(PlaceShares(torch.tensor([[0.1, 0.2, 0.7]]).double(), "mostly the best"), log, seed=seed)
        values.append(value_of(est.ESTIMATORS[name](episodes_of(log, target))))
    error = np.std(values, ddof=1) / len(values) ** 0.5
    assert abs(np.mean(values) - 0.49) < 3.5 * error
    assert error < 0.02
    assert np.mean([bandit(400, seed).rewards.mean() for seed in range(40)]) < 0.35  # what the log earned is no answer


def test_doubly_robust_varies_less_than_weights_alone(bandit: Make) -> None:
    def spread(estimator: Callable[[WeightedEpisodes], Sums]) -> float:
        found = []
        for seed in range(30):
            log = bandit(400, seed)
            target = target_of(PlaceShares(torch.tensor([[0.1, 0.2, 0.7]]).double(), "best"), log, seed=seed)
            found.append(value_of(estimator(episodes_of(log, target))))
        return float(np.std(found))

    assert spread(est.doubly_robust) < spread(est.ips)


def test_the_direct_model_knows_items_and_nothing_of_its_own_users(bandit: Make) -> None:
    log = bandit(4000, 0)
    target = target_of(PlaceShares(torch.tensor([[0.0, 0.0, 1.0]]).double(), "best"), log)
    predicted, expected = est.direct_model(log, target)
    assert expected == pytest.approx(np.full(expected.shape, 0.6), abs=0.06)
    assert predicted[log.items == 0] == pytest.approx(np.full((log.items == 0).sum(), 0.1), abs=0.06)
    changed = LoggedChoices(**{**vars(log), "rewards": np.where(log.user[:, None] == 7, 50.0, log.rewards)})
    of_seven = est.direct_model(changed, target)[0][log.user == 7]
    assert np.abs(of_seven - predicted[log.user == 7]).max() < 1e-6
