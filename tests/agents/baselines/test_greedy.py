"""Greedy on users one can hold in the head."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.agents import Policy, Serving, make_policy
from recloop.agents.baselines.greedy import GreedyPolicy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.interaction.response import Expected, Past, State
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.simulation.core import Core
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

KEYS = (*DEFAULT_KEYS, "action_mask")


def slates(policy: Policy, world: World, k: int = 3) -> Tensor:
    core = Core(world, batch=2, slate_size=k, users="all", keys=KEYS)
    core.reset(users=torch.tensor([4, 5]))  # the lower taste, then the upper one; both know three items already
    return policy.act(core.observe(), None, k, core.draw())[0]


def with_model(world: World, model: UserSimulator | None, **changes: Any) -> World:
    return replace(world, user_model=model, **changes)


def test_it_shows_what_each_user_likes_and_has_not_seen(tiny_world: World) -> None:
    first = slates(make_policy("greedy", tiny_world), tiny_world)
    assert first[:, :2].tolist() == [[3, 4], [8, 9]]


def test_expected_reward_decides_within_what_is_wanted(tiny_world: World) -> None:
    """All is wanted alike; ratings rise with the row, and a rating counts only as often as there is a click."""
    users = type(tiny_world.user_model)

    class Raters(users):  # type: ignore[misc, valid-type]
        def utility(self, state: State, past: Past, items: Tensor) -> Tensor:
            return torch.zeros(len(past.step), len(items))

        def expected(self, state: State, past: Past, slate: Tensor) -> Expected:
            click = torch.where(slate == 9, 0.1, 0.5)
            return Expected(torch.stack([click, 1 + 0.4 * slate], dim=2))

    world = with_model(tiny_world, Raters(), reward=WeightedReward({"rating": 1.0}), consumes_twice=True)
    assert slates(make_policy("greedy", world), world).tolist() == [[8, 7, 6], [8, 7, 6]]


def test_without_utility_every_item_is_asked_about(tiny_world: World) -> None:
    class Silent(type(tiny_world.user_model)):  # type: ignore[misc]
        def utility(self, state: State, past: Past, items: Tensor) -> None:
            return None

    world = with_model(tiny_world, Silent())
    assert slates(make_policy("greedy", world), world, 2).tolist() == [[3, 4], [8, 9]]


def test_it_follows_along_where_the_model_can(tiny_world: World) -> None:
    class Following(type(tiny_world.user_model)):  # type: ignore[misc]
        def observe(self, state: State, slate: Tensor, signals: Tensor) -> State:
            calls.append((slate, signals))
            return state

    calls: list[tuple[Tensor, Tensor]] = []
    policy = make_policy("greedy", with_model(tiny_world, Following()))
    core = Core(tiny_world, batch=2, users="all", keys=KEYS)
    slate, carry = policy.act(core.observe(), None, 3, core.draw())
    answer = core.step(slate).response.signals
    policy.act(core.observe(), carry, 3, core.draw())
    assert len(calls) == 1
    assert torch.equal(calls[0][0], slate)
    assert torch.equal(calls[0][1], answer)


def test_its_model_is_its_own(tiny_world: World) -> None:
    """Preparing it for a world without users must not empty the tables of the simulator it was copied from."""
    shared = with_model(tiny_world, tiny_world.simulators["train"])
    policy = make_policy("greedy", shared)
    assert isinstance(policy, GreedyPolicy)
    assert policy.model is not shared.user_model
    slates(policy, shared)
    core = Core(shared, batch=2, users="all", keys=KEYS)
    policy.act(core.observe(), None, 3, core.draw())
    core.reset()


def test_worlds_it_cannot_be_greedy_in_are_named(tiny_world: World) -> None:
    class Closed(type(tiny_world.user_model)):  # type: ignore[misc]
        infer = UserSimulator.infer

    class Mute(type(tiny_world.user_model)):  # type: ignore[misc]
        expected, utility = UserSimulator.expected, UserSimulator.utility

    for model, words in ((None, "no user model"), (Closed(), "`infer` for Closed"), (Mute(), "`utility` for Mute")):
        with pytest.raises(PolicyError, match=words):
            GreedyPolicy(Serving.of(tiny_world, user_model=model))
