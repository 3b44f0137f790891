"""Policies of fresh actors: masks, repeats, probabilities, disk. What they learn is tested in test_training."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.agents.networks.features import NetworkConfig
from recloop.agents.networks.heads import HeadName
from recloop.agents.networks.policy import ActorPolicy, actor_for
from recloop.agents.registry import load_policy, save_policy
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.manifest import Manifest
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

SMALL = NetworkConfig(hidden=8, slate_dim=4, layers=1)
FORMS = [
    ("candidates", False, False),
    ("candidates", False, True),
    ("candidates", True, False),
    ("candidates", True, True),
    ("proto", False, False),
    ("proto", False, True),
    ("item", False, False),
]
"""Head, one at a time, stochastic."""


def make(world: World, head: HeadName, one_at_a_time: bool, stochastic: bool, candidates: int = 10) -> ActorPolicy:
    return ActorPolicy(
        Serving.of(world),
        actor_for(world, head, SMALL, seed=1),
        head,
        SMALL,
        candidates=candidates if head == "candidates" else None,
        one_at_a_time=one_at_a_time,
        log_std=torch.full((world.state_encoder.dim + 1,), -1.0) if head == "proto" else None,
        stochastic=stochastic,
        name="fresh",
    )


def observe(world: World, lanes: int = 6) -> Observation:
    return Core(world, batch=lanes, keys=(*DEFAULT_KEYS, "action_mask")).observe()


def luck(lanes: int, seed: int = 0) -> Draw:
    zeros = torch.zeros(lanes, dtype=torch.int64)
    return Draw.at(seed, torch.arange(lanes), zeros, zeros)


@pytest.mark.parametrize(("head", "one_at_a_time", "stochastic"), FORMS)
def test_slates_keep_to_the_mask_do_not_repeat_and_leave_what_cannot_be_filled_empty(
    tiny_world: World, head: HeadName, one_at_a_time: bool, stochastic: bool
) -> None:
    policy = make(tiny_world, head, one_at_a_time, stochastic)
    observation = observe(tiny_world)
    observation["action_mask"][0] = torch.arange(10) < 2  # two items for three places
    slate, _ = policy.act(observation, None, 3, luck(6))
    assert sorted(slate[0].tolist()) == [0, 1, 10]
    assert int(slate[0, 2]) == 10
    for row, mask in zip(slate[1:], observation["action_mask"][1:], strict=True):
        assert len(set(row.tolist())) == 3
        assert bool(mask[row].all())


@pytest.mark.parametrize(("head", "one_at_a_time", "stochastic"), FORMS)
def test_saved_and_loaded_it_gives_the_same_slates_without_a_world(
    tmp_path: Path, tiny_world: World, head: HeadName, one_at_a_time: bool, stochastic: bool
) -> None:
    policy = make(tiny_world, head, one_at_a_time, stochastic)
    save_policy(policy, tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    observation = observe(tiny_world)
    assert torch.equal(policy.act(observation, None, 3, luck(6))[0], again.act(observation, None, 3, luck(6))[0])
    assert again.name == "fresh"
    assert {p.suffix for p in (tmp_path / "policy").iterdir() if p.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_probabilities_of_all_slates_of_few_candidates_sum_to_one(tiny_world: World, one_at_a_time: bool) -> None:
    policy = make(tiny_world, "candidates", one_at_a_time, True, candidates=4)
    observation = {key: value[:1] for key, value in observe(tiny_world).items()}
    slates = torch.tensor(list(permutations(range(10), 2)))
    repeated = {key: value.expand(len(slates), *value.shape[1:]) for key, value in observation.items()}
    chances = policy.log_prob(repeated, slates).detach().exp()
    assert float(chances.sum()) == pytest.approx(1.0, abs=1e-5)
    assert int((chances > 0).sum()) == 4 * 3  # only slates of the four retrieved items


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_drawn_slates_come_as_often_as_their_probability_says(tiny_world: World, one_at_a_time: bool) -> None:
    policy = make(tiny_world, "candidates", one_at_a_time, True, candidates=3)
    lanes = 4000
    observation = {k: v[:1].expand(lanes, *v.shape[1:]) for k, v in observe(tiny_world).items()}
    slates, _ = policy.act(observation, None, 2, luck(lanes))
    chance = policy.log_prob(observation, slates).detach().exp()
    for slate in slates.unique(dim=0):
        drawn = (slates == slate).all(1)
        assert float(drawn.float().mean()) == pytest.approx(float(chance[drawn][0]), abs=0.03)


def test_a_deterministic_policy_has_no_log_probability(tiny_world: World) -> None:
    policy = make(tiny_world, "candidates", False, False)
    with pytest.raises(NotImplementedError, match="stochastic=True"):
        policy.log_prob(observe(tiny_world), torch.zeros(6, 3, dtype=torch.int64))


def test_errors_name_the_limit_and_the_way_out(tiny_world: World) -> None:
    with pytest.raises(PolicyError, match="k=5 is larger than the 4 candidates"):
        make(tiny_world, "candidates", False, False, candidates=4).act(observe(tiny_world), None, 5, luck(6))
    with pytest.raises(PolicyError, match="head 'item' has no stochastic form"):
        make(tiny_world, "item", False, True)


def test_making_and_restoring_leave_the_global_generators_alone(tmp_path: Path, tiny_world: World) -> None:
    torch.manual_seed(5)
    before, arrays = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    save_policy(make(tiny_world, "candidates", False, False), tmp_path / "policy")
    load_policy(tmp_path / "policy")
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == arrays).all()  # noqa: NPY002


def test_a_folder_of_the_kind_that_actors_had_before_is_read(tiny_world: World, tmp_path: Path) -> None:
    save_policy(make(tiny_world, "candidates", False, False), tmp_path / "old")
    facts = tmp_path / "old" / "policy.json"
    facts.write_text(facts.read_text().replace('"kind": "actor"', '"kind": "sb3"'))
    Manifest.of(tmp_path / "old").write(tmp_path / "old")
    assert isinstance(load_policy(tmp_path / "old"), ActorPolicy)
