"""Logs of truth worlds: what the logging policies record is what they did."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns, SessionEnd
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import LOGGING_KEYS, Picked
from recloop.envs.truth import POLICIES, logging_policy, truth_log, truth_world
from recloop.envs.truth.logging_policies import KINDS
from recloop.envs.world.world import World


@pytest.fixture(scope="module")
def world() -> World:
    return truth_world("drift", users=60, items=30, topics=5)


def draws(lanes: int, step: int = 0) -> Draw:
    lane = torch.arange(lanes)
    return Draw.at(0, lane, torch.zeros_like(lane), torch.full_like(lane, step))


def observed(world: World, lanes: int) -> Observation:
    """One and the same observation in every lane: some way into an episode, with item 3 masked."""
    core = Core(world, batch=4, users="all", start="cold")
    for step in range(3):
        core.step(torch.arange(5 * step, 5 * step + 5).expand(4, -1))
    one = {name: values[:1] for name, values in core.observe(LOGGING_KEYS).items()}
    one["history"] = torch.cat([one["history"][:, 2:], torch.tensor([[7, 11]])], dim=1)
    one["action_mask"] = one["action_mask"].clone()
    one["action_mask"][:, 3] = 0
    return {name: values.expand(lanes, *values.shape[1:]) for name, values in one.items()}


@pytest.mark.parametrize("name", KINDS)
def test_recorded_propensities_are_the_frequencies(world: World, name: str) -> None:
    """Two places of 30 items, 30,000 slates: first places, and pairs, come as often as recorded."""
    lanes = 30_000
    small = replace(world, slate_size=2)
    picked = logging_policy(small, name)(observed(world, lanes), None, draws(lanes))
    assert picked.propensity is not None
    slates, chance = picked.slate.tolist(), picked.propensity.double()
    recorded = dict(zip(map(tuple, slates), chance.prod(1).tolist(), strict=True))
    counts = Counter(map(tuple, slates))
    assert all(len(set(slate)) == 2 and 3 not in slate for slate in recorded)
    for pair, probability in recorded.items():
        error = 5 * np.sqrt(probability * (1 - probability) / lanes)
        assert abs(counts[pair] / lanes - probability) < error + 2 / lanes, (pair, counts[pair], probability)
    first: dict[int, set[float]] = {}
    for (item, _), probability in zip(slates, chance[:, 0].tolist(), strict=True):
        first.setdefault(item, set()).add(round(probability, 6))
    assert all(len(values) == 1 for values in first.values())
    assert sum(min(values) for values in first.values()) == pytest.approx(1.0, abs=0.01)


def test_a_capped_slate_holds_two_of_a_topic(world: World) -> None:
    picked = logging_policy(world, "capped-popularity")(observed(world, 500), None, draws(500))
    topics = world.catalogue.groups[picked.slate, 0]
    assert int(torch.nn.functional.one_hot(topics, 5).sum(1).max()) == 2


def test_policies_do_what_their_names_say(world: World) -> None:
    seen = observed(world, 400)
    popularity, topic = world.catalogue.popularity, world.catalogue.groups[:, 0]

    def shown(name: str) -> Tensor:
        return logging_policy(world, name)(seen, None, draws(400)).slate

    means = {name: popularity[shown(name)].mean().item() for name in ("random", "popularity", "worst-first")}
    assert means["worst-first"] < means["random"] < means["popularity"]
    one = torch.nn.functional.one_hot(topic[shown("one-topic")], 5).sum(1).max(1).values
    assert (one == 5).float().mean() > 0.7
    last = topic[11]
    assert (topic[shown("last-item")] == last).float().mean() > 2 * (topic[shown("random")] == last).float().mean()


def test_each_user_stays_under_one_policy_in_a_mixed_log_and_changes_in_a_switching_one(world: World) -> None:
    mixed = truth_log(world, "mixed", seed=1).interactions
    assert mixed.groupby(Columns.user)[Columns.policy].nunique().max() == 1
    assert set(mixed[Columns.policy]) == set(POLICIES["mixed"])
    switching = truth_log(world, "switching", seed=1).interactions
    slates = switching.groupby([Columns.user, Columns.slate])[Columns.policy].agg(["first", "nunique"])
    assert slates["nunique"].max() == 1
    assert set(slates["first"]) == set(POLICIES["switching"])
    inside = slates["first"].groupby(level=0)
    stayed = (slates["first"] == inside.shift())[inside.cumcount() > 0]
    assert stayed.mean() == pytest.approx(0.3 + 0.7 / 10, abs=0.06)


def test_a_log_is_one_cold_episode_of_every_user(world: World) -> None:
    log = truth_log(world, "narrow", seed=2)
    rows = log.interactions
    assert set(rows[Columns.user]) == set(world.users.ids)
    ends = rows.groupby(Columns.user).agg(slates=(Columns.slate, "max"), end=(Columns.session_end, "first"))
    cut = ends["end"] == SessionEnd.cut.value
    assert (ends["slates"][cut] == world.max_steps - 1).all()
    assert 0 < cut.sum() < len(ends)
    assert list(log.items[Columns.category]) == [f"category {i % 5}" for i in range(30)]
    again = truth_log(world, "narrow", seed=2).interactions
    assert rows.equals(again)
    assert not rows.equals(truth_log(world, "narrow", seed=3).interactions)


def test_the_gaps_in_a_retention_log_are_the_days_away() -> None:
    world = truth_world("retention", users=40, items=30)
    sequences, _, _ = compile_sequences(truth_log(world, "mixed", seed=0))
    slates = sequences.slates
    assert slates is not None
    assert slates.days_away is not None
    away = slates.days_away[np.isfinite(slates.days_away)]
    assert len(away) > 100
    users = world.simulator("truth")
    state = users.arrive(torch.arange(40), draws(40))
    mood = state.mood.clone()
    for u in range(40):  # the truth, replayed on the log, foresees every gap up to its noise
        lane = state.rows(torch.tensor([u]))
        for q in range(slates.offsets[u], slates.offsets[u + 1]):
            slate, answers = torch.from_numpy(slates.items[[q]]), torch.from_numpy(slates.answers[[q]])
            lane = users.observe(lane, slate, answers)
            if np.isfinite(slates.days_away[q]):
                lane = users.resume(lane, torch.tensor([float(slates.days_away[q])]), draws(1))
                noise = np.log((slates.days_away[q] - 60 / 86400) / users.days_away(lane.mood).item())
                assert abs(noise) < 5 * 0.3
    assert torch.equal(mood, state.mood)


def test_a_logging_policy_can_be_replayed_in_other_users(world: World) -> None:
    other = replace(world, state_encoder=truth_world("drift", users=60, items=30, seed=9, topics=5).state_encoder)
    policy = logging_policy(world, "content")
    seen = observed(world, 50)
    picked = policy(seen, None, draws(50))
    assert isinstance(picked, Picked)
    assert torch.equal(policy(seen, picked.carry, draws(50)).slate, picked.slate)
    core = Core(other, batch=50, users="all", start="cold")
    assert core.step(policy(core.observe(LOGGING_KEYS), None, core.draw()).slate).reward.shape == (50,)


def test_unknown_kinds_are_named(world: World) -> None:
    with pytest.raises(RecloopError, match="mixd"):
        truth_log(world, "mixd")
