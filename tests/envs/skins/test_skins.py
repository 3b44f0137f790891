"""Three skins tell one story: equal seeds, equal steps, equal ends, equal last observations."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from recloop.envs.skins.gym_env import RecommendEnv
from recloop.envs.skins.gym_vector import RecommendVectorEnv
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.world.world import World

LANES, STEPS, SEED = 5, 16, 5

MODES: dict[str, dict[str, Any]] = {
    "slate": {"action_mode": "slate"},
    "item": {"action_mode": "item"},
    "candidates": {"action_mode": "candidates", "candidates": 9},
    "one at a time": {"action_mode": "candidates", "candidates": 9, "one_at_a_time": True},
    "proto": {"action_mode": "proto"},
}


def same(left: Any, right: Any) -> None:
    """Equal shapes, kinds and values (floats within 1e-5: batches of other sizes may round otherwise)."""
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].shape == right[key].shape
        assert left[key].dtype == right[key].dtype
        np.testing.assert_allclose(left[key], right[key], atol=1e-5, rtol=0, err_msg=key)


def actions(space: gym.Space[Any]) -> NDArray[Any]:
    """(STEPS, LANES, ...) random actions."""
    space.seed(1)
    return np.array([[space.sample() for _ in range(LANES)] for _ in range(STEPS)])


@pytest.mark.parametrize("mode", MODES)
def test_three_skins_tell_one_story(once_world: World, mode: str) -> None:
    """Every lane of the batch is the single environment of that lane; ends and last observations are equal."""
    options = {**MODES[mode], "max_steps": 4}
    vector = RecommendVectorEnv(LANES, once_world, **options)
    singles = [RecommendEnv(once_world, **options) for _ in range(LANES)]
    start, _ = vector.reset(seed=SEED)
    sb3 = SB3VecEnv(once_world, LANES, seed=vector.driver.core.seed, observation="dict", **options)
    same(sb3.reset(), start)
    for lane, env in enumerate(singles):
        same(env.reset(seed=SEED, options={"lanes": lane})[0], {key: start[key][lane] for key in start})
    ends = {"terminated": 0, "truncated": 0}
    for action in actions(vector.single_action_space):
        seen, reward, terminated, truncated, info = vector.step(action)
        other, other_reward, done, infos = sb3.step(action)
        same(other, seen)
        np.testing.assert_array_equal(done, terminated | truncated)
        np.testing.assert_allclose(other_reward, reward, atol=1e-5)
        assert not (terminated & truncated).any()
        for lane, env in enumerate(singles):
            one, worth, left, cut, facts = env.step(action[lane])
            assert (left, cut) == (terminated[lane], truncated[lane])
            assert worth == pytest.approx(reward[lane], abs=1e-5)
            if not (left or cut):
                same(one, {key: seen[key][lane] for key in seen})
                assert infos[lane] == {}
                continue
            assert info["_final_obs"][lane]
            same(info["final_obs"][lane], one)
            same(infos[lane]["terminal_observation"], one)
            assert infos[lane]["TimeLimit.truncated"] is cut
            assert left == facts["left"] == infos[lane]["left"]
            assert one["context"][0] == 1.0 or left
            np.testing.assert_array_equal(facts["slate"], one["shown"][-1])
            np.testing.assert_array_equal(facts["slate"], info["final_info"]["slate"][lane])
            np.testing.assert_array_equal(facts["response"]["watch"], one["answers"][-1][:, 0])
            same(env.reset()[0], {key: seen[key][lane] for key in seen})  # the next episode of the lane
            ends["terminated"] += left
            ends["truncated"] += cut
    assert min(ends.values()) > 0


def test_a_reset_amid_an_episode_goes_on_to_the_next(world: World) -> None:
    env = RecommendEnv(world)
    _, first = env.reset(seed=3)
    env.step(np.array([0, 1, 2, 3]))
    _, second = env.reset()
    assert (first["episode_number"], second["episode_number"]) == (0, 1)
    _, third = env.reset()
    assert third["episode_number"] == 2
    assert env.reset(seed=3)[1] == first


def test_users_and_lanes_can_be_picked(world: World) -> None:
    env = RecommendEnv(world)
    assert env.reset(seed=1, options={"users": 7, "lanes": 17})[1] == {"user": 7, "lane": 17, "episode_number": 0}
    assert env.reset(options={"users": [8]})[1]["user"] == 8
    vector = RecommendVectorEnv(3, world)
    info = vector.reset(seed=1, options={"users": [3, 4, 5], "lanes": [9, 8, 7]})[1]
    assert info["user"].tolist() == [3, 4, 5]
    assert info["lane"].tolist() == [9, 8, 7]


def test_seeds_make_luck_and_no_seed_makes_its_own(world: World) -> None:
    first, second, other = (RecommendEnv(world) for _ in range(3))
    first.reset(seed=1)
    second.reset(seed=1)
    other.reset(seed=2)
    assert first.driver.core.seed == second.driver.core.seed != other.driver.core.seed
    alone, too = RecommendEnv(world), RecommendEnv(world)
    alone.reset()
    too.reset()
    assert alone.driver.core.seed != too.driver.core.seed
