"""How well probabilities and means fit what was held out."""

import torch
from torch import Tensor


def auc(scores: Tensor, positive: Tensor) -> float:
    """Chance that a positive scores above a negative, ties half: (n,), bool (n,); NaN where one kind is missing.

    >>> auc(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, False, True, True]))
    0.875
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    middle = counts.cumsum(0).double() - (counts.double() - 1) / 2  # mean rank from 1
    ranks = middle[inverse][positive].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def paired_auc(positives: Tensor, negatives: Tensor, held: Tensor) -> float:
    """The same within each moment: positives (n,), its negatives (n, C), which of them count, bool (n, C)."""
    wins = (positives[:, None] > negatives).double() + 0.5 * (positives[:, None] == negatives).double()
    return float((wins * held).sum() / held.sum().clamp_min(1))


def calibration_error(predicted: Tensor, actual: Tensor, weights: Tensor | None = None, bins: int = 10) -> float:
    """Mean distance of predicted and actual means over bins of equal weight (Naeini et al. 2015): (n,), (n,).

    >>> calibration_error(torch.tensor([0.2, 0.2, 0.8, 0.8]), torch.tensor([0.0, 0.0, 1.0, 1.0]), bins=2)
    0.2
    """
    if len(predicted) == 0:
        return float("nan")
    weights = torch.ones_like(predicted) if weights is None else weights
    order = torch.argsort(predicted, stable=True)
    share = weights[order].double()
    share = share / share.sum()
    number = ((share.cumsum(0) - share / 2) * bins).long().clamp(max=bins - 1)
    gap = (predicted - actual)[order].double() * share
    total = torch.zeros(bins, dtype=torch.float64, device=gap.device).index_add_(0, number, gap)
    return round(float(total.abs().sum()), 7)
