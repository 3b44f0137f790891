"""Learners on a GPU: equal weights from one seed, and the numbers of the CPU. `pytest -m gpu` where there is one."""

from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch

from recloop.agents.configs import AgentConfig
from recloop.agents.learners.contract import Learner
from recloop.agents.learners.loop import Training, learn
from recloop.agents.learners.on_policy.ppo import PPO, PPOConfig
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import FitOptions
from recloop.agents.registry import POLICIES, facts_of
from recloop.envs.world.world import World

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

SMALL = NetworkConfig(hidden=16, slate_dim=4, layers=1)


def small(kind: type[Learner]) -> AgentConfig:
    soon = {"learning_starts": 200} if "learning_starts" in {f.name for f in fields(kind.config_class)} else {}
    return kind.config_class(steps=1_000, num_envs=16, validations=1, validation_episodes=8, network=SMALL, **soon)


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", [name for name in POLICIES if issubclass(facts_of(name), Learner)])
def test_one_seed_gives_equal_weights(tiny_world: World, deterministic: None, name: str) -> None:
    kind = facts_of(name)
    assert issubclass(kind, Learner)
    first, second = (learn(kind, tiny_world, FitOptions(seed=1, device="cuda"), small(kind)) for _ in range(2))
    assert all(torch.equal(value, second.tensors()[key]) for key, value in first.tensors().items())


def test_a_rollout_and_its_loss_are_those_of_the_cpu(tiny_world: World) -> None:
    config = PPOConfig(
        steps=1_000, num_envs=16, rollout=4, batch_size=64, epochs=1, validation_episodes=8, network=SMALL
    )
    losses = []
    for device in ("cpu", "cuda"):
        run = Training(PPO, tiny_world, FitOptions(seed=1, device=device), config)
        run._collect(run._observed())
        losses.append(float(run.learner.update(0.0)["train/loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_too_many_lanes_say_how_many_fit(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PPO, "update", fail)
    with pytest.raises(Exception, match=r"16 lanes do not fit into the memory of cuda.*GiB.*; try 8 lanes"):
        learn(PPO, tiny_world, FitOptions(device="cuda"), small(PPO))
