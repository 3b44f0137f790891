"""Agents of Stable-Baselines3 and its contrib package by name: `sb3:SAC`, `sb3:PPO-proto`; defaults lie in `zoo.yaml`.

from recloop.agents.sb3.zoo import agent
policy = agent("SAC").fit(world, FitOptions(settings={"tau": 0.01}))
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import sb3_contrib
import stable_baselines3
import yaml
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy

from recloop.agents.sb3.adapters import (
    ItemActorCritic,
    ItemContinuous,
    ItemDQNPolicy,
    ItemQRDQNPolicy,
    ItemRecurrentPolicy,
)
from recloop.agents.sb3.configs import config_of
from recloop.agents.sb3.exploration import ActorExploration, MaskedExploration
from recloop.agents.sb3.training import SB3Agent
from recloop.encoders.base.errors import PolicyError, unknown_name

Mode = Literal["candidates", "picks", "item", "proto"]
"""What an action is: K of C candidates, one candidate at a time, one item of the catalogue, a point in item space."""


@dataclass(frozen=True)
class Family:
    """Algorithms that share a class of policies.

    Args:
        modes: what they can take, the usual one first.
        adapted: their policy class with our networks, or what goes before it.
        explores: what goes before the algorithm where it explores in its own way.
    """

    modes: tuple[Mode, ...]
    adapted: type[Any]
    explores: type[Any] | None = None


_VALUES: tuple[Mode, ...] = ("item", "picks")
_POINTS = Family(("proto",), ItemContinuous, ActorExploration)
FAMILIES: dict[type[BasePolicy], Family] = {
    RecurrentActorCriticPolicy: Family(("candidates", "item", "proto"), ItemRecurrentPolicy),
    MaskableActorCriticPolicy: Family(("picks", "item"), ItemActorCritic),
    ActorCriticPolicy: Family(("candidates", "picks", "item", "proto"), ItemActorCritic),
    DQNPolicy: Family(_VALUES, ItemDQNPolicy, MaskedExploration),
    QRDQNPolicy: Family(_VALUES, ItemQRDQNPolicy, MaskedExploration),
    SACPolicy: _POINTS,
    TD3Policy: _POINTS,
    TQCPolicy: _POINTS,
    CrossQPolicy: _POINTS,
}
"""By class of policies; the first that an algorithm's policies belong to counts."""

ALIASES = {"ppo": "PPO", "ppo-proto": "PPO-proto", "dqn": "DQN", "maskable-ppo": "MaskablePPO"}
"""Names of the registry -> names here."""
PAPERS = {
    "A2C": "Mnih et al. 2016",
    "CrossQ": "Bhatt et al. 2024",
    "DDPG": "Lillicrap et al. 2016",
    "DQN": "Mnih et al. 2015",
    "MaskablePPO": "Huang and Ontañón 2022",
    "PPO": "Schulman et al. 2017",
    "QRDQN": "Dabney et al. 2018",
    "RecurrentPPO": "Schulman et al. 2017",
    "SAC": "Haarnoja et al. 2018",
    "TD3": "Fujimoto et al. 2018",
    "TQC": "Kuznetsov et al. 2020",
    "TRPO": "Schulman et al. 2015",
}
_SUFFIXES = ("slate", "candidates", "picks", "item", "proto")

TUNED: dict[str, dict[str, Any]] = yaml.safe_load(files(__package__).joinpath("zoo.yaml").read_text(encoding="utf-8"))
"""Name -> defaults that differ from those of the algorithm's constructor."""


def _policy_of(algorithm: type[BaseAlgorithm]) -> type[BasePolicy]:
    """The class of an algorithm's policies over vectors."""
    return next(kind for name, kind in algorithm.policy_aliases.items() if name.startswith("Mlp"))


def _family_of(algorithm: type[BaseAlgorithm]) -> Family | None:
    return next((found for kind, found in FAMILIES.items() if issubclass(_policy_of(algorithm), kind)), None)


_KINDS = [getattr(home, name) for home in (stable_baselines3, sb3_contrib) for name in home.__all__]
_TRAINABLE = [kind for kind in _KINDS if isinstance(kind, type) and issubclass(kind, BaseAlgorithm)]
ALGORITHMS = {
    kind.__name__: (kind, family)
    for kind in sorted(_TRAINABLE, key=lambda kind: kind.__name__)
    if (family := _family_of(kind)) is not None
}
"""Name -> class and family of every algorithm of both packages, but for ARS, which uses no gradients."""


@cache
def agent(name: str) -> type[SB3Agent]:
    """The trainer of an algorithm, in a mode of actions.

    Args:
        name: `SAC`, or `PPO-proto` for a mode other than the usual one; `QR-DQN` is `QRDQN`.

    Raises:
        PolicyError: an unknown algorithm (suggests the nearest), or one that cannot take the mode (says which can).
    """
    algorithm_name, mode = _parted(ALIASES.get(name, name))
    algorithm, family = ALGORITHMS[algorithm_name]
    if mode is not None and mode not in family.modes:
        others = [other for other, (_, its) in ALGORITHMS.items() if mode in its.modes]
        raise PolicyError(
            f"{algorithm_name} cannot take action mode '{mode}', it takes {' and '.join(family.modes)}; '{mode}' is "
            f"taken by {', '.join(others) or 'no agent, since its places would repeat items; choose candidates'}"
        )
    mode = mode or family.modes[0]
    policy = _policy_of(algorithm)
    tuned = TUNED.get(f"{algorithm_name}-{mode}", TUNED.get(algorithm_name, {}))
    facts = {
        "__doc__": f"{algorithm_name} of Stable-Baselines3 on `{mode}`.",
        "name": name if name in ALIASES else f"sb3:{name}",
        "paper": PAPERS.get(algorithm_name, ""),
        "head": "candidates" if mode == "picks" else mode,
        "one_at_a_time": mode == "picks",
        "algorithm": _with(family.explores, algorithm) if family.explores else algorithm,
        "network": family.adapted if issubclass(family.adapted, BasePolicy) else _with(family.adapted, policy),
        "config_class": config_of(name, algorithm, policy, mode == "proto", tuned),
    }
    return type(algorithm_name, (SB3Agent,), facts)


def __getattr__(name: str) -> type[SB3Agent]:
    """Agents by name, so that `recloop.agents.sb3.zoo:SAC` is a dotted path as any other."""
    if name.startswith("_"):
        raise AttributeError(name)
    return agent(name)


def _with(before: type[Any], kind: type[Any]) -> type[Any]:
    return type(f"{before.__name__}{kind.__name__}", (before, kind), {})


def _parted(name: str) -> tuple[str, str | None]:
    """An algorithm's name and a mode, which may be missing.

    >>> _parted("QR-DQN"), _parted("PPO-proto")
    (('QRDQN', None), ('PPO', 'proto'))
    """
    first, _, last = name.rpartition("-")
    mode = last if first and last in _SUFFIXES else None
    wanted = (first if mode else name).replace("-", "")
    folded = {known.casefold(): known for known in ALGORITHMS}
    if wanted.casefold() not in folded:
        raise PolicyError(
            f"{unknown_name('algorithm of Stable-Baselines3', wanted, ALGORITHMS)}, or with a mode PPO-proto"
        )
    return folded[wanted.casefold()], mode
