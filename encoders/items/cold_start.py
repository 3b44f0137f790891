"""Items that nobody consumed yet: the popularity that their content predicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = tuple(10.0 ** (k / 2) for k in range(-4, 9))
_FEWEST_SEEN = 20
_LEAST_EXPLAINED = 0.05


def popularity_of_unseen(item_vectors: Tensor, popularity: Tensor, counts: Tensor) -> Tensor:
    """Give items that nobody consumed in the fit the log-popularity that their content predicts.

    A fitted popularity of an item without a single interaction says that it was held out or is new, not that nobody
    wants it. It becomes the logarithm of the popularity to be expected of such content: what ridge regression from the
    vectors of seen items predicts, plus half the variance it leaves (the mean of a log-normal), within the range of
    what was seen. Where content explains less than a twentieth of the seen items' popularity, all such items get the
    expected popularity of any item; where fewer than 20 items were seen, nothing is changed.

    Args:
        item_vectors: float32 (N, d), what content says of the items.
        popularity: float32 (N,) log-popularity, fitted.
        counts: (N,) how often each item was consumed in the fit; 0 is unseen.

    Returns:
        float32 (N,): as given for seen items.
    """
    seen = counts > 0
    if int(seen.sum()) < _FEWEST_SEEN:
        return popularity
    known = popularity[seen]
    fit = fit_ridge(item_vectors[seen], known)
    if fit.explained >= _LEAST_EXPLAINED:
        predicted = fit(item_vectors) + known.double().var() * (1 - fit.explained) / 2
    else:
        predicted = known.double().exp().mean().log().expand(len(popularity))
    return torch.where(seen, popularity, predicted.to(popularity.dtype).clamp(known.min(), known.max()))


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression, in float64.

    Args:
        centre: (d,) mean of the inputs.
        mean: () mean of the targets.
        slope: (d,).
        explained: R² with every target predicted by the fit without it; 0 where all targets are equal.
    """

    centre: Tensor
    mean: Tensor
    slope: Tensor
    explained: float

    def __call__(self, x: Tensor) -> Tensor:
        """Predictions (b,) for inputs (b, d)."""
        return (x.double() - self.centre) @ self.slope + self.mean


def fit_ridge(x: Tensor, y: Tensor) -> Ridge:
    """Ridge regression (Hoerl and Kennard 1970) of y (M,) on x (M, d), with the ridge of `RIDGES` whose squared
    leave-one-out error, in closed form (PRESS, Allen 1974), is least."""
    x, y = x.double(), y.double()
    centre, mean = x.mean(0), y.mean()
    x, y = x - centre, y - mean
    size, axes = torch.linalg.eigh(x.T @ x)
    size, turned = size.clamp_min(0), x @ axes  # (M, d): orthogonal columns, of squared length `size`
    against = turned.T @ y
    errors = torch.stack([_left_out(turned, against, size, y, ridge) for ridge in RIDGES])
    best = int(errors.argmin())
    alone = (y * len(y) / (len(y) - 1)).square().sum()  # each less the mean of the others
    explained = 1 - float(errors[best] / alone) if alone > 0 else 0.0
    return Ridge(centre, mean, axes @ (against / (size + RIDGES[best])), explained)


def _left_out(turned: Tensor, against: Tensor, size: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Sum of squared errors of M targets, each predicted by the fit without it."""
    shrunk = turned / (size + ridge)
    lever = (shrunk * turned).sum(1) + 1 / len(y)
    return ((y - shrunk @ against) / (1 - lever).clamp_min(1e-6)).square().sum()
