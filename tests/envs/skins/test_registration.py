"""`recloop/Recommend-v0` from a bare interpreter, in spawned workers, and without loading what is not used."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import recloop.envs
from recloop.encoders.base.errors import WorldError

NAME = "recloop.envs:recloop/Recommend-v0"


def bare(code: str) -> str:
    """What a fresh interpreter, outside the project's folder, prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_registration_is_cheap_and_can_be_repeated() -> None:
    code = (
        "import sys, importlib, recloop.envs as e; importlib.reload(e); import gymnasium as gym\n"
        "heavy = {'torch', 'pandas', 'stable_baselines3', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy), e.ENV_ID in gym.registry)"
    )
    assert bare(code).strip() == "[] True"


def test_public_names_load_when_used() -> None:
    for name in recloop.envs.__all__:
        assert getattr(recloop.envs, name) is not None
    assert set(recloop.envs.__all__) <= set(dir(recloop.envs))
    with pytest.raises(AttributeError, match="has no attribute 'Wrold'"):
        _ = recloop.envs.Wrold


def test_make_in_one_string_from_a_bare_interpreter() -> None:
    code = f"""
import gymnasium as gym
env = gym.make("{NAME}", action_mode="proto")
env.reset(seed=0)
print(env.unwrapped.driver.core.world.is_truth, env.step(env.action_space.sample())[0]["state"].shape)
"""
    assert bare(code).strip().startswith("True (")


def test_a_world_that_is_not_there_is_named() -> None:
    with pytest.raises(WorldError, match="the world folder no/such/world does not exist"):
        gym.make(NAME, world="no/such/world")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in world, saved."""
    from recloop.envs.truth.built_in import built_in_world

    path = tmp_path_factory.mktemp("worlds") / "built-in"
    built_in_world().save(path)
    return path


def test_a_saved_world_is_the_world(folder: Path) -> None:
    """Equal seeds give equal steps in the built-in world and in its folder."""
    here, there = gym.make(NAME, action_mode="slate"), gym.make(NAME, action_mode="slate", world=str(folder))
    here.action_space.seed(0)
    for env in (here, there):
        env.reset(seed=1)
    for _ in range(5):
        action = here.action_space.sample()
        one, other = here.step(action), there.step(action)
        for key in one[0]:
            np.testing.assert_array_equal(one[0][key], other[0][key])
        assert one[1:4] == other[1:4]
        if one[2] or one[3]:
            break


@pytest.mark.slow
def test_spawned_workers(folder: Path) -> None:
    """`AsyncVectorEnv` with spawn: each worker is the single environment of its seed."""
    makers = [partial(gym.make, NAME, world=str(folder), action_mode="proto", users="evaluate") for _ in range(2)]
    envs: Any = gym.vector.AsyncVectorEnv(makers, context="spawn")
    try:
        seen, _ = envs.reset(seed=[3, 4])
        action = np.zeros((2, *envs.single_action_space.shape), dtype=np.float32)
        action[:, 0] = 1.0
        after = envs.step(action)
    finally:
        envs.close()
    for lane, seed in enumerate((3, 4)):
        env = makers[0]()
        first, _ = env.reset(seed=seed)
        then = env.step(action[lane])
        for key in first:
            np.testing.assert_allclose(seen[key][lane], first[key], atol=1e-5)
            np.testing.assert_allclose(after[0][key][lane], then[0][key], atol=1e-5)
        assert after[1][lane] == pytest.approx(then[1])


@pytest.mark.slow
def test_make_vec_with_spawned_workers() -> None:
    """The same from one call, in the built-in world that every worker makes for itself."""
    envs: Any = gym.make_vec(NAME, num_envs=2, vectorization_mode="async", vector_kwargs={"context": "spawn"})
    try:
        seen, _ = envs.reset(seed=0)
        assert seen in envs.observation_space
        assert envs.step(envs.action_space.sample())[1].shape == (2,)
    finally:
        envs.close()
