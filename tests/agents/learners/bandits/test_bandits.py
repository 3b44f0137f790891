"""Bandits find arms that are known to be best, learn while evaluated where asked, and say what they cannot do."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents.learners.bandits.learners import BanditConfig
from recloop.agents.learners.bandits.policy import BanditPolicy
from recloop.agents.learners.contract import Learner
from recloop.agents.learners.loop import Training, learn
from recloop.agents.learners.returns import PlaceRewards
from recloop.agents.policy import Carry, FitOptions, Policy
from recloop.agents.registry import facts_of, load_policy, make_policy, save_policy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response, State
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.core import Core
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import t_interval

NAMES = ("epsilon-greedy", "linucb", "linear-thompson", "neural-thompson")
LINEAR = NAMES[:3]
SMALL: dict[str, Any] = {"steps": 1_600, "num_envs": 16, "validations": 1, "validation_episodes": 4}


@dataclass(frozen=True)
class Nothing(State):
    """Nobody differs from anybody."""


class LinearClicks(UserSimulator):
    """Users click with a chance that is linear in the item's vector, whoever they are and whatever was before."""

    def __init__(self, world: World) -> None:
        self.signals = world.signals
        vectors = world.item_vectors[:-1].detach()
        worth = (vectors - vectors.mean(0)) @ torch.linspace(-1, 1, vectors.shape[1])
        self.chance = torch.cat([0.5 + 0.45 * worth / worth.abs().max(), torch.zeros(1)])

    def arrive(self, users: Tensor, draw: Draw) -> Nothing:
        return Nothing()

    def respond(self, state: Nothing, past: Past, slate: Tensor, draw: Draw) -> tuple[Nothing, Response]:
        there = slate < 10
        click = there & (draw.uniform("click", slate) < self.chance[slate])
        signals = torch.stack([click.float(), 0.0 * click], dim=2)
        given = torch.stack([there, torch.zeros_like(there)], dim=2)
        return state, Response(signals, given, torch.zeros(len(slate), dtype=torch.bool))


@pytest.fixture(scope="module")
def linear(tiny_world: World) -> World:
    simulators = {"train": LinearClicks(tiny_world)}
    return replace(tiny_world, simulators=simulators, consumes_twice=True, reward=WeightedReward({"click": 1.0}))


def trained(name: str, world: World, **settings: Any) -> BanditPolicy:
    quick = {"network.hidden": 16} if name == "neural-thompson" else {}
    policy = make_policy(name, world, FitOptions(settings={**SMALL, **quick, **settings}))
    assert isinstance(policy, BanditPolicy)
    return policy


@pytest.mark.parametrize("name", NAMES)
def test_it_beats_random_by_an_interval_and_shows_the_best_arms(linear: World, name: str) -> None:
    arena = Evaluator(linear, "train", episodes=200)
    policy = trained(name, linear)
    mine, random = arena.run(policy), arena.run(make_policy("random", linear))
    assert t_interval(mine.value - random.value).low > 0
    simulator = linear.simulators["train"]
    assert isinstance(simulator, LinearClicks)
    best = 4 * float(simulator.chance.topk(3).values.sum())
    assert t_interval(mine.value).high > best - 0.6, (mine.value.mean(), best)


@pytest.mark.parametrize("name", LINEAR)
def test_evaluation_leaves_it_as_it_was_and_gives_the_same_again(linear: World, name: str) -> None:
    arena = Evaluator(linear, "train", episodes=24)
    for online in ("no", "lane", "shared"):
        policy = trained(name, linear, online=online, steps=64)
        before = {key: value.clone() for key, value in policy.tensors().items()}
        first, second = arena.run(policy), arena.run(policy)
        assert np.array_equal(first.value, second.value)
        assert all(torch.equal(value, policy.tensors()[key]) for key, value in before.items())


def test_what_it_learns_while_evaluated_pays(linear: World) -> None:
    """Who was trained on 16 slates, with the highest mean: frozen, and learning from 300 lanes as one."""
    frozen, shared = (
        trained("epsilon-greedy", linear, online=online, steps=16, epsilon=0.0) for online in ("no", "shared")
    )
    arena = Evaluator(linear, "train", episodes=300)
    assert t_interval(arena.run(shared).value - arena.run(frozen).value).low > 0


def steps_of(policy: BanditPolicy, world: World, rewards: Tensor, counts: Tensor | None = None) -> Tensor:
    """What two lanes are expected to earn of every item (2, C) after a slate that earned `rewards` (2,)."""
    core = Core(world, batch=2, users="evaluate", seed=5, keys=(*DEFAULT_KEYS, "action_mask"))
    draw = core.draw()
    slate, carry = policy.act(core.observe(), None, 3, draw)
    moved = core.step(slate)
    nothing = Response(0 * moved.response.signals, moved.response.given, moved.response.left)
    told = replace(moved, response=nothing, reward=rewards)
    carry = policy.update(carry, told, torch.ones(2, dtype=torch.bool) if counts is None else counts)
    return carry.posterior.belief().expected(carry.arms.x)


def test_lanes_learn_apart_or_as_one(linear: World) -> None:
    calm, wild = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 9.0])
    apart, shared = (trained("linucb", linear, online=online, steps=64) for online in ("lane", "shared"))
    before, after = steps_of(apart, linear, calm), steps_of(apart, linear, wild)
    assert torch.equal(before[0], after[0]), "what the other lane earned must not matter"
    assert not torch.allclose(before[1], after[1])
    before, after = steps_of(shared, linear, calm), steps_of(shared, linear, wild)
    assert not torch.allclose(before[0], after[0])
    first = torch.tensor([True, False])
    assert torch.equal(steps_of(shared, linear, calm, first), steps_of(shared, linear, wild, first))


