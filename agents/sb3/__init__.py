"""Stable-Baselines3 agents: PPO, DQN and MaskablePPO with networks that score item vectors.

Names are imported when asked for, so that serving a saved policy does not import Stable-Baselines3.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recloop.agents.sb3.configs import DQNConfig, MaskablePPOConfig, PPOConfig, ProtoPPOConfig, SlatePPOConfig
    from recloop.agents.sb3.training import dqn, maskable_ppo, ppo, ppo_proto, train_sb3

_HOMES = {
    "PPOConfig": "configs",
    "ProtoPPOConfig": "configs",
    "SlatePPOConfig": "configs",
    "MaskablePPOConfig": "configs",
    "DQNConfig": "configs",
    "train_sb3": "training",
    "ppo": "training",
    "ppo_proto": "training",
    "dqn": "training",
    "maskable_ppo": "training",
}

__all__ = [
    "DQNConfig",
    "MaskablePPOConfig",
    "PPOConfig",
    "ProtoPPOConfig",
    "SlatePPOConfig",
    "dqn",
    "maskable_ppo",
    "ppo",
    "ppo_proto",
    "train_sb3",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
