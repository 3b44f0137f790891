"""What steps brought: what is due to single places of a slate, and the rewards that came after."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.interaction.item_columns import ShownItems
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.world.world import World


class PlaceRewards:
    """What each place of a slate earns by its own answers and item, in a world's own reward: (B, K).

    Zeros where the reward is a callable of another kind: then all of it belongs to the slate as a whole.

    Args:
        world: whose reward, signals and item columns.
        device: of the slates and answers.

    Attributes:
        consumption: the weight of the consumption, whatever the item; 0 without any.
    """

    def __init__(self, world: World, device: torch.device | str = "cpu") -> None:
        self.reward, self.signals, self.empty = world.reward, world.signals, len(world.catalogue)
        self.columns = world.catalogue.columns.to(torch.device(device))
        weights = self.reward.signals if isinstance(self.reward, WeightedReward) else {}
        self.consumption = float(weights.get(self.signals[0].name, 0.0))

    def __call__(self, slate: Tensor, response: Response) -> Tensor:
        """Slates (B, K) and the answers to them."""
        if not isinstance(self.reward, WeightedReward):
            return torch.zeros(slate.shape, device=slate.device)
        answers = response.signals * response.given
        return self.reward.by_place(answers, self.signals, ShownItems(slate, self.columns))

    def shared(self, slate: Tensor, response: Response, reward: Tensor) -> Tensor:
        """With what else there is of the reward (B,), as for leaving, in equal shares: (B, K), which sums to it."""
        held = slate < self.empty
        own = self(slate, response) * held
        return own + held * ((reward - own.sum(1)) / held.sum(1).clamp_min(1)).unsqueeze(1)


def returns_after(
    reward: npt.NDArray[np.floating], number: npt.NDArray[np.int64], gamma: float
) -> npt.NDArray[np.float64]:
    """The discounted rewards of the steps after each one in its episode, (Q,), in the unit of the step before them.

    Args:
        reward: (Q,) of the steps; those of an episode stand together, in order.
        number: int64 (Q,) of each step in its episode, from 0.
        gamma: discount.

    >>> returns_after(np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 1, 2, 0]), 0.5).tolist()
    [2.0, 2.0, 0.0, 0.0]
    """
    after = np.zeros(len(reward))
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(number.max(initial=-1) + 2))
    for step in range(len(ends) - 2, 0, -1):
        rows = order[ends[step] : ends[step + 1]]
        after[rows - 1] = gamma * (reward[rows] + after[rows])
    return after
