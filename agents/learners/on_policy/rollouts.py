"""Steps kept on the device until the next update, and rewards brought to one scale."""

from collections.abc import Mapping

import torch
from torch import Tensor


class RolloutBuffer:
    """Buffers (T, B, ...) by name, allocated with the first step and written in place ever after.

    Args:
        horizon: T.
    """

    def __init__(self, horizon: int) -> None:
        self.horizon, self.place = horizon, 0
        self.buffers: dict[str, Tensor] = {}

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Copy one step of B lanes, (B, ...) each, to the next place; after the last comes the first."""
        if not self.buffers:
            self.buffers = {
                name: torch.zeros(self.horizon, *value.shape, dtype=value.dtype, device=value.device)
                for name, value in values.items()
            }
        for name, value in values.items():
            self.buffers[name][self.place].copy_(value)
        self.place = (self.place + 1) % self.horizon

    @property
    def at_last(self) -> bool:
        """Whether the next step fills the last place."""
        return self.place == self.horizon - 1

    def __getitem__(self, name: str) -> Tensor:
        """(T, B, ...)."""
        return self.buffers[name]

    def flat(self, name: str) -> Tensor:
        """(T B, ...), a view."""
        return self.buffers[name].flatten(0, 1)


_LIMIT = 10.0
"""Largest size of a scaled reward: before returns have differed, their spread is next to nothing."""


class RewardScale:
    """Divides rewards by the running spread of the discounted return and cuts them, as SB3's `VecNormalize` does.

    Args:
        gamma: discount.
        lanes: B.
        device: of the rewards.
    """

    def __init__(self, gamma: float, lanes: int, device: torch.device) -> None:
        self.gamma = gamma
        self.returns = torch.zeros(lanes, dtype=torch.float64, device=device)
        self.moments = torch.tensor([0.0, 1.0, 1e-4], dtype=torch.float64, device=device)  # mean, variance, count

    def __call__(self, reward: Tensor, done: Tensor) -> Tensor:
        """Scaled rewards (B,), after these have been counted; `done` (B,) starts returns anew."""
        self.returns.mul_(self.gamma).add_(reward)
        mean, variance, count = self.moments
        more = len(reward)
        found, spread = self.returns.mean(), self.returns.var(correction=0)
        total, apart = count + more, found - mean
        squares = variance * count + spread * more + apart.square() * count * more / total
        self.moments = torch.stack([mean + apart * more / total, squares / total, total])
        self.returns.mul_(~done)
        return self.scaled(reward)

    def scaled(self, earned: Tensor) -> Tensor:
        """Rewards (...), or parts of them, in the scale of those counted so far."""
        return (earned / (self.moments[1] + 1e-8).sqrt().to(earned.dtype)).clamp(-_LIMIT, _LIMIT)

    def state(self) -> dict[str, Tensor]:
        """See `restore`."""
        return {"returns": self.returns, "moments": self.moments}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`."""
        self.returns.copy_(state["returns"])
        self.moments = state["moments"].to(self.moments.device, copy=True)
