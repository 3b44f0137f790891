"""Agents that read what users say."""

from pathlib import Path

import pytest
import torch

from recloop.agents.observed import Observed
from recloop.agents.policy import FitOptions
from recloop.agents.registry import load_policy, make_policy, save_policy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.build.speaking import speaking_world
from recloop.envs.simulation.actions import EncoderRetriever
from recloop.envs.simulation.core import Core
from recloop.envs.truth.worlds import truth_world
from recloop.envs.users.speaking.users import Speech
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator

HEARS = {"network.hears": "true", "num_envs": "64"}


@pytest.fixture(scope="module")
def world() -> World:
    return speaking_world(truth_world("clicks", users=100, items=80, seed=1), Speech(wishes=1.0))


def test_what_is_said_decides_what_is_retrieved(world: World) -> None:
    assert world.instruction is not None
    deaf, hearing = (EncoderRetriever(world.state_encoder, 8, wishes) for wishes in (None, world.instruction.table))
    core = Core(world, batch=60, keys=("state", "instruction"))
    observation = core.observe()
    fits = core.simulator.wishes.fits  # type: ignore[attr-defined]
    mine = fits[core.state.wish].gather(1, hearing.candidates(observation)).float().mean()
    theirs = fits[core.state.wish].gather(1, deaf.candidates(observation)).float().mean()
    assert mine > theirs + 0.2
    silent = {**observation, "instruction": torch.zeros_like(observation["instruction"])}
    assert torch.equal(hearing.candidates(silent), deaf.candidates(silent))


def test_an_agent_that_hears_is_kept_and_serves_people(world: World, tmp_path: Path) -> None:
    policy = make_policy("recloop-ppo", world, FitOptions(0, 2_000, settings=HEARS))
    assert policy.reads_instruction
    save_policy(policy, tmp_path / "p")
    again, person = load_policy(tmp_path / "p"), Observed(history=[], instruction="something about jazz")
    ids = again.recommend(person, k=5)
    assert ids == policy.recommend(person, k=5)
    assert sum(one.startswith("jazz") for one in ids) >= 3
    assert ids != again.recommend(Observed(history=[], instruction="something about chess or trains"), k=5)


@pytest.mark.slow
def test_hearing_pays(world: World) -> None:
    arena = Evaluator(world, "truth", episodes=200, users=range(100))

    def earned(**settings: str) -> float:
        return float(
            arena.run(make_policy("recloop-ppo", world, FitOptions(0, 20_000, settings=settings))).value.mean()
        )

    assert earned(**HEARS) > 1.3 * earned(num_envs="64")


def test_who_cannot_hear_says_so(world: World) -> None:
    for name in ("slate-ppo", "double-dqn", "linucb", "ppo"):
        with pytest.raises(PolicyError, match=r"cannot hear what users say; leave network.hears=false"):
            make_policy(name, world, FitOptions(0, 5_000, settings={"network.hears": "true"}))
    with pytest.raises(PolicyError, match=r"network.hears=true needs users who speak"):
        make_policy("recloop-ppo", truth_world("clicks", users=40, items=40), FitOptions(0, 2_000, settings=HEARS))
