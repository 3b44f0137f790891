"""How much better than expected each step was."""

import torch
from torch import Tensor


@torch.no_grad()
def estimated_advantages(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    trace: float,
) -> Tensor:
    """Generalised advantages (T, B), Schulman et al. 2016; `advantage + value` is what the value net learns.

    Args:
        reward: float32 (T, B).
        value: float32 (T, B) of the observations acted on.
        next_value: float32 (T, B) of what the same user's observation was after the step. Counts nothing where
            the user left for good; where the time limit came first it is still owed.
        terminated, truncated: bool (T, B).
        gamma: discount in [0, 1].
        trace: lambda in [0, 1]; 1 gives n-step returns that reach as far as the rollout does, 0 one-step ones.
    """
    surprise = reward + gamma * next_value * ~terminated - value  # (T, B)
    decay = gamma * trace * ~(terminated | truncated)
    advantage = torch.empty_like(surprise)
    after = torch.zeros_like(surprise[0])
    for step in range(len(surprise) - 1, -1, -1):
        after = torch.addcmul(surprise[step], decay[step], after, out=advantage[step])
    return advantage
