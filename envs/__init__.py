"""From logs to a world one can act in. Importing this registers `recloop/Recommend-v0` and loads nothing heavy."""

from importlib import import_module
from typing import TYPE_CHECKING

import gymnasium as gym

if TYPE_CHECKING:
    from recloop.envs.build.examination import with_reward
    from recloop.envs.interaction.randomness import Draw
    from recloop.envs.interaction.response import Expected, Past, Response, State
    from recloop.envs.interaction.reward import Outcome, WeightedReward
    from recloop.envs.interaction.rules import Rules
    from recloop.envs.interaction.transition import Transition
    from recloop.envs.logs.schema import Signal
    from recloop.envs.simulation.actions import ActionCodec, EncoderRetriever, Retriever, make_codec
    from recloop.envs.simulation.core import Core
    from recloop.envs.skins.gym_env import RecommendEnv
    from recloop.envs.skins.gym_vector import RecommendVectorEnv
    from recloop.envs.skins.sb3_vector import SB3VecEnv
    from recloop.envs.truth.built_in import built_in_world
    from recloop.envs.users.checks import check_users
    from recloop.envs.users.contract import UserSimulator
    from recloop.envs.users.per_user import PerUserSimulator
    from recloop.envs.world.world import World

ENV_ID = "recloop/Recommend-v0"

_HOMES = {
    "ActionCodec": "simulation.actions",
    "Core": "simulation.core",
    "Draw": "interaction.randomness",
    "EncoderRetriever": "simulation.actions",
    "Expected": "interaction.response",
    "Outcome": "interaction.reward",
    "Past": "interaction.response",
    "PerUserSimulator": "users.per_user",
    "RecommendEnv": "skins.gym_env",
    "RecommendVectorEnv": "skins.gym_vector",
    "Response": "interaction.response",
    "Retriever": "simulation.actions",
    "Rules": "interaction.rules",
    "SB3VecEnv": "skins.sb3_vector",
    "Signal": "logs.schema",
    "State": "interaction.response",
    "Transition": "interaction.transition",
    "UserSimulator": "users.contract",
    "WeightedReward": "interaction.reward",
    "World": "world.world",
    "built_in_world": "truth.built_in",
    "check_users": "users.checks",
    "make_codec": "simulation.actions",
    "with_reward": "build.examination",
}
"""Public name -> the module it is loaded from when first used: torch stays out of a mere registration."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


if ENV_ID not in gym.registry:
    gym.register(
        ENV_ID,
        entry_point="recloop.envs.skins.gym_env:RecommendEnv",
        vector_entry_point="recloop.envs.skins.gym_vector:RecommendVectorEnv",
    )

__all__ = [
    "ENV_ID",
    "ActionCodec",
    "Core",
    "Draw",
    "EncoderRetriever",
    "Expected",
    "Outcome",
    "Past",
    "PerUserSimulator",
    "RecommendEnv",
    "RecommendVectorEnv",
    "Response",
    "Retriever",
    "Rules",
    "SB3VecEnv",
    "Signal",
    "State",
    "Transition",
    "UserSimulator",
    "WeightedReward",
    "World",
    "built_in_world",
    "check_users",
    "make_codec",
    "with_reward",
]
