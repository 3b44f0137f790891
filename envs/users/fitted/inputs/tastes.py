"""A user's taste where items lie: a Bayesian linear regression of takes, (1, place) -> taken, with normal tastes."""

import torch
from torch import Tensor

from recloop.envs.users.fitted.inputs.item_facts import PLACE

_RIDGE, _RIDGE_MEAN = 2.0, 5.0
"""Prior weight, in answers, of the taste and of the mean."""


def default_prior(rate: Tensor) -> dict[str, Tensor]:
    """Precision (1+r, 1+r) and pull (1+r,) of tastes of which nothing was learned, and the noise () of answers."""
    weights = torch.full((1 + PLACE,), _RIDGE)
    weights[0] = _RIDGE_MEAN
    pull = torch.zeros(1 + PLACE)
    pull[0] = _RIDGE_MEAN * rate
    return {"prior": torch.diag(weights), "prior_pull": pull, "noise": rate * (1 - rate)}


def posterior(precision: Tensor, pull: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 1+r) and covariance (B, 1+r, 1+r) of tastes, of which precision and pull are sums over answers."""
    inverse = torch.linalg.inv(precision)
    return (inverse @ pull.unsqueeze(-1)).squeeze(-1), inverse * noise


def drawn(precision: Tensor, pull: Tensor, noise: Tensor, luck: Tensor) -> Tensor:
    """Tastes (B, 1+r) from their posterior by standard normal luck (B, 1+r)."""
    lower = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve(pull.unsqueeze(-1), lower)
    spread = torch.linalg.solve_triangular(lower.mT, luck.unsqueeze(-1), upper=True)
    found: Tensor = (mean + spread * noise.sqrt()).squeeze(-1)
    return found
