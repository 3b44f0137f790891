"""What logged steps were worth, so that an unknown step's worth has ends."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recloop.envs.evidence.support.moments import Moments
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import Outcome, WeightedReward
from recloop.envs.logs.schema import Signal

_CHUNK = 1024
"""Steps whose neighbours are looked for at once."""


@dataclass(frozen=True)
class Worth:
    """What logged steps were worth: the ends that an unknown step's mean is taken to lie between.

    Args:
        reward_low, reward_high: mean reward of a step among steps like it.
        leave_low, leave_mean, leave_high: probability to leave after it.
    """

    reward_low: float
    reward_high: float
    leave_low: float = 0.0
    leave_mean: float = 0.0
    leave_high: float = 1.0


def worth_of(
    moments: Moments,
    reference: Tensor,
    signals: Sequence[Signal],
    reward: WeightedReward,
    item_vectors: Tensor,
    smoothing: int,
    ends: tuple[float, float],
) -> Worth:
    """Quantiles `ends` of what steps were worth among the `smoothing` most like them: one click's luck is no worth.

    Args:
        moments: R logged steps, and their `reference` features (R, D).
    """
    left = moments.left == 1
    response = Response(moments.answers, moments.given, left)
    n = len(item_vectors) - 1
    invalid = (moments.slate == n).sum(1)
    earned = reward(Outcome(moments.slate, response, invalid, item_vectors, tuple(signals)))  # (R,)
    like = min(smoothing, len(reference))
    known = (moments.left >= 0).to(torch.float32)
    rewards, leaves = [], []
    for some in torch.split(reference, _CHUNK):
        near = torch.cdist(some, reference).topk(like, dim=1, largest=False).indices
        rewards.append(earned[near].mean(1))
        leaves.append((left * known)[near].sum(1) / known[near].sum(1).clamp_min(1))
    quantiles = torch.tensor(ends)
    low, high = torch.cat(rewards).quantile(quantiles).tolist()
    worth = Worth(low, high)
    if bool(known.any()):
        leave_low, leave_high = torch.cat(leaves).quantile(quantiles).tolist()
        mean = float((left * known).sum() / known.sum())
        worth = replace(worth, leave_low=leave_low, leave_mean=mean, leave_high=leave_high)
    return worth
