"""Episodes that were recorded are those of the environment, come back from disk as they were, and replay."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import Picked
from recloop.envs.skins.gym_env import RecommendEnv
from recloop.envs.trajectories.episodes import Trajectories, spaces_of
from recloop.envs.trajectories.files import Format, read_trajectories, write_trajectories
from recloop.envs.trajectories.sources import logged, recorded
from recloop.envs.world.world import World


def one_of_many(core: Core, carry: Any) -> Picked:
    """Items drawn among all, seen ones and repeats not excepted, and some places left empty."""
    items = torch.arange(core.empty).expand(core.batch, -1)
    noise = core.draw().uniform("one of many", items)
    slate = noise.topk(core.slate_size, dim=1).indices
    if core.slate_size > 1:
        slate[:, -1] = torch.where(noise[:, 0] < 0.3, core.empty, slate[:, -1])
    return Picked(slate, torch.full(slate.shape, 0.25))


def same(left: Trajectories, right: Trajectories) -> None:
    assert dict(left.about) == dict(right.about)
    assert left.observations.keys() == right.observations.keys()
    arrays = [name for name in vars(left) if name not in ("about", "observations")]
    pairs = [(name, getattr(left, name), getattr(right, name)) for name in arrays]
    pairs += [(key, left.observations[key], right.observations[key]) for key in left.observations]
    for name, mine, theirs in pairs:
        assert mine.dtype == theirs.dtype, name
        assert np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f"), name


@pytest.mark.parametrize(("slate_size", "observation"), [(4, "dict"), (1, "dict"), (3, "state")])
def test_an_episode_replays_to_the_same_observations_and_rewards(
    once_world: World, slate_size: int, observation: str
) -> None:
    found = recorded(once_world, one_of_many, "many", 9, seed=5, observation=observation, slate_size=slate_size)
    assert 9 < len(found.rewards) <= 9 * once_world.max_steps
    mode = "item" if slate_size == 1 else "slate"
    env = RecommendEnv(once_world, action_mode=mode, slate_size=slate_size, observation=observation)
    for e in range(len(found)):
        seen, info = env.reset(seed=found.about["seed"], options={"lanes": int(found.lanes[e])})
        assert info["user"] == found.users[e]
        for step in range(found.offsets[e], found.offsets[e + 1]):
            compared(found, step + e, seen)
            seen, reward, terminated, truncated, info = env.step(found.actions[step])
            assert reward == pytest.approx(found.rewards[step], abs=1e-5)
            assert (terminated, truncated) == (found.terminated[step], found.truncated[step])
            assert np.array_equal(info["slate"], found.slates[step])
        assert terminated or truncated
        compared(found, found.offsets[e + 1] + e, seen)


def compared(found: Trajectories, moment: int, seen: Any) -> None:
    seen = {"state": seen} if found.flat else seen
    assert seen.keys() == found.observations.keys()
    for key, value in seen.items():
        assert value.dtype == found.observations[key].dtype
        np.testing.assert_allclose(found.observations[key][moment], value, atol=1e-5)


def test_more_episodes_than_lanes_are_the_same_episodes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = recorded(world, one_of_many, "many", 7)
    monkeypatch.setattr("recloop.envs.trajectories.sources.LANES", 3)
    in_parts = recorded(world, one_of_many, "many", 7)
    assert np.array_equal(at_once.users, in_parts.users)
    assert np.array_equal(at_once.slates, in_parts.slates)
    assert np.allclose(at_once.rewards, in_parts.rewards)


@pytest.mark.parametrize("format", ["minari", "parquet"])
@pytest.mark.parametrize("observation", ["dict", "state", ("state", "context", "action_mask")])
def test_what_is_written_is_read(once_world: World, tmp_path: Path, format: Format, observation: Any) -> None:
    found = recorded(once_world, one_of_many, "many", 5, observation=observation)
    assert (found.slates == len(once_world.catalogue)).any(), "some places are struck"
    write_trajectories(found, once_world, tmp_path / "many-v0", format)
    same(read_trajectories(tmp_path / "many-v0"), found)


@pytest.mark.parametrize("format", ["minari", "parquet"])
def test_a_log_is_written_and_read(world: World, tmp_path: Path, format: Format) -> None:
    found = logged(world)
    assert found.slates.shape[1] == 1, "this log has no exposures"
    write_trajectories(found, world, tmp_path / "log-v0", format)
    same(read_trajectories(tmp_path / "log-v0"), found)


def test_minari_reads_it_as_any_data_set(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = recorded(world, one_of_many, "many", 6)
    write_trajectories(found, world, tmp_path / "many-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = minari.load_dataset("many-v0")
    assert (data.total_episodes, data.total_steps) == (6, len(found.rewards))
    assert "many-v0" in minari.list_local_datasets()
    seen, action = spaces_of(world.spec(), "dict")
    assert (data.observation_space, data.action_space) == (seen, action)
    assert data.storage.metadata["recloop"]["fingerprint"] == world.observation_fingerprint
    for e, episode in enumerate(data.iterate_episodes()):
        assert all(action in data.action_space for action in episode.actions)
        moments = [{key: value[t] for key, value in episode.observations.items()} for t in range(len(episode) + 1)]
        assert all(moment in seen for moment in moments)
        rows = slice(found.offsets[e], found.offsets[e + 1])
        assert np.array_equal(episode.rewards, found.rewards[rows])
        assert np.allclose(episode.infos["propensity"][1:], found.propensity[rows], equal_nan=True)
    assert isinstance(data.observation_space, gym.spaces.Dict)


def test_a_place_that_is_not_as_picked_has_no_propensity(once_world: World) -> None:
    found = recorded(once_world, one_of_many, "many", 20)
    struck = found.slates == len(once_world.catalogue)
    assert np.isnan(found.propensity).any(), "some were shown before"
    assert np.isnan(found.propensity[~struck]).sum() == 0


def test_of_another_world_or_reward_it_is_refused(world: World, world_maker: Callable[..., World]) -> None:
    found = recorded(world, one_of_many, "many", 3)
    found.check_world(world_maker(leave=0.5))  # other users in the same world see the same
    with pytest.raises(PolicyError, match=r"of world 'tiny' \(.*this is 'other' .*; record them anew in this world$"):
        found.check_world(replace(world, name="other"))
    with pytest.raises(PolicyError, match=r"earn by the reward .*; record them anew, or take the world with"):
        found.check_world(replace(world, reward=WeightedReward({"watch": 2.0})))


def test_without_propensities_weights_say_so(world: World) -> None:
    found = recorded(world, one_of_many, "many", 3)
    found.check_propensities()
    with pytest.raises(PolicyError, match="trajectories of the log hold no propensities, which weights need"):
        logged(world).check_propensities()


def test_what_cannot_be_written_or_read_is_said_in_a_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = recorded(world, one_of_many, "many", 2)
    with pytest.raises(RecloopError, match="many is no name of a Minari data set; name the folder NAME-v0"):
        write_trajectories(found, world, tmp_path / "many")
    with pytest.raises(RecloopError, match="format 'csv'; choose minari or parquet"):
        write_trajectories(found, world, tmp_path / "many", "csv")  # type: ignore[arg-type]
    with pytest.raises(RecloopError, match="does not exist; write one with `recloop trajectories WORLD"):
        read_trajectories(tmp_path / "many")
    with pytest.raises(PolicyError, match="hold no 'candidates', which belong to one way of acting"):
        recorded(world, one_of_many, "many", 2, observation=("state", "candidates"))
    with pytest.raises(PolicyError, match="a log tells no 'action_mask'"):
        logged(world, observation=("state", "action_mask"))
    write_trajectories(found, world, tmp_path / "cut", "parquet")
    (tmp_path / "cut" / "ends.parquet").unlink()
    with pytest.raises(RecloopError, match=r"ends\.parquet is missing; the folder is incomplete"):
        read_trajectories(tmp_path / "cut")
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(RecloopError, match="need minari and h5py; pip install"):
        write_trajectories(found, world, tmp_path / "many-v0")


def test_sessions_of_a_log_by_hand(world: World) -> None:
    """Without exposures a user's consumption is one episode, cut at its end."""
    found = logged(world, users="tune", episodes=4)
    users = [u for u in world.users.rows("tune").tolist() if u % 10][:4]
    assert found.users.tolist() == users
    assert np.diff(found.offsets).tolist() == [u % 10 for u in users]
    assert found.slates[:, 0].tolist() == [i for u in users for i in world.sequences.of(u)[0]]
    assert found.truncated.sum() == len(users)
    assert not found.terminated.any()
    assert (found.rewards == 1).all(), "every consumption is a watch"
    n = len(world.catalogue)
    for e in range(len(found)):
        moments = slice(found.offsets[e] + e, found.offsets[e + 1] + e + 1)
        history = found.observations["history"][moments]
        assert (history[0] == n).all()
        items = found.slates[found.offsets[e] : found.offsets[e + 1], 0]
        assert history[-1][-min(len(items), 6) :].tolist() == items[-6:].tolist()


def states_of(world: World, history: Tensor, feedback: Tensor, user: int) -> Tensor:
    start = world.state_encoder.start(world.users.profile[user : user + 1], history, feedback)
    return world.state_encoder.vector(start)[0]


def test_the_state_of_a_log_is_that_of_what_was_consumed_before(world: World) -> None:
    found = logged(world)
    for e in range(0, len(found), 3):
        user = int(found.users[e])
        for step in range(found.offsets[e + 1] - found.offsets[e] + 1):
            history, feedback = world.sequences.last(np.array([user]), 9, np.array([step]))
            mine = found.observations["state"][found.offsets[e] + e + step]
            assert np.allclose(mine, states_of(world, history, feedback, user), atol=1e-5)
