"""The Stable-Baselines3 skin: its algorithms run on it, twice the same, and find what they ask for."""

from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from recloop.encoders.base.errors import RecloopError
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.world.world import World


def test_infos_are_empty_but_for_lanes_that_ended(world: World) -> None:
    env = SB3VecEnv(world, 6, seed=1, max_steps=3)
    env.reset()
    returns, lengths = np.zeros(6), np.zeros(6, dtype=int)
    ended = 0
    for _ in range(12):
        _, reward, done, infos = env.step(np.array([env.action_space.sample() for _ in range(6)]))
        returns, lengths = returns + reward, lengths + 1
        for lane in range(6):
            if not done[lane]:
                assert infos[lane] == {}
                continue
            episode = infos[lane]["episode"]
            assert episode["r"] == pytest.approx(returns[lane])
            assert episode["l"] == lengths[lane]
            assert infos[lane]["TimeLimit.truncated"] == (not infos[lane]["left"])
            assert infos[lane]["terminal_observation"] in env.observation_space
            returns[lane], lengths[lane] = 0, 0
            ended += 1
    assert ended > 12


@pytest.mark.filterwarnings("error")
def test_ppo_trained_twice_has_equal_bits(world: World) -> None:
    def train() -> dict[str, torch.Tensor]:
        model = PPO("MlpPolicy", SB3VecEnv(world, 4, seed=1), n_steps=16, batch_size=32, n_epochs=2, seed=3)
        model.learn(128)
        assert len(model.ep_info_buffer or ()) > 0  # SB3 logs ep_rew_mean from these
        return model.policy.state_dict()

    first, second = train(), train()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.filterwarnings("error")
def test_dqn_and_maskable_ppo_run(once_world: World) -> None:
    DQN("MlpPolicy", SB3VecEnv(once_world, 4, action_mode="item"), learning_starts=20).learn(60)
    env = SB3VecEnv(once_world, 4, action_mode="candidates", one_at_a_time=True, observation=("state",), candidates=8)
    assert is_masking_supported(env)
    assert get_action_masks(env).shape == (4, 8)
    model = MaskablePPO("MultiInputPolicy", env, n_steps=16, batch_size=32, n_epochs=1)
    model.learn(64)
    seen: Any = env.reset()
    invalid = 0
    for _ in range(40):
        action, _ = model.predict(seen, action_masks=get_action_masks(env))
        seen, _, _, infos = env.step(action)
        invalid += sum(int(info["invalid"]) for info in infos if info)
    assert invalid == 0


@pytest.mark.filterwarnings("error")
def test_sb3s_own_tools_work(world: World) -> None:
    model = PPO("MlpPolicy", SB3VecEnv(world, 4), n_steps=16, batch_size=32)
    mean, _ = evaluate_policy(model, SB3VecEnv(world, 4, seed=9), n_eval_episodes=6)
    assert isinstance(mean, float)
    assert 0 <= mean <= 4 * 6
    wrapped = VecNormalize(SB3VecEnv(world, 4))
    PPO("MlpPolicy", wrapped, n_steps=16, batch_size=32, n_epochs=1).learn(64)


def test_seeds_and_episodes(world: World) -> None:
    """The first reset is the seed's episode 0; later ones go on; `seed` starts anew."""
    env = SB3VecEnv(world, 3, seed=4)
    first = env.reset()
    assert [info["episode_number"] for info in env.reset_infos] == [0, 0, 0]
    env.reset()
    assert [info["episode_number"] for info in env.reset_infos] == [1, 1, 1]
    assert env.seed(4) == [4, 4, 4]
    np.testing.assert_array_equal(env.reset(), first)
    env.set_options({"users": [5, 6, 7], "lanes": [17, 18, 19]})
    env.reset()
    assert [(info["user"], info["lane"]) for info in env.reset_infos] == [(5, 17), (6, 18), (7, 19)]
    env.set_options([{"users": 1}, {"users": 2}, {"users": 3}])
    env.reset()
    assert [info["user"] for info in env.reset_infos] == [1, 2, 3]


def test_questions_about_lanes(world: World) -> None:
    env = SB3VecEnv(world, 3, action_mode="item", render_mode="ansi")
    env.reset()
    assert env.get_attr("render_mode") == ["ansi"] * 3
    assert env.get_attr("num_envs", indices=1) == [3]
    assert not env.has_attr("no_such_thing")
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(VecMonitor) == [False] * 3
    assert len(env.env_method("action_masks", indices=[0, 2])) == 2
    assert "tiny" in env.env_method("render", indices=1)[0]
    env.set_attr("note", 3)
    assert env.get_attr("note") == [3, 3, 3]
    with pytest.raises(RecloopError, match="lanes share 'note'; set it for all 3"):
        env.set_attr("note", 4, indices=[1])
    with pytest.raises(AttributeError, match="no method 'dance'"):
        env.env_method("dance")
    with pytest.raises(RecloopError, match=r"step_wait\(\) without step_async\(\)"):
        env.step_wait()