def test_a_frozen_one_carries_nothing(linear: World) -> None:
    policy = trained("linear-thompson", linear, steps=64)
    core = Core(linear, batch=2, users="evaluate", keys=(*DEFAULT_KEYS, "action_mask"))
    slate, carry = policy.act(core.observe(), None, 3, core.draw())
    assert carry is None
    moved = core.step(slate)
    assert policy.update(carry, moved, torch.ones(2, dtype=torch.bool)) is None


class Counting(Policy):
    """Learns how many steps it was told of; the first item for ever."""

    name = "counting"

    def __init__(self) -> None:
        self.seen: list[tuple[Carry, int]] = []

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        return torch.arange(k).expand(len(observation["state"]), k).clone(), carry

    def update(self, carry: Carry, transition: Transition, counts: Tensor) -> Carry:
        self.seen.append((carry, int(counts.sum())))
        return (carry or 0) + 1


def test_a_policy_is_told_of_every_step_and_gets_back_what_it_made_of_it(linear: World) -> None:
    policy = Counting()
    Evaluator(linear, "train", episodes=5).run(policy)
    assert policy.seen == [(None, 5), (1, 5), (2, 5), (3, 5)]


def test_a_policy_without_the_hook_is_not_asked(linear: World) -> None:
    assert make_policy("popularity", linear).learning is None
    assert Counting().learning is not None


def test_items_that_rules_put_in_teach_and_the_reward_is_shared_out(linear: World) -> None:
    """Three places, of which the second earned 1; two more belong to nobody."""
    slate = torch.tensor([[4, 7, 10], [1, 2, 3]])
    signals = torch.zeros(2, 3, 2)
    signals[0, 1, 0] = 1.0
    response = Response(signals, torch.ones(2, 3, 2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool))
    by_place = PlaceRewards(linear)
    found = by_place.shared(slate, response, torch.tensor([3.0, -3.0]))
    assert found.tolist() == [[1.0, 2.0, 0.0], [-1.0, -1.0, -1.0]]
    whole = replace(linear, reward=lambda outcome: torch.ones(2))  # type: ignore[arg-type]
    assert PlaceRewards(whole).shared(slate, response, torch.tensor([3.0, 3.0])).tolist() == [
        [1.5, 1.5, 0.0],
        [1.0, 1.0, 1.0],
    ]


@pytest.mark.parametrize("online", ["no", "lane"])
def test_saved_and_read_again_it_goes_on_alike(linear: World, online: str, tmp_path: Any) -> None:
    policy = trained("linear-thompson", linear, online=online, steps=256)
    save_policy(policy, tmp_path / "policy")
    arena = Evaluator(linear, "train", episodes=12)
    assert np.array_equal(arena.run(policy).value, arena.run(load_policy(tmp_path / "policy")).value)


def of_vectors(world: World, vectors: Tensor) -> Training:
    """A training in a world of other item vectors."""
    encoder = world.state_encoder
    kind = facts_of("linucb")
    assert issubclass(kind, Learner)
    training = Training(kind, world, FitOptions(), kind.config_class(**SMALL))
    tables = replace(training.learner.task.tables, vectors=vectors.to(encoder.item_vectors))
    training.learner = kind(replace(training.learner.task, tables=tables), training.config)
    return training


def test_items_that_do_not_differ_leave_the_facts(linear: World) -> None:
    """Of the features all but the constant, and what is known besides the vectors, are zero; it trains all the same."""
    training = of_vectors(linear, torch.ones(11, 8))
    training._collect(training._observed())
    model: Any = training.learner
    assert bool((model.model.features.components == 0).all())
    assert bool(torch.isfinite(model.update(0.0)["train/loss"]))


def test_vectors_that_are_no_numbers_are_named(linear: World) -> None:
    vectors = torch.randn(11, 8)
    vectors[4, 2] = torch.nan
    with pytest.raises(PolicyError, match=r"the vectors of 1 of 10 items hold NaN or infinity \(first: row 4\); build"):
        of_vectors(linear, vectors)


def test_a_state_that_is_no_number_stops_training_in_one_line(linear: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = facts_of("linucb")
    assert issubclass(kind, Learner)
    broken = lambda self: {**seen(self), "state": torch.full_like(seen(self)["state"], torch.nan)}  # noqa: E731
    seen = Core.observe
    monkeypatch.setattr(Core, "observe", broken)
    with pytest.raises(PolicyError, match=r"linucb: .* no longer a finite number after update 1"):
        learn(kind, linear, FitOptions(), kind.config_class(**SMALL))


def test_rewards_that_never_vary_leave_the_order_of_the_encoder(linear: World) -> None:
    """Nothing is learned, nothing breaks, and equal indices are shown as retrieved."""
    world = replace(linear, reward=lambda outcome: torch.zeros(len(outcome.slate)))  # type: ignore[arg-type]
    policy = trained("linucb", world, steps=320)
    core = Core(world, batch=4, users="evaluate", keys=(*DEFAULT_KEYS, "action_mask"))
    slate, _ = policy.act(core.observe(), None, 3, core.draw())
    first, _ = make_policy("encoder", world).act(core.observe(), None, 3, core.draw())
    assert torch.equal(slate, first)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ridge": 0.0}, "ridge=0.0; it must be finite and above 0"),
        ({"components": 0}, "components=0; it must be at least 1"),
        ({"epsilon": 1.5}, r"epsilon=1.5; it must lie in \[0, 1\]"),
        ({"width": -1.0}, "width=-1.0; it must be finite and at least 0"),
        ({"online": "lanes"}, "unknown setting of online 'lanes'.*lane"),
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(PolicyError, match=told):
        BanditConfig(**changes)
