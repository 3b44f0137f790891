"""What every learner of ours promises, asked of every one that is registered."""

import importlib
import random
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents.configs import AgentConfig
from recloop.agents.learners.contract import Learner
from recloop.agents.learners.loop import learn
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.observed import Observed
from recloop.agents.policy import VALIDATION_TAG, FitOptions, Policy
from recloop.agents.registry import POLICIES, facts_of, load_policy, make_policy, save_policy
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.storage import read_tensors
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response, State
from recloop.envs.interaction.reward import Outcome, WeightedReward
from recloop.envs.simulation.core import Core
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World


class Strict(WeightedReward):
    """Stands for no place that had to be struck."""

    def __call__(self, outcome: Outcome) -> Tensor:
        assert int(outcome.invalid.sum()) == 0
        return super().__call__(outcome)


NAMES = sorted(name for name in POLICIES if issubclass(facts_of(name), Learner))
SHARED = {
    "num_envs": 16,
    "validations": 2,
    "validation_episodes": 12,
    "learning_rate": 3e-3,
    "network": NetworkConfig(hidden=32, slate_dim=4, layers=1, prior=0.0, state_gain=3.0),
}
QUICK: dict[str, dict[str, Any]] = {
    "recloop-ppo": {"steps": 6_000, "rollout": 8, "batch_size": 32},
    "slate-ppo": {"steps": 4_000, "batch_size": 32},
    "slate-lookahead": {"steps": 2_000, "batch_size": 32},
    "a2c": {"steps": 12_000, "rollout": 4},
    "double-dqn": {"steps": 3_000, "learning_starts": 500, "batch_size": 128},
    "slateq": {"steps": 3_000, "learning_starts": 500, "batch_size": 128},
    "slate-dqn": {"steps": 3_000, "learning_starts": 500, "batch_size": 128, "updates": 2},
    "ddpg": {"steps": 4_000, "learning_starts": 500, "batch_size": 128, "actor_starts": 50},
    "td3": {"steps": 4_000, "learning_starts": 500, "batch_size": 128, "actor_starts": 50},
    "sac": {"steps": 4_000, "learning_starts": 500, "batch_size": 128, "actor_starts": 50},
    "hac": {"steps": 4_000, "learning_starts": 500, "batch_size": 128, "actor_starts": 50},
    "epsilon-greedy": {"steps": 2_000},
    "linucb": {"steps": 2_000},
    "linear-thompson": {"steps": 2_000},
    "neural-thompson": {"steps": 2_000},
}
"""Settings with which a learner learns the obvious in seconds; those of `SHARED` where nothing is said."""

SHORT: dict[str, dict[str, Any]] = {
    "recloop-ppo": {"batch_size": 64},
    "slate-ppo": {"batch_size": 64},
    "slate-lookahead": {"batch_size": 64},
    "double-dqn": {"learning_starts": 32, "batch_size": 32, "buffer_size": 4_000},
    "slateq": {"learning_starts": 32, "batch_size": 32, "buffer_size": 4_000},
    "slate-dqn": {"learning_starts": 32, "batch_size": 32, "buffer_size": 4_000, "updates": 2, "train_every": 4},
    "ddpg": {"learning_starts": 32, "batch_size": 32, "buffer_size": 4_000, "updates": 2, "actor_starts": 0},
    "td3": {"learning_starts": 32, "batch_size": 32, "buffer_size": 4_000, "updates": 2, "actor_starts": 0},
    "sac": {"learning_starts": 32, "batch_size": 32, "buffer_size": 4_000, "updates": 2, "actor_starts": 0},
    "hac": {"learning_starts": 32, "batch_size": 32, "buffer_size": 4_000, "updates": 2, "actor_starts": 0},
    "neural-thompson": {"refit_every": 2, "updates": 2, "batch_size": 32, "buffer_size": 4_000},
}
"""What a learner needs, to learn anything within a few hundred steps."""


def kind_of(name: str) -> type[Learner]:
    kind = facts_of(name)
    assert issubclass(kind, Learner)
    return kind


def settings(name: str, steps: int, **changes: Any) -> AgentConfig:
    return kind_of(name).config_class(**{**SHARED, **SHORT.get(name, {}), "steps": steps, **changes})


@pytest.fixture(scope="module")
def obvious(tiny_world: World) -> World:
    """Three clicks a slate for four slates are possible: 12. A slate of random items gets half of that."""
    halves = torch.tensor([0] * 5 + [1] * 5 + [2]).unsqueeze(1)
    catalogue = replace(tiny_world.catalogue, groups=halves, group_names=("half",))
    return replace(tiny_world, catalogue=catalogue, consumes_twice=True, reward=WeightedReward({"click": 1.0}))


def updates_of(name: str, count: int, world: World) -> int:
    """Steps in so many updates."""
    config = settings(name, 1)
    return count * config.num_envs * _horizon(name, world)


def _horizon(name: str, world: World) -> int:
    from recloop.agents.learners.loop import Training

    return Training(kind_of(name), world, FitOptions(), settings(name, 1)).learner.horizon


