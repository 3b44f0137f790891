"""What SB3's agents are trained with; PPO's defaults were tuned on slates in the demo world."""

from dataclasses import dataclass

from recloop.agents.configs import AgentConfig


@dataclass(frozen=True)
class SB3PPOConfig(AgentConfig):
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
class SlatePPOConfig(SB3PPOConfig):
    """PPO on Plackett-Luce slates of candidates: many small, bold updates and a short horizon learned most a step."""

    entropy: float = 0.01


@dataclass(frozen=True)
class ProtoPPOConfig(SB3PPOConfig):
    """PPO on directions in item space."""

    entropy: float = 0.0


@dataclass(frozen=True)
class MaskablePPOConfig(SB3PPOConfig):
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
