"""The three autoreset modes: the same episodes, and Gymnasium's own wrappers run on them."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

import recloop
from recloop.encoders.base.errors import RecloopError
from recloop.envs import ENV_ID
from recloop.envs.skins.gym_env import RecommendEnv
from recloop.envs.skins.gym_vector import RecommendVectorEnv
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.world.world import World

LANES, STEPS = 5, 40
NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


def lane_envs(world: World, **options: Any) -> SyncVectorEnv:
    """What Gymnasium itself makes of single environments, each acting as a lane of the batch."""

    class Lane(RecommendEnv):
        def __init__(self, lane: int) -> None:
            super().__init__(world, **options)
            self.lane = lane

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            seed = None if seed is None else seed - self.lane  # Gymnasium gives lane i the seed + i
            return super().reset(seed=seed, options={"lanes": self.lane} if seed is not None else None)

    return SyncVectorEnv([lambda lane=lane: Lane(lane) for lane in range(LANES)], autoreset_mode=NEXT)


@pytest.mark.parametrize("options", [{"action_mode": "slate"}, {"action_mode": "proto", "observation": "state"}])
@pytest.mark.parametrize("sessions", [1, 2])
def test_next_step_is_gymnasiums_own(once_world: World, options: dict[str, Any], sessions: int) -> None:
    """Step by step as a SyncVectorEnv of single environments, waiting lanes and their ignored actions included."""
    options = {**options, "sessions": sessions, "max_steps": 4}
    mine, theirs = (
        RecommendVectorEnv(LANES, once_world, autoreset_mode=NEXT, **options),
        lane_envs(once_world, **options),
    )
    mine.action_space.seed(0)
    found, expected = mine.reset(seed=7), theirs.reset(seed=7)
    waits = 0
    for _ in range(STEPS):
        action = mine.action_space.sample()
        found, expected = mine.step(action), theirs.step(action)
        for ours, gyms in zip(found[1:4], expected[1:4], strict=True):
            np.testing.assert_allclose(ours, gyms, rtol=1e-6)
        seen = found[0] if isinstance(found[0], dict) else {"state": found[0]}
        wanted = expected[0] if isinstance(expected[0], dict) else {"state": expected[0]}
        for key, value in seen.items():
            np.testing.assert_allclose(value, wanted[key], rtol=1e-5, atol=1e-6, err_msg=key)
        for key in ("slate", "invalid", "user", "episode_number"):
            np.testing.assert_array_equal(
                found[4].get(f"_{key}", False), expected[4].get(f"_{key}", False), err_msg=key
            )
            if key in expected[4]:  # Gymnasium leaves out what concerns no lane
                np.testing.assert_array_equal(found[4][key], expected[4][key], err_msg=key)
        assert "final_obs" not in found[4]
        waits += int(found[4].get("_user", np.zeros(LANES)).sum())
    assert waits > LANES


def test_an_ignored_action_may_be_anything(world: World) -> None:
    envs = RecommendVectorEnv(LANES, world, autoreset_mode="NextStep", action_mode="proto", max_steps=1)
    envs.reset(seed=0)
    _, _, _, truncated, _ = envs.step(envs.action_space.sample())
    assert truncated.all() or truncated.any()
    seen, reward, terminated, truncated, info = envs.step(np.full(envs.action_space.shape, np.nan, dtype=np.float32))
    assert not reward.any()
    assert not (terminated | truncated).any()
    assert info["_user"].all()
    assert not info["slate"].any()
    assert seen in envs.observation_space


def test_all_modes_walk_through_the_same_episodes(world: World) -> None:
    """The returns of the episodes of each lane, whoever resets them."""

    def returns(mode: AutoresetMode) -> list[list[float]]:
        envs = RecommendVectorEnv(LANES, world, autoreset_mode=mode, action_mode="slate")
        envs.reset(seed=3)
        fixed = np.tile(np.arange(4), (LANES, 1))
        running, found = np.zeros(LANES), [[] for _ in range(LANES)]
        for _ in range(60):
            _, reward, terminated, truncated, _ = envs.step(fixed)
            running += reward
            done = terminated | truncated
            for lane in done.nonzero()[0]:
                found[lane].append(round(float(running[lane]), 4))
                running[lane] = 0
            if mode is DISABLED and done.any():
                _, info = envs.reset(options={"reset_mask": done})
                np.testing.assert_array_equal(info["_user"], done)
        return [lane[:5] for lane in found]

    assert returns(SAME) == returns(NEXT) == returns(DISABLED)


def test_disabled_waits_to_be_reset_and_breaks_off_who_is_named(world: World) -> None:
    envs = RecommendVectorEnv(LANES, world, autoreset_mode="DISABLED", max_steps=2, observation="state")
    envs.reset(seed=0)
    mask = np.arange(LANES) == 1
    before, _, *_ = envs.step(envs.action_space.sample())
    after, info = envs.reset(options={"reset_mask": mask})
    assert info["episode_number"].tolist() == [0, 1, 0, 0, 0]
    np.testing.assert_array_equal(after[~mask], before[~mask])
    last, _, terminated, truncated, _ = envs.step(envs.action_space.sample())
    done = terminated | truncated
    assert done[~mask].all()
    with pytest.raises(RecloopError, match="the episode of lane 0 is over; start the next one with reset"):
        envs.step(envs.action_space.sample())
    some = np.arange(LANES) == 0
    seen, _ = envs.reset(options={"reset_mask": some})
    np.testing.assert_array_equal(seen[done & ~some], last[done & ~some])
    for wrong in (np.zeros(LANES, bool), np.ones(LANES), np.ones(2, bool)):
        with pytest.raises(RecloopError, match="give bool"):
            envs.reset(options={"reset_mask": wrong})
    with pytest.raises(RecloopError, match="no seed and no other option"):
        envs.reset(seed=1, options={"reset_mask": some})
    with pytest.raises(RecloopError, match="reset_mask needs autoreset_mode='DISABLED'"):
        RecommendVectorEnv(LANES, world).reset(options={"reset_mask": some})


@pytest.mark.parametrize("mode", [NEXT, DISABLED])
def test_gymnasiums_wrappers_run(world: World, mode: AutoresetMode) -> None:
    options = {"autoreset_mode": mode, "observation": "state", "action_mode": "proto", "max_steps": 3}
    envs: Any = gym.make_vec(ENV_ID, num_envs=LANES, world=world, **options)
    assert envs.autoreset_mode is envs.metadata["autoreset_mode"] is mode
    assert RecommendVectorEnv.metadata["autoreset_mode"] is SAME
    envs = wrappers.RecordEpisodeStatistics(envs)
    envs = wrappers.FlattenObservation(envs)
    if mode is NEXT:  # it takes no other
        envs = wrappers.NormalizeObservation(envs)
    envs = wrappers.ClipReward(wrappers.NormalizeReward(envs), -5.0, 5.0)
    envs = wrappers.RescaleAction(envs, -2.0, 2.0)
    envs = wrappers.DtypeObservation(envs, np.float64)
    envs.reset(seed=0)
    lengths: list[int] = []
    for _ in range(12):
        _, reward, terminated, truncated, info = envs.step(envs.action_space.sample() * 0)
        assert np.isfinite(reward).all()
        if "episode" in info:
            lengths += info["episode"]["l"][info["_episode"]].tolist()
        if mode is DISABLED and (terminated | truncated).any():
            envs.reset(options={"reset_mask": terminated | truncated})
    assert lengths
    assert set(lengths) <= {1, 2, 3}
    assert 3 in lengths


def test_tensors_wait_too(world: World) -> None:
    envs = RecommendVectorEnv(LANES, world, tensors=True, autoreset_mode=NEXT, max_steps=1, action_mode="proto")
    envs.reset(seed=0)
    last, _, _, _, info = envs.step(envs.action_space.sample())
    assert info["finished"].tolist() == list(range(LANES))
    assert "final_obs" not in info
    first, reward, *_ = envs.step(envs.action_space.sample())
    assert not reward.any()
    assert not bool((first["context"] == last["context"]).all())


def test_rendering_a_lane_that_waits(world: World) -> None:
    envs = RecommendVectorEnv(2, world, autoreset_mode=NEXT, max_steps=1, render_mode="ansi")
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    assert "action 1, at most 1 slates" in envs.render()[0]
    envs.step(envs.action_space.sample())
    assert "action 0, at most 1 slates, return 0.00\n" in envs.render()[0]


def test_what_nobody_knows_gets_the_nearest_name(world: World) -> None:
    for make, wrong, near in (
        (lambda **o: gym.make(ENV_ID, world=world, **o), "obsrvation", "observation"),
        (lambda **o: gym.make_vec(ENV_ID, num_envs=2, world=world, **o), "autoreset", "autoreset_mode"),
        (lambda **o: gym.make_vec(ENV_ID, num_envs=2, world=world, **o), "tensor", "tensors"),
        (lambda **o: SB3VecEnv(world, **o), "n_envs", "num_envs"),
        (lambda **o: SB3VecEnv(world, **o), "render_mod", "render_mode"),
    ):
        with pytest.raises(RecloopError, match=f"unknown option of an environment '{wrong}'; did you mean '{near}'"):
            make(**{wrong: 2})
    with pytest.raises(RecloopError, match="unknown autoreset_mode 'NEXTSTEP'; did you mean 'NEXT_STEP'"):
        RecommendVectorEnv(2, world, autoreset_mode="NEXTSTEP")
    with pytest.raises(RecloopError, match="one_at_a_time=True goes with autoreset_mode=SAME_STEP alone"):
        RecommendVectorEnv(2, world, autoreset_mode=NEXT, action_mode="candidates", one_at_a_time=True)


def test_num_envs_works_everywhere(world: World) -> None:
    assert gym.make(ENV_ID, world=world, num_envs=1).unwrapped.driver.core.batch == 1
    with pytest.raises(RecloopError, match=r"num_envs=8: this is one user at a time; make several with recloop.make"):
        gym.make(ENV_ID, world=world, num_envs=8)
    assert gym.make_vec(ENV_ID, num_envs=8, world=world).num_envs == 8
    assert recloop.make(num_envs=8, world=world).num_envs == 8
    assert SB3VecEnv(world, num_envs=8).num_envs == 8