@pytest.mark.parametrize("name", NAMES)
def test_it_is_registered_under_its_own_name_as_something_to_train(name: str) -> None:
    assert kind_of(name).name == name
    assert kind_of(name).trains == "loop"
    assert kind_of(name).resumable


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_the_obvious_which_others_miss(obvious: World, name: str) -> None:
    curve: list[tuple[float, int]] = []

    def log(tag: str, value: float, step: int) -> None:
        if tag == VALIDATION_TAG:
            curve.append((value, step))

    config = kind_of(name).config_class(**{**SHARED, **QUICK.get(name, {"steps": 6_000})})
    policy = learn(kind_of(name), obvious, FitOptions(seed=0, log=log), config)
    tried = PolicyValidation(obvious, 100, "cpu")
    for other in ("random", "popularity"):
        assert tried.mean_return(make_policy(other, obvious)) < 8
    assert tried.mean_return(policy) > 10.5, curve
    assert curve[0][1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_trained_twice_from_one_seed_gives_equal_weights_and_touches_no_global_generator(
    obvious: World, name: str
) -> None:
    config = settings(name, updates_of(name, 4, obvious))
    torch.manual_seed(11)
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    first = learn(kind_of(name), obvious, FitOptions(seed=3), config)
    after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())  # noqa: NPY002
    assert torch.equal(states[0], after[0])
    assert (states[1] == after[1]).all()
    assert states[2] == after[2]
    torch.manual_seed(12)  # what happens outside does not matter
    second = learn(kind_of(name), obvious, FitOptions(seed=3), config)
    other = learn(kind_of(name), obvious, FitOptions(seed=4), config)
    assert all(torch.equal(value, second.tensors()[key]) for key, value in first.tensors().items())
    assert any(not torch.equal(value, other.tensors()[key]) for key, value in first.tensors().items())


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_at_every_update(obvious: World, name: str) -> None:
    """Some weight differs after one update more: what the other tests train is not standing still."""
    from recloop.agents.learners.loop import Training

    training = Training(kind_of(name), obvious, FitOptions(), settings(name, 10**6))
    seen = training._observed()
    before: dict[str, Tensor] = {}
    for _ in range(4):
        before = {key: value.clone() for key, value in training.learner.state().items()}
        seen = training._collect(seen)
        assert set(training.learner.update(0.0)) >= {"train/loss"}
    after = training.learner.state()
    assert any(not torch.equal(before[key], after[key]) for key in before if after[key].is_floating_point())


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_training_goes_on_bit_for_bit(obvious: World, name: str, tmp_path: Path) -> None:
    config = settings(name, updates_of(name, 6, obvious))
    kind, every = kind_of(name), {"seed": 5, "checkpoint_every": 2}
    whole = learn(kind, obvious, FitOptions(checkpoint=tmp_path / "whole", **every), config)
    with pytest.raises(KeyboardInterrupt, match=r"4 of 6 updates are kept in .*goes on from there"):
        learn(kind, obvious, FitOptions(checkpoint=tmp_path / "parts", log=_stop_after(5, 6, config), **every), config)
    parts = learn(kind, obvious, FitOptions(checkpoint=tmp_path / "parts", **every), config)
    assert all(torch.equal(value, parts.tensors()[key]) for key, value in whole.tensors().items())
    for file in ("learner", "core", "best", "episodes"):
        one, two = (read_tensors(tmp_path / run / f"{file}.safetensors") for run in ("whole", "parts"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), file
    again = learn(kind, obvious, FitOptions(checkpoint=tmp_path / "whole", **every), config)
    assert all(torch.equal(value, again.tensors()[key]) for key, value in whole.tensors().items())


def _stop_after(update: int, of: int, config: AgentConfig) -> Callable[[str, float, int], None]:
    def log(tag: str, value: float, step: int) -> None:
        if tag == "train/loss" and step * of >= update * config.steps:
            raise KeyboardInterrupt

    return log


@pytest.mark.parametrize("name", NAMES)
def test_slates_repeat_nothing_and_keep_to_masks_while_learning_and_after(
    tiny_world: World, name: str, tmp_path: Path
) -> None:
    """In a world that consumes nothing twice, where a slate with anything to strike fails the training."""

    world = replace(tiny_world, reward=Strict({"click": 1.0}))
    policy = learn(kind_of(name), world, FitOptions(), settings(name, updates_of(name, 3, world)))
    save_policy(policy, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert loaded.name == policy.name == name
    mine, theirs = (played(chosen, world) for chosen in (policy, loaded))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    observation = new_core(world).observe()
    mask = torch.zeros(6, 10, dtype=torch.bool)
    mask[:, [2, 7]] = True
    slate, _ = policy.act({**observation, "action_mask": mask}, None, 3, new_core(world).draw())
    assert all(set(row[:2]) == {2, 7} for row in slate.tolist())
    assert slate[:, 2].tolist() == [10] * 6


class Ravenous(UserSimulator):
    """Users who consume whatever they are shown, so that the catalogue is soon exhausted."""

    def __init__(self, world: World) -> None:
        self.signals = world.signals

    def arrive(self, users: Tensor, draw: Draw) -> State:
        return State()

    def respond(self, state: State, past: Past, slate: Tensor, draw: Draw) -> tuple[State, Response]:
        there = (slate < 10).unsqueeze(2).expand(-1, -1, 2)
        return state, Response(there * torch.tensor([1.0, 5.0]), there, torch.zeros(len(slate), dtype=torch.bool))


class Filled(WeightedReward):
    """Stands for places left empty only where nothing is left to show."""

    def __call__(self, outcome: Outcome) -> Tensor:
        assert outcome.past is not None
        assert outcome.past.seen is not None
        left = outcome.past.seen.admissible().sum(1)
        assert bool(((outcome.invalid == 0) | (left == 0)).all())
        return super().__call__(outcome)


@pytest.mark.parametrize("name", NAMES)
def test_an_exhausted_catalogue_leaves_places_empty_and_losses_sound(tiny_world: World, name: str) -> None:
    """Four items a slate of ten, three of them consumed before: a full slate, three places, nothing, nothing."""
    world = replace(tiny_world, simulators={"train": Ravenous(tiny_world)}, slate_size=4, reward=Filled({"click": 1.0}))
    told: dict[str, list[float]] = {}
    options = FitOptions(log=lambda tag, value, step: told.setdefault(tag, []).append(value))
    policy = learn(kind_of(name), world, options, settings(name, updates_of(name, 4, world)))
    losses = [value for tag, values in told.items() if "loss" in tag for value in values]
    assert losses
    assert all(abs(value) < 100 for value in losses), told
    shown = [(slate < 10).sum(1) for slate in played(policy, world)]
    had = (new_core(world).observe()["action_mask"] == 0).sum(1)  # a core of its own: nobody has been shown anything
    assert torch.equal(torch.stack(shown).sum(0), 10 - had)


@pytest.mark.parametrize("name", NAMES)
def test_its_policy_acts_for_one_lane_and_serves_people_by_item_ids(
    tiny_world: World, name: str, tmp_path: Path
) -> None:
    from recloop.agents.learners.loop import Training

    policy = Training(kind_of(name), tiny_world, FitOptions(), settings(name, 1)).policy
    core = new_core(tiny_world)
    slates, _ = policy.act(core.observe(), None, 3, core.draw())
    alone, _ = policy.act({key: value[:1] for key, value in core.observe().items()}, None, 3, core.draw())
    assert torch.equal(alone, slates[:1])
    save_policy(policy, tmp_path / "policy")
    served = load_policy(tmp_path / "policy")
    people = [Observed(["item-100", "item-105"], profile={"taste": 1.0}), Observed(shown=[["item-103"]])]
    found = served.recommend(people[0], 8)
    assert sorted(found) == sorted(set(tiny_world.catalogue.ids) - {"item-100", "item-105"})
    assert served.recommend_many(people, 4)[1] == served.recommend(people[1], 4)
    few = ["item-101", "item-107", "item-108"]
    assert set(served.recommend(people[1], 2, candidates=few, exclude=["item-107"])) == {"item-101", "item-108"}


def new_core(world: World) -> Core:
    return Core(world, batch=6, users="evaluate", seed=5, keys=(*DEFAULT_KEYS, "action_mask"))


def played(policy: Policy, world: World) -> list[Tensor]:
    core, slates = new_core(world), []
    for step in range(3):
        zeros = torch.zeros_like(core.lanes)
        slate, _ = policy.act(core.observe(), None, core.slate_size, Draw.at(1, core.lanes, zeros, zeros + step))
        core.step(slate)
        slates.append(slate)
    return slates


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_no_number_stops_training_in_one_line(obvious: World, name: str) -> None:
    def huge(outcome: Outcome) -> Tensor:
        return torch.full((len(outcome.slate),), 3e38)

    changes = (
        {"scale_rewards": False} if "scale_rewards" in {f.name for f in fields(kind_of(name).config_class)} else {}
    )
    world = replace(obvious, reward=huge)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=rf"{name}: .* no longer a finite number after update \d+, step \d+; lower"):
        learn(kind_of(name), world, FitOptions(), settings(name, updates_of(name, 4, world), **changes))


@pytest.mark.parametrize("name", ["double-dqn", "sac"])
def test_too_few_steps_to_learn_anything_are_refused(obvious: World, name: str) -> None:
    config = kind_of(name).config_class(learning_starts=500)
    with pytest.raises(PolicyError, match=f"{name} learns after learning_starts=500 steps, and steps=400 end before"):
        learn(kind_of(name), obvious, FitOptions(steps=400), config)


def test_every_learner_of_the_package_is_registered() -> None:
    """Fails when a learner is written and not registered."""
    import pkgutil

    import recloop.agents.learners as package

    for module in pkgutil.iter_modules(package.__path__, "recloop.agents.learners."):
        importlib.import_module(module.name)
    found = {cls for cls in _below(Learner) if cls.__module__.startswith("recloop.agents.learners.")}
    named = {cls.__dict__["name"] for cls in found if "name" in cls.__dict__}
    assert named == set(NAMES)


def _below(cls: type[Learner]) -> set[type[Learner]]:
    return {cls}.union(*(_below(child) for child in cls.__subclasses__()))
