"""What came of a slate, as evidence of what the user wants and of what items fit it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.interaction.observation import Observation

_RATING_SPREAD = 0.2
"""Standard deviation that a rating, as a share, is taken to have around the share of the slate that fits."""
_USUAL = (2.0, 10.0)
"""Items taken and shown that are counted before any are: a rate to start from."""
_HISTORY = 0.3
"""Consumptions of everybody alike that a history is taken to hold of each wish besides its own."""
_REFIT = 0.3
"""Length of the steps by which `refitted` moves what fits."""


def evidence(fits: Tensor, took: Tensor, held: Tensor, rating: Tensor | None, usual: Tensor, strength: float) -> Tensor:
    """Log-likelihood (B, W) of the answers to slates under each wish, up to a constant.

    Items are taken independently, at the usual rate with its log-odds half of `strength` up where they fit and half
    down where not; a rating lies around the share of the slate that fits, a questions' rating of 0 tells nothing.

    Args:
        fits: float32 (B, K, W) how well the shown items fit each wish, in [0, 1].
        took, held: bool (B, K) what was taken, and where there was an item.
        rating: float32 (B,) from 1 to 5, 0 for none; None where users rate nothing.
        usual: float32 (2,) items taken and shown so far.
        strength: log-odds.
    """
    start = usual + usual.new_tensor(_USUAL)
    logit = torch.log(start[0] / (start[1] - start[0]))
    logits = logit + strength * (fits - 0.5)
    answered = torch.where(took.unsqueeze(2), F.logsigmoid(logits), F.logsigmoid(-logits))
    found = (answered * held.unsqueeze(2)).sum(1)
    if rating is None:
        return found
    share = (fits * held.unsqueeze(2)).sum(1) / held.sum(1, keepdim=True).clamp_min(1)
    off = ((rating - 1) / 4).unsqueeze(1) - share
    return found - (rating > 0).unsqueeze(1) * off.square() / (2 * _RATING_SPREAD**2)


def by_history(observation: Observation, fits: Tensor) -> Tensor:
    """Log-chances (B, W) of wishes by what users consumed: in proportion to how much of it fits."""
    consumed = F.pad(fits, (0, 1)).T[observation["history"]].sum(1) + _HISTORY  # (B, W)
    return torch.log(consumed / consumed.sum(1, keepdim=True))


def refitted(fits: Tensor, chances: Tensor, slate: Tensor, took: Tensor, held: Tensor, usual: Tensor) -> Tensor:
    """What fits (W, N), moved towards 1 for items that were taken more than usual under a wish, towards 0 for others.

    Args:
        chances: float32 (B, W) of the wishes as the slates were answered; rows of zeros teach nothing.
        slate: int64 (B, K).
        took, held, usual: as in `evidence`.
    """
    start = usual + usual.new_tensor(_USUAL)
    surprise = (took.float() - start[0] / start[1]) * held  # (B, K)
    size = fits.shape[1]
    told = fits.new_zeros(len(slate), size + 1).scatter_add(1, slate, surprise)[:, :size]  # (B, N)
    seen = fits.new_zeros(len(slate), size + 1).scatter_add(1, slate, held.float())[:, :size]
    weight = chances.T @ seen  # (W, N)
    return (fits + _REFIT * (chances.T @ told) / weight.clamp_min(1.0)).clamp(0.0, 1.0)
