"""Buffers in place, and one scale for rewards."""

import numpy as np
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd

from recloop.agents.learners.on_policy.rollouts import RewardScale, RolloutBuffer


def test_steps_are_copied_to_their_places_and_the_first_follows_the_last() -> None:
    rollout, step = RolloutBuffer(2), torch.tensor([1.0, 2.0])
    rollout.put({"reward": step})
    assert rollout.at_last
    step += 10  # the buffer holds a copy
    rollout.put({"reward": step})
    assert rollout["reward"].tolist() == [[1, 2], [11, 12]]
    assert rollout.flat("reward").tolist() == [1, 2, 11, 12]
    held = rollout["reward"]
    rollout.put({"reward": torch.zeros(2)})
    assert held.tolist() == [[0, 0], [11, 12]]


def test_rewards_are_scaled_as_stable_baselines_scales_them() -> None:
    generator = np.random.default_rng(0)
    mine, theirs, returns = RewardScale(0.9, 4, torch.device("cpu")), RunningMeanStd(shape=()), np.zeros(4)
    for _ in range(20):
        reward, done = generator.normal(3, 2, 4).astype(np.float32), generator.random(4) < 0.3
        returns = returns * 0.9 + reward
        theirs.update(returns)
        wanted = reward / np.sqrt(theirs.var + 1e-8)
        returns[done] = 0
        found = mine(torch.from_numpy(reward), torch.from_numpy(done))
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


def test_equal_rewards_at_the_start_are_cut_instead_of_divided_by_nothing() -> None:
    scale = RewardScale(0.9, 4, torch.device("cpu"))
    assert scale(torch.full((4,), -3.0), torch.zeros(4, dtype=torch.bool)).tolist() == [-10.0] * 4


def test_a_scale_goes_on_from_its_state() -> None:
    one, two = (RewardScale(0.9, 3, torch.device("cpu")) for _ in range(2))
    done = torch.zeros(3, dtype=torch.bool)
    one(torch.tensor([1.0, 5.0, 2.0]), done)
    two.restore({name: value.clone() for name, value in one.state().items()})
    reward = torch.tensor([2.0, 0.0, 1.0])
    assert torch.equal(one(reward, done), two(reward, done))
