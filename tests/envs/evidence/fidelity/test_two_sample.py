"""The two-sample test: sides of one law cannot be told apart, a planted difference can."""

import numpy as np
import pytest

from recloop.envs.evidence.fidelity.features import session_features
from recloop.envs.evidence.fidelity.lanes import logged_lanes
from recloop.envs.evidence.fidelity.measure import AUC_LIMIT, _context
from recloop.envs.evidence.fidelity.replaying import simulate
from recloop.envs.evidence.fidelity.sessions import open_loop
from recloop.envs.evidence.fidelity.two_sample import bag_size, two_sample_test
from tests.envs.evidence.fidelity.conftest import Case


def sample(shift: float, seed: int, sessions: int = 600) -> float:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, sessions, 12))
    second[:, 3] += shift
    lane = np.arange(sessions) // 4
    names = tuple(f"feature {i}" for i in range(12))
    found = two_sample_test(first, second, lane, lane, names, 20, seed)
    if shift:
        assert found.told_by[0][0] == "feature 3"
    return found.auc


def test_bags_hold_three_hundred_clicks_where_there_are_enough_sessions() -> None:
    assert bag_size(5.0, 2000) == 60
    assert bag_size(5.0, 80) == 10
    assert bag_size(0.0, 8) == 1


def test_noise_is_not_told_from_noise() -> None:
    assert all(sample(0.0, seed) <= AUC_LIMIT for seed in range(20))


def test_a_shift_by_three_quarters_of_a_deviation_is_found() -> None:
    assert all(sample(0.75, seed) >= 0.9 for seed in range(5))


@pytest.mark.slow
def test_truth_against_truth_passes_in_95_of_100_draws(large: Case) -> None:
    world, truth = large.world, large.truth
    measured = world.users.rows("evaluate").numpy()
    others = world.users.rows("train").numpy()
    lanes = logged_lanes(world.sequences, measured, 60)
    truth.prepare(world, "cpu")
    context = _context(world, world.sequences, others, lanes)
    passed = 0
    for seed in range(100):
        runs = (simulate(world, truth, lanes, seed), simulate(world, truth, lanes, seed + 1000))
        logged, simulated = open_loop(lanes, *runs, len(world.catalogue))
        first, second, names = session_features(logged, simulated, context)
        bag = bag_size(float(logged.clicks.sum()) / len(logged), len(simulated))
        passed += two_sample_test(first, second, logged.lane, simulated.lane, names, bag, seed).auc <= AUC_LIMIT
    assert passed >= 95
