"""Policies that learn nothing: what they show, worked out by hand."""

import pytest
import torch

from recloop.agents import FitOptions, make_policy
from recloop.agents.baselines.content import ContentPolicy, LastItemPolicy
from recloop.agents.baselines.greedy import GreedyPolicy
from recloop.agents.baselines.greedy_variants import DiversifiedGreedyPolicy, ExploringGreedyPolicy
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.core import Core
from recloop.envs.truth.built_in import built_in_world
from recloop.envs.world.world import World

EAST, NORTH, NORTH_EAST = [3.0, 0.0], [0.0, 1.0], [2.0, 2.0]
VECTORS = torch.tensor([EAST, NORTH, NORTH_EAST, [-1.0, 0.0], [0.0, 0.0]])
COUNTS = torch.tensor([1.0, 2.0, 3.0, 9.0])
EMPTY = 4


def seen(*histories: list[int]) -> Observation:
    return {"history": torch.tensor([[EMPTY] * (3 - len(h)) + h for h in histories])}


def one_draw(lanes: int) -> Draw:
    zeros = torch.zeros(lanes, dtype=torch.int64)
    return Draw.at(0, torch.arange(lanes), zeros, zeros)


def test_content_shows_what_lies_nearest_to_all_that_was_consumed() -> None:
    slate, _ = ContentPolicy(VECTORS, COUNTS).act(seen([0, 1]), None, 2, one_draw(1))
    assert slate[0, 0] == 2  # between east and north, however long east is
    scores = ContentPolicy(VECTORS, COUNTS).scores(seen([0, 1]))
    assert torch.allclose(scores[0], torch.tensor([0.7071, 0.7071, 1.0, -0.7071]), atol=1e-4)


def test_last_item_forgets_all_but_the_newest() -> None:
    slate, _ = LastItemPolicy(VECTORS, COUNTS).act(seen([0, 0, 1]), None, 2, one_draw(1))
    assert slate.tolist() == [[1, 2]]


def test_who_consumed_nothing_gets_what_is_popular() -> None:
    for policy in (ContentPolicy(VECTORS, COUNTS), LastItemPolicy(VECTORS, COUNTS)):
        assert policy.act(seen([], [0]), None, 2, one_draw(2))[0].tolist() == [[3, 2], [0, 2]]


def test_encoder_shows_what_the_encoder_expects_next(tiny_world: World) -> None:
    observation = Core(tiny_world, batch=4, keys=(*DEFAULT_KEYS, "action_mask")).observe()
    slate, _ = make_policy("encoder", tiny_world).act(observation, None, 3, one_draw(4))
    scores = tiny_world.state_encoder.scores(observation["state"]).masked_fill(~observation["action_mask"].bool(), -9e9)
    assert torch.equal(slate, scores.topk(3, dim=1).indices)


def test_worst_first_is_popularity_turned_round(tiny_world: World) -> None:
    observation = Core(tiny_world, batch=2, start="cold", keys=(*DEFAULT_KEYS, "action_mask")).observe()
    n = len(tiny_world.catalogue)
    best, _ = make_policy("popularity", tiny_world).act(observation, None, n, one_draw(2))
    worst, _ = make_policy("worst-first", tiny_world).act(observation, None, n, one_draw(2))
    counts = tiny_world.catalogue.popularity
    assert counts[worst[0]].tolist() == counts[best[0]].tolist()[::-1]


def test_exploring_greedy_replaces_its_share_of_places(tiny_world: World) -> None:
    lanes = 2000
    observation = Core(tiny_world, batch=lanes, start="cold", keys=(*DEFAULT_KEYS, "action_mask")).observe()
    greedy, _ = make_policy("greedy", tiny_world).act(observation, None, 3, one_draw(lanes))
    explored, _ = make_policy("exploring-greedy", tiny_world).act(observation, None, 3, one_draw(lanes))
    assert all(len(set(row)) == 3 for row in explored.tolist())
    share = float((greedy != explored).float().mean())
    assert abs(share - ExploringGreedyPolicy.epsilon) < 0.03


def test_diversified_greedy_weighs_reward_against_likeness(tiny_world: World) -> None:
    policy = make_policy("diversified-greedy", tiny_world, FitOptions())
    assert isinstance(policy, DiversifiedGreedyPolicy)
    n = len(tiny_world.catalogue)
    policy.vectors = torch.zeros(n + 1, 2)
    policy.vectors[:3] = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    shortlist, mask = torch.tensor([[0, 1, 2, 3]]), torch.ones(1, n, dtype=torch.bool)
    # Scaled rewards 1, 0.9, 0.5, 0. After item 0: 0.6 x 0.9 - 0.4 x 1 = 0.14 for its twin, 0.3 for the other way.
    rewards = torch.tensor([[2.0, 1.9, 1.5, 1.0]])
    assert policy._choose(shortlist, rewards, mask, 3, one_draw(1)).tolist() == [[0, 2, 1]]
    # Where likeness costs nothing it is greedy.
    policy.vectors = torch.eye(n + 1)
    assert policy._choose(shortlist, rewards, mask, 4, one_draw(1)).tolist() == [[0, 1, 2, 3]]
    nothing = torch.tensor([[0, n, n, n]])
    assert policy._choose(nothing, rewards, mask, 2, one_draw(1)).tolist() == [[0, n]]


def test_the_short_list_of_greedy_loses_nothing_where_consumption_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    world = built_in_world()
    observation = Core(world, batch=40, users="evaluate", keys=(*DEFAULT_KEYS, "action_mask")).observe()
    short, _ = make_policy("greedy", world).act(observation, None, 5, one_draw(40))
    monkeypatch.setattr(GreedyPolicy, "_closer_look", lambda self, k: 200)
    whole, _ = make_policy("greedy", world).act(observation, None, 5, one_draw(40))
    assert torch.equal(short, whole)
