"""What a head's number means for one signal: likelihood, mean and draws of binary, ordinal and continuous answers.

A head gives one real number `score` an answer. Binary: the logit. Ordinal: cumulative logits with rising thresholds,
P(level > k) = sigmoid(score - threshold_k) (McCullagh 1980). Continuous: a Gaussian on the range scaled to [0, 1],
clipped at both ends, so that the ends carry mass (Tobin 1958).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.logs.schema import Signal

_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
MIN_SPREAD = 1e-2
"""Smallest spread of a continuous answer, as a share of its range."""


def shape_size(signal: Signal) -> int:
    """How many shape parameters a signal's distribution has beside the score."""
    return {"binary": 0, "ordinal": len(signal.levels) - 1, "continuous": 1}[signal.kind]


def base_shape(signal: Signal, values: Tensor) -> tuple[float, Tensor]:
    """Score and shape parameters under which every answer has the distribution of `values` (n,)."""
    if signal.kind == "binary":
        rate = (values.sum() + 0.5) / (len(values) + 1)
        return float(torch.logit(rate)), values.new_zeros(0)
    if signal.kind == "continuous":
        unit = unit_scale(signal, values)
        spread = float(unit.std(unbiased=False)) if len(unit) > 1 else 0.3
        mean = float(unit.mean()) if len(unit) else 0.5
        return mean, values.new_tensor([_softplus_inverse(max(spread, 0.05) - MIN_SPREAD)])
    counts = (values[:, None] == values.new_tensor(signal.levels)).sum(0).to(values.dtype) + 0.5
    above = 1 - counts.cumsum(0)[:-1] / counts.sum()
    thresholds = -torch.logit(above)
    gaps = [_softplus_inverse(float(gap)) for gap in thresholds.diff().clamp_min(1e-3)]
    return 0.0, values.new_tensor([float(thresholds[0]), *gaps])


def thresholds_of(shape: Tensor) -> Tensor:
    """Rising thresholds (m-1,) from an ordinal signal's shape parameters."""
    return torch.cat([shape[:1], F.softplus(shape[1:])]).cumsum(0)


def unit_scale(signal: Signal, values: Tensor) -> Tensor:
    """Values scaled to [0, 1] by the signal's bounds."""
    low, high = signal.bounds
    return ((values - low) / (high - low)).clamp(0, 1)


def log_likelihood(signal: Signal, score: Tensor, shape: Tensor, values: Tensor) -> Tensor:
    """Log-likelihood in nats of values, elementwise."""
    if signal.kind == "binary":
        return -F.binary_cross_entropy_with_logits(score, values, reduction="none")
    if signal.kind == "continuous":
        unit, spread = unit_scale(signal, values), F.softplus(shape[0]) + MIN_SPREAD
        inside = -0.5 * ((unit - score) / spread) ** 2 - torch.log(spread) + math.log(_INV_SQRT_2PI)
        at_low = torch.special.log_ndtr((0.0 - score) / spread)
        at_high = torch.special.log_ndtr((score - 1.0) / spread)
        return torch.where(unit <= 0, at_low, torch.where(unit >= 1, at_high, inside))
    level = (values[..., None] > values.new_tensor(signal.levels[:-1]) + 1e-6).sum(-1)  # 0 to m-1
    above = torch.sigmoid(score[..., None] - thresholds_of(shape))  # (..., m-1), falling
    ends = torch.cat([torch.ones_like(above[..., :1]), above, torch.zeros_like(above[..., :1])], dim=-1)
    chance = -ends.diff(dim=-1)  # (..., m)
    return torch.log(chance.gather(-1, level[..., None]).squeeze(-1).clamp_min(1e-9))


def mean(signal: Signal, score: Tensor, shape: Tensor) -> Tensor:
    """Expected value of the signal, elementwise."""
    if signal.kind == "binary":
        return torch.sigmoid(score)
    low, high = signal.bounds
    if signal.kind == "continuous":
        spread = F.softplus(shape[0]) + MIN_SPREAD
        a, b = (0.0 - score) / spread, (1.0 - score) / spread
        cdf_a, cdf_b = torch.special.ndtr(a), torch.special.ndtr(b)
        density = (torch.exp(-0.5 * a * a) - torch.exp(-0.5 * b * b)) * _INV_SQRT_2PI
        unit: Tensor = 1 - cdf_b + score * (cdf_b - cdf_a) + spread * density
        return low + (high - low) * unit
    steps = score.new_tensor(signal.levels).diff()
    return low + (torch.sigmoid(score[..., None] - thresholds_of(shape)) * steps).sum(-1)


def sample(signal: Signal, score: Tensor, shape: Tensor, uniform: Tensor) -> Tensor:
    """The value at quantile `uniform` (in (0, 1), shaped as `score`): high draws give low binary and ordinal values."""
    if signal.kind == "binary":
        return (uniform < torch.sigmoid(score)).to(score.dtype)
    if signal.kind == "continuous":
        low, high = signal.bounds
        spread = F.softplus(shape[0]) + MIN_SPREAD
        unit: Tensor = (score + spread * torch.special.ndtri(uniform)).clamp(0, 1)
        return low + (high - low) * unit
    level = (uniform[..., None] < torch.sigmoid(score[..., None] - thresholds_of(shape))).sum(-1)
    return score.new_tensor(signal.levels)[level]


def _softplus_inverse(value: float) -> float:
    return math.log(math.expm1(max(value, 1e-4)))
