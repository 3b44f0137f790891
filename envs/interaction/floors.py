"""A floor that training keeps to: what a policy must give its users on average, whatever it earns.

A constrained Markov decision process (Altman 1999), by a Lagrangian whose multiplier rises while the floor is missed
and falls while it is kept (reward constrained policy optimisation, Tessler, Mankowitz and Mannor 2019). Differences:
the multiplier moves with every step of all lanes instead of at a slower clock of its own, by a running mean of the
measure, and the policy that is kept is the best of those that keep the floor in the validation simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.reward import Outcome, Reward, slate_diversity

FloorOf = Literal["nothing", "diversity", "liking"]
"""What is measured: one minus the mean cosine of the items in a slate; or the second signal of what was consumed
(likes, ratings) as a share of its range."""

_MEMORY = 0.98
"""What a step leaves of the running mean of the measure."""
_MOST = 100.0
"""Largest multiplier."""


@dataclass(frozen=True)
class Floor:
    """What is held above what.

    Args:
        of: the measure.
        least: its mean must not be below this.
        rate: how fast the multiplier moves, in units of the reward a unit of the measure and step.
    """

    of: FloorOf = "nothing"
    least: float = 0.0
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.of not in get_args(FloorOf):
            raise RecloopError(unknown_name("floor of", self.of, get_args(FloorOf)))
        if not 0 <= self.least <= 2 or not 0 < self.rate < float("inf"):
            raise RecloopError(f"floor least={self.least}, rate={self.rate}; give 0 to 2, and a finite rate above 0")

    def measured(self, outcome: Outcome) -> tuple[Tensor, Tensor]:
        """What each slate gives, and by what it is divided: two of (B,), sums of which over slates make the mean.

        Raises:
            RecloopError: `liking` in a world with one signal.
        """
        if self.of == "diversity":
            return slate_diversity(outcome.slate, outcome.item_vectors), torch.ones_like(outcome.slate[:, 0]).float()
        if len(outcome.signals) < 2:
            raise RecloopError(
                f"a floor of liking reads the second signal and this world has '{outcome.signals[0].name}' alone; take "
                "a floor of diversity"
            )
        response, signal = outcome.response, outcome.signals[1]
        low, high = signal.bounds
        share = (response.signals[..., 1] - low) / max(high - low, 1e-9)
        return (share * response.given[..., 1]).sum(1), response.given[..., 1].float().sum(1)


class FlooredReward:
    """reward + multiplier x (measure - least), the multiplier moved by every call.

    Args:
        reward: what is earned.
        floor: what is held.
        device: of the core.

    Attributes:
        multiplier: float32 (), in units of the reward a unit of the measure.
        mean: float32 (2,) running means of what slates give and of what it is divided by.
    """

    def __init__(self, reward: Reward, floor: Floor, device: torch.device | str = "cpu") -> None:
        self.reward, self.floor = reward, floor
        self.needs_spread = bool(getattr(reward, "needs_spread", False))
        self.multiplier = torch.zeros((), device=device)
        self.mean = torch.zeros(2, device=device)

    def __call__(self, outcome: Outcome) -> Tensor:
        gives, by = self.floor.measured(outcome)
        now = torch.stack([gives.mean(), by.mean()])
        self.mean = torch.where(self.mean[1] > 0, _MEMORY * self.mean + (1 - _MEMORY) * now, now)
        short = self.floor.least - self.mean[0] / self.mean[1].clamp_min(1e-6)
        self.multiplier = (self.multiplier + self.floor.rate * short).clamp(0.0, _MOST)
        return self.reward(outcome) + self.multiplier * (gives - self.floor.least * by)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint; `restore` undoes it."""
        return {"multiplier": self.multiplier, "mean": self.mean}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`."""
        self.multiplier, self.mean = (state[name].to(self.mean.device) for name in ("multiplier", "mean"))
