"""Logged user behaviour as a world of simulated users, in which policies are trained and compared in one loop.

    import recloop

    world = recloop.built_in_world()                     # or recloop.World.load("worlds/ml-100k")
    env = recloop.make(world=world)                      # a Gymnasium environment
    policy = recloop.load_policy("policies/ppo")         # serves recommendations outside any simulator

Names are loaded when they are first used, so that `import recloop` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recloop.agents.policy import Policy
    from recloop.agents.registry import load_policy, make_policy
    from recloop.encoders.base.errors import RecloopError
    from recloop.envs.build.pipeline import build_world
    from recloop.envs.logs.cleaning import read
    from recloop.envs.simulation.core import Core
    from recloop.envs.truth.built_in import built_in_world
    from recloop.envs.users.checks import check_users
    from recloop.envs.users.contract import UserSimulator
    from recloop.envs.users.per_user import PerUserSimulator
    from recloop.envs.world.world import World
    from recloop.experiments.commands.compare import compare
    from recloop.experiments.commands.train import TrainConfig, train
    from recloop.experiments.comparison.config import CompareConfig

_HOMES = {
    "CompareConfig": "experiments.comparison.config:CompareConfig",
    "Core": "envs.simulation.core:Core",
    "PerUserSimulator": "envs.users.per_user:PerUserSimulator",
    "Policy": "agents.policy:Policy",
    "RecloopError": "encoders.base.errors:RecloopError",
    "TrainConfig": "experiments.commands.train:TrainConfig",
    "UserSimulator": "envs.users.contract:UserSimulator",
    "World": "envs.world.world:World",
    "build_world": "envs.build.pipeline:build_world",
    "built_in_world": "envs.truth.built_in:built_in_world",
    "check_users": "envs.users.checks:check_users",
    "compare": "experiments.commands.compare:compare",
    "load_policy": "agents.registry:load_policy",
    "make_policy": "agents.registry:make_policy",
    "read": "envs.logs.cleaning:read",
    "train": "experiments.commands.train:train",
}
"""Public name -> where it lives."""

__all__ = [
    "CompareConfig",
    "Core",
    "PerUserSimulator",
    "Policy",
    "RecloopError",
    "TrainConfig",
    "UserSimulator",
    "World",
    "__version__",
    "build_world",
    "built_in_world",
    "check_users",
    "compare",
    "load_policy",
    "make",
    "make_policy",
    "read",
    "train",
]


def make(**options: Any) -> Any:
    """`gymnasium.make("recloop/Recommend-v0", **options)`: one user at a time; without `world` the built-in one.

    With `num_envs` it is `gymnasium.make_vec`: so many users at once.
    """
    import gymnasium

    from recloop.envs import ENV_ID

    return gymnasium.make_vec(ENV_ID, **options) if "num_envs" in options else gymnasium.make(ENV_ID, **options)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("recloop")
    if name not in _HOMES:
        raise AttributeError(f"module 'recloop' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"recloop.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
