"""What training episodes earned, counted on the device and asked for now and then."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Episodes:
    """Sums of rewards and steps of the running episodes, and of those that ended since somebody last asked.

    Args:
        lanes: B.
        device: of the lanes.
    """

    def __init__(self, lanes: int, device: torch.device) -> None:
        self.running = torch.zeros(2, lanes, dtype=torch.float64, device=device)  # rewards and steps
        self.ended = torch.zeros(3, dtype=torch.float64, device=device)  # rewards, steps, episodes

    def add(self, reward: Tensor, done: Tensor) -> None:
        """Count one step of every lane: reward and whether its episode ended, (B,)."""
        self.running[0] += reward
        self.running[1] += 1
        over = self.running * done
        self.ended[:2] += over.sum(1)
        self.ended[2] += done.sum()
        self.running -= over

    def means(self) -> dict[str, Tensor]:
        """Mean return and length by tag, NaN where no episode ended; starts counting anew."""
        rewards, steps, count = self.ended.clone()
        self.ended.zero_()
        return {"rollout/ep_rew_mean": rewards / count, "rollout/ep_len_mean": steps / count}

    def state(self) -> dict[str, Tensor]:
        """See `restore`."""
        return {"running": self.running, "ended": self.ended}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`."""
        self.running.copy_(state["running"])
        self.ended.copy_(state["ended"])
