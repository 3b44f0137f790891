"""The vector environment: Gymnasium's promises about spaces, masks and autoreset, and tensors without a copy."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from recloop.encoders.base.errors import RecloopError
from recloop.envs import ENV_ID
from recloop.envs.skins.gym_vector import RecommendVectorEnv
from recloop.envs.world.world import World

LANES = 8


def masks_fit(info: dict[str, Any]) -> None:
    """Every key has its mask, bool (B,), and whole numbers are 0 where it is False."""
    for key, value in info.items():
        if key.startswith("_"):
            assert value.dtype == np.bool_
            assert value.shape == (LANES,)
            continue
        mask = info[f"_{key}"]
        if isinstance(value, dict):
            masks_fit(value)
        elif value.dtype != object:
            assert not value[~mask].any()
        else:
            assert all((value[lane] is not None) == mask[lane] for lane in range(LANES))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("observation", ["dict", "state"])
def test_make_vec_and_its_promises(world: World, observation: str) -> None:
    envs: VectorEnv[Any, Any, Any] = gym.make_vec(
        ENV_ID,
        num_envs=LANES,
        vectorization_mode="vector_entry_point",
        world=world,
        observation=observation,
        max_steps=4,
    )
    assert isinstance(envs, RecommendVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    seen, info = envs.reset(seed=0)
    masks_fit(info)
    ended = 0
    for _ in range(12):
        assert seen in envs.observation_space
        seen, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
        assert reward.dtype == np.float64
        assert reward.shape == terminated.shape == truncated.shape == (LANES,)
        masks_fit(info)
        done = terminated | truncated
        if done.any():
            np.testing.assert_array_equal(info["_final_obs"], done)
            np.testing.assert_array_equal(info["_final_info"], done)
            np.testing.assert_array_equal(info["_episode_number"], done)
            assert all(info["final_obs"][lane] in envs.single_observation_space for lane in done.nonzero()[0])
        else:
            assert "final_obs" not in info
        np.testing.assert_array_equal(info["_slate"], ~done)
        ended += int(done.sum())
    assert ended >= 2 * LANES
    envs.close()


def test_gymnasiums_own_wrapper_counts_our_episodes(world: World) -> None:
    envs = RecordEpisodeStatistics(RecommendVectorEnv(LANES, world, max_steps=3, action_mode="proto"))
    envs.reset(seed=0)
    lengths: list[int] = []
    for _ in range(9):
        _, _, _, _, info = envs.step(envs.action_space.sample())
        if "episode" in info:
            lengths += info["episode"]["l"][info["_episode"]].tolist()
    assert lengths
    assert set(lengths) <= {1, 2, 3}


def test_tensors_are_handed_out_without_a_copy(world: World) -> None:
    envs = RecommendVectorEnv(LANES, world, tensors=True, max_steps=3)
    arrays = RecommendVectorEnv(LANES, world, max_steps=3)
    seen, _ = envs.reset(seed=0)
    expected, _ = arrays.reset(seed=0)
    assert seen["history"].data_ptr() == envs.driver.core.past.history.data_ptr()
    ended = 0
    for _ in range(6):
        for key, value in expected.items():
            np.testing.assert_array_equal(seen[key].numpy(), value)
            assert seen[key].numpy().dtype == value.dtype
        action = torch.from_numpy(arrays.action_space.sample())
        seen, reward, terminated, truncated, info = envs.step(action)
        expected, worth, left, cut, facts = arrays.step(action.numpy())
        np.testing.assert_array_equal(reward.numpy(), worth.astype(np.float32))
        np.testing.assert_array_equal(terminated.numpy(), left)
        np.testing.assert_array_equal(truncated.numpy(), cut)
        if "final_obs" in facts:
            assert info["finished"].tolist() == (left | cut).nonzero()[0].tolist()
            for place, lane in enumerate(info["finished"].tolist()):
                for key, value in facts["final_obs"][lane].items():
                    np.testing.assert_array_equal(info["final_obs"][key][place].numpy(), value)
            ended += len(info["finished"])
    assert ended


def test_arrays_are_the_agents_own(world: World) -> None:
    """Changing what was handed out changes nothing in the simulation."""
    envs = RecommendVectorEnv(LANES, world)
    seen, _ = envs.reset(seed=0)
    for value in seen.values():
        value[...] = 0
    assert (envs.driver.observation["history"] == 40).any()


def test_masks_of_all_lanes(once_world: World) -> None:
    envs = RecommendVectorEnv(LANES, once_world, action_mode="item", users="all")
    envs.reset(seed=0)
    users = envs.driver.core.users.tolist()
    for lane, user in enumerate(users):
        logged = once_world.sequences.of(user)[0]
        assert sorted((~envs.action_masks()[lane]).nonzero()[0].tolist()) == sorted(logged.tolist())


def test_the_wrong_number_of_actions_is_refused(world: World) -> None:
    envs = RecommendVectorEnv(LANES, world)
    envs.reset(seed=0)
    with pytest.raises(RecloopError, match=r"action has shape .*; give one row a lane, 8"):
        envs.step(np.zeros((3, 4), dtype=np.int64))
