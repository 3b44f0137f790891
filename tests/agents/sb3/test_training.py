"""Every agent learns the obvious: items of the half that a user's profile names."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import VALIDATION_TAG, FitOptions
from recloop.agents.registry import facts_of, names_of
from recloop.agents.sb3.configs import SB3Config
from recloop.agents.sb3.training import SB3Agent
from recloop.agents.settings import with_settings
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.reward import Outcome, WeightedReward
from recloop.envs.world.world import World

SMALL = NetworkConfig(hidden=32, slate_dim=4, layers=1, prior=0.0, state_gain=3.0)
QUICK: dict[str, dict[str, Any]] = {
    "ppo": {"steps": 4_000, "learning_rate": 3e-3},
    "ppo-proto": {"steps": 6_000, "learning_rate": 3e-3},
    "dqn": {"steps": 4_000, "learning_rate": 3e-3, "learning_starts": 500, "target_update_interval": 200},
    "maskable-ppo": {"steps": 8_000, "learning_rate": 3e-3},
}


@pytest.fixture(scope="module")
def obvious(tiny_world: World) -> World:
    """Three clicks a slate for four slates are possible: 12. A slate of random items gets half of that."""
    return replace(tiny_world, consumes_twice=True, reward=WeightedReward({"click": 1.0}))


def kind_of(name: str) -> type[SB3Agent]:
    kind = facts_of(name)
    assert issubclass(kind, SB3Agent)
    return kind


def quick(name: str, **changes: Any) -> SB3Config:
    shared = {"num_envs": 16, "validations": 2, "validation_episodes": 12, "network": SMALL}
    return kind_of(name).config_class(**{**shared, **QUICK[name], **changes})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(QUICK))
def test_it_learns_the_obvious_world(obvious: World, name: str) -> None:
    curve: list[tuple[float, int]] = []

    def log(tag: str, value: float, step: int) -> None:
        if tag == VALIDATION_TAG:
            curve.append((value, step))

    policy = kind_of(name).fit(obvious, FitOptions(seed=0, log=log), quick(name))
    reached = PolicyValidation(obvious, 100, "cpu").mean_return(policy)
    assert reached > 10.5, curve
    assert max(value for value, _ in curve) > curve[0][0], "the first validation is before any training"


@pytest.mark.parametrize("name", sorted(QUICK))
def test_trained_twice_from_one_seed_gives_equal_weights_and_touches_no_global_generator(
    obvious: World, name: str
) -> None:
    config = quick(name, steps=600, **({"learning_starts": 100} if name == "dqn" else {}))
    torch.manual_seed(11)
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    first = kind_of(name).fit(obvious, FitOptions(seed=3), config)
    after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())  # noqa: NPY002
    assert torch.equal(states[0], after[0])
    assert (states[1] == after[1]).all()
    assert states[2] == after[2]
    torch.manual_seed(12)  # what happens outside does not matter
    second = kind_of(name).fit(obvious, FitOptions(seed=3), config)
    other = kind_of(name).fit(obvious, FitOptions(seed=4), config)
    assert all(torch.equal(value, second.tensors()[key]) for key, value in first.tensors().items())
    assert any(not torch.equal(value, other.tensors()[key]) for key, value in first.tensors().items())


def test_curves_go_to_the_log_under_the_tags_of_sb3(obvious: World) -> None:
    seen: dict[str, int] = {}

    def log(tag: str, value: float, step: int) -> None:
        assert isinstance(value, float)
        seen[tag] = step

    kind_of("ppo").fit(obvious, FitOptions(steps=800, log=log), quick("ppo"))
    wanted = {"rollout/ep_rew_mean", "train/value_loss", "train/approx_kl", "train/entropy_loss", VALIDATION_TAG}
    assert wanted <= set(seen)
    assert seen[VALIDATION_TAG] >= 800


def test_reported_returns_are_those_of_the_world_although_rewards_are_scaled(obvious: World) -> None:
    returns: list[float] = []

    def log(tag: str, value: float, step: int) -> None:
        if tag == "rollout/ep_rew_mean":
            returns.append(value)

    kind_of("ppo").fit(obvious, FitOptions(steps=800, log=log), quick("ppo"))
    assert 3 < returns[0] < 12


def test_the_best_weights_of_training_are_kept(obvious: World) -> None:
    """A learning rate that ruins the policy: what comes back is as good as the best validation."""
    curve: list[float] = []

    def log(tag: str, value: float, step: int) -> None:
        if tag == VALIDATION_TAG:
            curve.append(value)

    config = quick("ppo", steps=1500, validations=5, learning_rate=1.0, max_grad_norm=1e9)
    policy = kind_of("ppo").fit(obvious, FitOptions(log=log), config)
    assert PolicyValidation(obvious, config.validation_episodes, "cpu").mean_return(policy) == pytest.approx(max(curve))


def test_a_reward_that_overflows_the_loss_stops_training_with_one_line(obvious: World) -> None:
    def huge(outcome: Outcome) -> torch.Tensor:
        return torch.full((len(outcome.slate),), 1e30)

    world = replace(obvious, reward=huge)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"the loss became (inf|nan).*learning_rate"):
        kind_of("ppo").fit(world, FitOptions(), quick("ppo", scale_rewards=False))


def test_foreign_configs_are_named(obvious: World) -> None:
    with pytest.raises(PolicyError, match="ppo takes a ppoConfig, not a dqnConfig"):
        kind_of("ppo").fit(obvious, FitOptions(), kind_of("dqn").config_class())
    with pytest.raises(PolicyError, match="gamma=2"):
        kind_of("ppo").config_class(gamma=2)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_configs_round_trip_through_json(name: str) -> None:
    config = quick(name)
    assert with_settings(type(config)(), json.loads(json.dumps(config.as_dict())), name) == config


def test_every_agent_is_under_test() -> None:
    assert {name for name in names_of(trains="loop") if issubclass(facts_of(name), SB3Agent)} == set(QUICK)


def test_serving_a_policy_does_not_import_stable_baselines() -> None:
    code = (
        "import sys; from recloop.agents.networks.policy import ActorPolicy; print('stable_baselines3' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "False"
