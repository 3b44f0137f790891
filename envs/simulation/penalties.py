"""What keeps agents honest that train in users fitted on a log: charges and bonuses on top of what a step earns.

A fitted model is wrong where the log is thin, and an agent finds those places. MOPO (Yu et al. 2020) charges for the
model's uncertainty; DORL (Gao et al. 2023) adds a bonus for where the logging policy had shown many different things,
because charging alone drives everybody to the few popular items that the log knows best. For training only: nothing
of it is part of what a policy is worth.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.reward import Outcome, Reward, WeightedReward
from recloop.envs.simulation.logged_entropy import ORDERS, LoggedEntropy
from recloop.envs.world.world import World

Uncertainty = Literal["std", "max"]
"""How an ensemble's disagreement is measured: standard deviation over its members, or how far off the farthest is."""


@dataclass(frozen=True)
class PenaltyConfig:
    """What a training step is charged and given, in units of the reward; by default nothing.

    Args:
        pessimism: taken off for each unit of the training users' disagreement; at least 0.
        uncertainty: how disagreement is measured, `std` or `max`.
        entropy_bonus: given for each unit of the log's entropy where the user stands; at least 0.
        orders: of `LoggedEntropy`.
    """

    pessimism: float = 0.0
    uncertainty: Uncertainty = "std"
    entropy_bonus: float = 0.0
    orders: tuple[int, ...] = ORDERS

    def __post_init__(self) -> None:
        for name, what in (("pessimism", "penalty"), ("entropy_bonus", "bonus")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise RecloopError(f"{name}={value}; it is a {what}, give 0 or more")
        if self.uncertainty not in get_args(Uncertainty):
            raise RecloopError(unknown_name("uncertainty", self.uncertainty, get_args(Uncertainty)))


@dataclass(frozen=True)
class PenalisedReward:
    """reward - pessimism x sum over places of |weight| x disagreement about the signal + entropy_bonus x entropy.

    The disagreement is an ensemble's about the answers to the slate; the entropy that of the log where the user stands
    after it (`LoggedEntropy`). As MOPO and DORL. Differences: MOPO takes the largest predicted deviation of the next
    state, DORL the largest predicted variance of a rating, each with the noise that a model sees in its data; here a
    member's own noise is no sign of ignorance and only how far the members' means lie apart counts, as `std` or as
    `max`. A place is charged where it is shown, whether the user looks at it or not.

    Args:
        reward: what is earned.
        config: weights and measure.
        entropy: of the log, on the device of the core; None where `entropy_bonus` is 0.
    """

    reward: WeightedReward
    config: PenaltyConfig
    entropy: LoggedEntropy | None = None

    def __post_init__(self) -> None:
        if self.config.entropy_bonus and self.entropy is None:
            raise RecloopError("an entropy bonus needs the log's entropies; pass LoggedEntropy.of(world)")

    @property
    def needs_spread(self) -> bool:
        """Whether the users must say how unsure they are."""
        return self.config.pessimism > 0

    def __call__(self, outcome: Outcome) -> Tensor:
        reward = self.reward(outcome)
        if self.config.pessimism:
            reward = reward - self.config.pessimism * self._unsure(outcome)
        if self.config.entropy_bonus and self.entropy is not None:
            if outcome.past is None:
                raise RecloopError("an entropy bonus needs the users' past; step through recloop.envs.Core")
            reward = reward + self.config.entropy_bonus * self.entropy(outcome.past.history)
        return reward

    def _unsure(self, outcome: Outcome) -> Tensor:
        """Disagreement about what the slate is worth, (B,)."""
        apart = outcome.spread if self.config.uncertainty == "std" else outcome.farthest
        if apart is None:
            raise RecloopError(
                "pessimism needs users who say how unsure they are (an ensemble's spread); train in a fitted world, "
                "or with pessimism 0"
            )
        weights = [abs(self.reward.signals.get(signal.name, 0.0)) for signal in outcome.signals]
        charged = apart @ apart.new_tensor(weights)  # (B, K)
        return (charged * (outcome.slate < len(outcome.item_vectors) - 1)).sum(1)


def training_reward(world: World, config: PenaltyConfig, device: torch.device | str = "cpu") -> Reward | None:
    """What agents are trained on in a world: its own reward (None, the core's default) where nothing is charged.

    The log is counted here, once a training.
    """
    if not config.pessimism and not config.entropy_bonus:
        return None
    entropy = LoggedEntropy.of(world, config.orders).to(device) if config.entropy_bonus else None
    return PenalisedReward(world.reward, config, entropy)
