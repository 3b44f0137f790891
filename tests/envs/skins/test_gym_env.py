"""The single environment: Gymnasium's and Stable-Baselines3's own checks, and what it refuses."""

import pickle
import sys
import types
import warnings
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs import ENV_ID
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response, State
from recloop.envs.logs.schema import Signal
from recloop.envs.simulation.tasks import make_driver
from recloop.envs.skins.gym_env import RecommendEnv
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

MODES: dict[str, dict[str, Any]] = {
    "slate": {"action_mode": "slate"},
    "item": {"action_mode": "item"},
    "candidates": {"action_mode": "candidates", "candidates": 9},
    "one at a time": {"action_mode": "candidates", "one_at_a_time": True},
    "proto": {"action_mode": "proto"},
}
OBSERVATIONS = ("dict", "state", ("state", "history", "action_mask", "candidates"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("observation", OBSERVATIONS, ids=("dict", "state", "keys"))
@pytest.mark.parametrize("mode", MODES)
def test_gymnasium_checks_pass_without_a_warning(world: World, mode: str, observation: Any) -> None:
    """Also the checks that `gymnasium.make` wraps around every environment."""
    env = gym.make(ENV_ID, world=world, observation=observation, **MODES[mode])
    check_env(env.unwrapped)
    env.reset(seed=0)
    for _ in range(20):
        if any(env.step(env.action_space.sample())[2:4]):
            env.reset()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", MODES)
def test_gymnasium_checks_pass_where_items_are_forbidden(once_world: World, mode: str) -> None:
    check_env(gym.make(ENV_ID, world=once_world, sessions=2, start="cold", **MODES[mode]).unwrapped)


@pytest.mark.parametrize("mode", MODES)
def test_stable_baselines_checks_pass(world: World, mode: str) -> None:
    """Without a warning on the flat vector; on the Dict SB3 only says that tables are not vectors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(RecommendEnv(world, observation="state", **MODES[mode]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sb3_check_env(RecommendEnv(world, **MODES[mode]))
    others = [str(w.message) for w in said if "shape" not in str(w.message) and "image" not in str(w.message)]
    assert others == []


@pytest.mark.parametrize("mode", MODES)
def test_observations_lie_in_their_spaces_to_the_last(once_world: World, mode: str) -> None:
    env = RecommendEnv(once_world, **MODES[mode])
    seen, _ = env.reset(seed=2)
    for _ in range(40):
        assert seen in env.observation_space
        seen, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            assert seen in env.observation_space
            seen, _ = env.reset()


def test_the_default_observation_is_the_whole_past(world: World) -> None:
    env = RecommendEnv(world)
    seen, _ = env.reset(seed=0)
    assert isinstance(seen, dict)
    assert set(seen) == set(DEFAULT_KEYS)
    assert seen["answers"].shape == (3, 4, 2)
    flat = RecommendEnv(world, observation="state")
    vector, _ = flat.reset(seed=0)
    np.testing.assert_array_equal(vector, seen["state"])


def test_users_without_a_profile_have_none_in_the_observation(world: World) -> None:
    """A space of no numbers would break Stable-Baselines3; what the log does not hold is absent."""
    users = replace(world.users, profile=torch.zeros(30, 0), profile_names=())
    encoder = StateEncoder(world.item_vectors[:-1], [(0.0, 1.0), (1.0, 5.0)], profile_dim=0)
    env = RecommendEnv(replace(world, users=users, state_encoder=encoder))
    seen, _ = env.reset(seed=0)
    assert isinstance(seen, dict)
    assert set(seen) == set(DEFAULT_KEYS) - {"profile"}
    assert seen in env.observation_space


def test_info_tells_the_answer_by_signal(world: World) -> None:
    env = RecommendEnv(world, start="cold")
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([3, 3, 5, 7]))
    assert info["slate"].tolist() == [3, 40, 5, 7]
    assert info["invalid"] == 1
    assert set(info["response"]) == set(info["given"]) == {"watch", "rating"}
    assert info["given"]["watch"].tolist() == [True, False, True, True]
    np.testing.assert_array_equal(info["given"]["rating"], info["response"]["watch"] == 1)
    assert reward == info["response"]["watch"].sum()
    assert isinstance(info["left"], bool)


def test_proto_never_repeats(once_world: World) -> None:
    env = RecommendEnv(once_world, action_mode="proto")
    env.reset(seed=0)
    for _ in range(50):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        assert info["invalid"] == 0
        assert len(set(info["slate"].tolist())) == 4
        if terminated or truncated:
            env.reset()


def test_micro_steps_pay_with_the_last(world: World) -> None:
    """Three picks change nothing but `picked`; the fourth shows the slate."""
    env = RecommendEnv(world, action_mode="candidates", candidates=9, one_at_a_time=True)
    seen, _ = env.reset(seed=0)
    assert isinstance(seen, dict)
    chosen: list[int] = []
    for place in range(4):
        assert seen["picked"].tolist() == chosen + [40] * (4 - place)
        masks = env.action_masks()
        assert masks.tolist() == [int(item) not in chosen for item in seen["candidates"]]
        choice = int(masks.nonzero()[0][-1])
        chosen.append(int(seen["candidates"][choice]))
        seen, reward, terminated, truncated, info = env.step(choice)
        assert isinstance(seen, dict)
        if place < 3:
            assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    assert info["slate"].tolist() == chosen == seen["shown"][-1].tolist()
    assert seen["picked"].tolist() == [40] * 4
    assert reward == info["response"]["watch"].sum()


def test_an_empty_candidate_is_struck_and_counted(once_world: World) -> None:
    """User 9 has consumed nine items, so that nine of the forty candidates are empty."""
    env = RecommendEnv(once_world, action_mode="candidates")
    seen, _ = env.reset(seed=0, options={"users": 9})
    assert isinstance(seen, dict)
    assert (seen["candidates"] == 40).sum() == 9
    assert env.action_masks().tolist() == [item < 40 for item in seen["candidates"]] * 4
    info = env.step(np.array([0, 39, 1, 38]))[4]
    assert info["invalid"] == 2
    assert info["given"]["watch"].tolist() == [True, False, True, False]


def test_the_specification_can_be_sent_to_another_process(world: World) -> None:
    env = gym.make(ENV_ID, world=world, action_mode="proto")
    again = pickle.loads(pickle.dumps(env.spec)).make()
    assert again.unwrapped.action_space == env.action_space
    assert env.spec is not None
    assert env.spec.kwargs["world"] is world


def test_a_step_out_of_order_is_refused(world: World) -> None:
    env = RecommendEnv(world, max_steps=1)
    with pytest.raises(RecloopError, match=r"the episode is over; call reset\(\)"):
        env.step(np.array([0, 1, 2, 3]))
    env.reset(seed=0)
    env.step(np.array([0, 1, 2, 3]))
    with pytest.raises(RecloopError, match=r"the episode is over"):
        env.step(np.array([0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action_mode": "protto"}, "unknown action mode 'protto'; did you mean 'proto'"),
        ({"observation": "dcit"}, "unknown observation 'dcit'; did you mean 'dict'"),
        ({"observation": ("histroy",)}, "unknown observation key 'histroy'; did you mean 'history'"),
        ({"observation": ()}, "observation names no keys"),
        ({"observation": ("picked",)}, "'picked' exists with one_at_a_time=True only"),
        ({"render_mode": "human"}, "unknown render_mode 'human'"),
        ({"slate_size": 41}, "slate_size=41 does not fit a catalogue of 40 items"),
        ({"action_mode": "item", "slate_size": 5}, "slate_size is 5; set slate_size=1"),
        ({"action_mode": "candidates", "candidates": 99}, "candidates=99 does not fit a catalogue of 40"),
        ({"users": "evalute"}, "unknown part of the users 'evalute'; did you mean 'evaluate'"),
        ({"simulator": "jugde"}, "unknown simulator of world 'tiny' 'jugde'"),
        ({"simulator": "no.such:Users"}, "cannot import no.such:Users"),
        ({"device": "cuda:93"}, "device 'cuda:93' is not usable"),
    ],
)
def test_arguments_that_do_not_fit_are_named(world: World, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecloopError, match=message) as raised:
        RecommendEnv(world, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": 3}, "unknown reset option 'user'; did you mean 'users'"),
        ({"users": 2.5}, "reset option users=2.5; give one whole number or a list of 1"),
        ({"users": [1, 2]}, r"reset option users=\[1, 2\]; give one whole number or a list of 1"),
        ({"users": "u7"}, "reset option users='u7'"),
        ({"users": 30}, "users holds 30 to 30; the world's users table has rows 0 to 29"),
    ],
)
def test_reset_options_that_do_not_fit_are_named(world: World, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecloopError, match=message):
        RecommendEnv(world).reset(options=options)


def test_users_of_your_own_by_dotted_path(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_package")
    vars(module)["Silent"] = _Silent
    monkeypatch.setitem(sys.modules, "my_package", module)
    driver = make_driver(world, 2, simulator="my_package:Silent")
    assert isinstance(driver.core.simulator, _Silent)
    assert driver.step(torch.tensor([[0, 1, 2, 3]] * 2)).reward.tolist() == [0.0, 0.0]


@dataclass(frozen=True)
class _Nothing(State):
    users: torch.Tensor


class _Silent(UserSimulator):
    """Never watch anything and never leave."""

    signals = (Signal("watch"), Signal("rating", "ordinal", levels=(1.0, 5.0), given_on="watch"))

    def arrive(self, users: torch.Tensor, draw: Draw) -> _Nothing:
        return _Nothing(users)

    def respond(self, state: _Nothing, past: Past, slate: torch.Tensor, draw: Draw) -> tuple[_Nothing, Response]:
        zeros = torch.zeros(*slate.shape, 2)
        return state, Response(zeros, zeros == 1, torch.zeros(len(slate), dtype=torch.bool))


def test_an_unknown_option_is_named(world: World) -> None:
    with pytest.raises(RecloopError, match="unknown option of an environment 'slatesize'; did you mean 'slate_size'"):
        make_driver(world, 2, slatesize=3)
