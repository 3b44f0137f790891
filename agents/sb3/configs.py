"""What agents are trained with; PPO's defaults were tuned on slates in the demo world. All round-trip through JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from recloop.agents.networks.features import NetworkConfig
from recloop.encoders.errors import PolicyError


@dataclass(frozen=True)
class AgentConfig:
    """What all agents share.

    Args:
        steps: environment steps over all lanes; one is one action of one lane.
        lanes: users simulated at once.
        learning_rate: of Adam at the start; falls linearly to zero.
        gamma: discount a slate, in [0, 1].
        max_grad_norm: longest gradient step.
        candidates: C, items retrieved to choose from; None for the retriever's default.
        validations: how often the policy is tried during training; the best one is kept.
        validation_lanes: users it is tried on, always the same.
        network: sizes.
    """

    steps: int = 200_000
    lanes: int = 64
    learning_rate: float = 5e-4
    gamma: float = 0.9
    max_grad_norm: float = 5.0
    candidates: int | None = None
    validations: int = 10
    validation_lanes: int = 128
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "lanes", "validations", "validation_lanes"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if not 0 <= self.gamma <= 1:
            raise PolicyError(f"gamma={self.gamma}; it must lie in [0, 1]")

    def as_dict(self) -> dict[str, Any]:
        """As JSON; `of` undoes it."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Undo `as_dict`."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(facts) - known)
        if unknown:
            raise PolicyError(f"{cls.__name__} has no '{unknown[0]}'; it has {', '.join(sorted(known))}")
        return cls(**{**facts, "network": NetworkConfig(**facts.get("network", {}))})


@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """PPO (Schulman et al. 2017) as Stable-Baselines3 has it.

    Args:
        rollout: steps a lane between two updates.
        batch_size: transitions a gradient step.
        epochs: passes over a rollout.
        gae_lambda: of generalised advantage estimation.
        clip: range of the probability ratio.
        entropy: weight of the entropy bonus.
        value: weight of the value loss.
        target_kl: an update stops early beyond 1.5 times this divergence; None for never.
        scale_rewards: divide rewards by the running spread of the discounted return.
        log_std: log standard deviation of a fresh `proto` action's entries.
    """

    rollout: int = 8
    batch_size: int = 512
    epochs: int = 6
    gae_lambda: float = 0.5
    clip: float = 0.4
    entropy: float = 0.002
    value: float = 0.5
    target_kl: float | None = None
    scale_rewards: bool = True
    log_std: float = -1.6


@dataclass(frozen=True)
class SlatePPOConfig(PPOConfig):
    """PPO on Plackett-Luce slates of candidates: many small, bold updates and a short horizon learned most a step."""

    entropy: float = 0.01


@dataclass(frozen=True)
class ProtoPPOConfig(PPOConfig):
    """PPO on directions in item space."""

    entropy: float = 0.0


@dataclass(frozen=True)
class MaskablePPOConfig(PPOConfig):
    """PPO with masks, one pick a step: `steps` and `rollout` count picks, `gamma` stays the discount a slate."""

    rollout: int = 32
    gae_lambda: float = 0.85


@dataclass(frozen=True)
class DQNConfig(AgentConfig):
    """DQN (Mnih et al. 2015) as Stable-Baselines3 has it, on one item a step.

    Args:
        buffer_size: transitions kept.
        learning_starts: steps of random items before the first update.
        batch_size: transitions a gradient step.
        train_every: steps a lane between two rounds of updates.
        updates: gradient steps a round.
        target_every: environment steps between two copies into the target network.
        exploration: share of training over which epsilon falls.
        last_epsilon: what it falls to, from 1.
    """

    learning_rate: float = 5e-4
    max_grad_norm: float = 10.0
    buffer_size: int = 50_000
    learning_starts: int = 2_000
    batch_size: int = 256
    train_every: int = 4
    updates: int = 4
    target_every: int = 2_000
    exploration: float = 0.3
    last_epsilon: float = 0.05
