"""What steps brought: what is due to single places of a slate, and the rewards that came after."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.world.world import World


def place_weights(world: World) -> Tensor:
    """What a place of a slate earns for each unit of its signals, float32 (S,), in a world's own reward.

    Zeros where the reward is a callable of another kind: then all of it belongs to the slate as a whole.
    """
    weights = world.reward.signals if isinstance(world.reward, WeightedReward) else {}
    return torch.tensor([weights.get(signal.name, 0.0) for signal in world.signals])


def earned_by_place(response: Response, weights: Tensor) -> Tensor:
    """What each place of a slate earned by its own signals, (B, K); `weights` (S,) are those of `place_weights`."""
    earned: Tensor = (response.signals * response.given) @ weights
    return earned


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
