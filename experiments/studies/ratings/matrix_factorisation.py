"""Biased matrix factorisation, for ratings and for consumption: what users fitted on logs are held against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.fit import FitLoop, fit

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_STEPS, _FEWEST, _MOST = 32, 16, 2048
"""Gradient steps an epoch at least, and the bounds of a batch of consumptions."""


@dataclass(frozen=True)
class Cells:
    """Known cells of a matrix of users by items.

    Args:
        users, items: int64 (n,) rows and columns.
        values: float64 (n,) what stands there.
        weights: float64 (n,) how much each counts, of mean 1.
    """

    users: Ints
    items: Ints
    values: Floats
    weights: Floats

    def at(self, rows: Ints) -> "Cells":
        """Some of the cells, their weights scaled to mean 1."""
        weights = self.weights[rows]
        return Cells(self.users[rows], self.items[rows], self.values[rows], weights / weights.mean())


@dataclass(frozen=True)
class Factors:
    """A score for every cell: mean + user bias + item bias + user . item.

    Args:
        mean: of all.
        users: float64 (U, 1 + r): bias and factors.
        items: float64 (N, 1 + r).
    """

    mean: float
    users: Tensor
    items: Tensor

    def cells(self, users: Ints, items: Ints) -> Floats:
        """Scores of single cells (n,)."""
        mine, theirs = self.users[torch.from_numpy(users)], self.items[torch.from_numpy(items)]
        scores = self.mean + mine[:, 0] + theirs[:, 0] + (mine[:, 1:] * theirs[:, 1:]).sum(1)
        return np.asarray(scores.numpy(), dtype=np.float64)

    def table(self) -> Floats:
        """Scores of all cells (U, N)."""
        scores = self.mean + self.users[:, :1] + self.items[:, 0] + self.users[:, 1:] @ self.items[:, 1:].T
        return np.asarray(scores.numpy(), dtype=np.float64)


def fit_rating_factors(
    cells: Cells, shape: tuple[int, int], *, rank: int, decay: float, sweeps: int = 12, seed: int = 0
) -> Factors:
    """Ratings by alternating ridge regressions (Koren et al. 2009), weighted.

    Differences: biases are solved for together with the factors; one penalty for both, `decay` times the square,
    not scaled by counts, which is the posterior mode under normal priors.

    Args:
        cells: the known ratings.
        shape: (U, N).
        rank: length of the factors; 0 leaves biases alone.
        decay: weight of the squares.
        sweeps: times each side is solved for.
        seed: of the starting factors.
    """
    users, items = torch.from_numpy(cells.users), torch.from_numpy(cells.items)
    weights = torch.from_numpy(cells.weights)
    mean = float(np.average(cells.values, weights=cells.weights))
    values = torch.from_numpy(cells.values) - mean
    generator = torch.Generator().manual_seed(seed)
    sides = [torch.zeros(count, 1 + rank, dtype=torch.float64) for count in shape]
    for side in sides:
        side[:, 1:] = 0.1 * torch.randn(len(side), rank, generator=generator, dtype=torch.float64)
    for _ in range(sweeps):
        for mine, rows, others in ((0, users, items), (1, items, users)):
            sides[mine] = _ridge(sides[1 - mine][others], rows, values, weights, shape[mine], decay)
    return Factors(mean, *sides)


def _ridge(others: Tensor, rows: Tensor, values: Tensor, weights: Tensor, count: int, decay: float) -> Tensor:
    """Bias and factors (count, 1 + r) of one side, given those of the other side at every cell (n, 1 + r)."""
    inputs = torch.cat([torch.ones_like(others[:, :1]), others[:, 1:]], dim=1)
    width = inputs.shape[1]
    target = (values - others[:, 0]) * weights
    products = (inputs.unsqueeze(2) * inputs.unsqueeze(1)).flatten(1) * weights.unsqueeze(1)
    left = torch.zeros(count, width * width, dtype=torch.float64).index_add_(0, rows, products)
    right = torch.zeros(count, width, dtype=torch.float64).index_add_(0, rows, inputs * target.unsqueeze(1))
    ridge = left.view(count, width, width) + decay * torch.eye(width, dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(ridge, right)
    return solved


def choose_rating_factors(
    cells: Cells, held_out: Ints, shape: tuple[int, int], *, ranks: Sequence[int], decays: Sequence[float]
) -> tuple[Factors, str]:
    """Rank and decay by the weighted squared error on the cells `held_out`, then a fit on all; and what was chosen."""
    kept = cells.at(np.setdiff1d(np.arange(len(cells.users)), held_out))
    tuning = cells.at(held_out)
    best = (np.inf, 0, 0.0)
    for rank in ranks:
        for decay in decays:
            found = fit_rating_factors(kept, shape, rank=rank, decay=decay)
            wrong = found.cells(tuning.users, tuning.items) - tuning.values
            best = min(best, (float(np.average(wrong**2, weights=tuning.weights)), rank, decay))
    _, rank, decay = best
    return fit_rating_factors(cells, shape, rank=rank, decay=decay), f"rank {rank}, decay {decay:g}"


def fit_choice_factors(
    users: Ints,
    items: Ints,
    shown: Floats,
    shape: tuple[int, int],
    *,
    rank: int = 32,
    decay: float = 1e-3,
    epochs: int = 12,
    negatives: int = 8,
    lr: float = 0.02,
    seed: int = 0,
) -> Factors:
    """Consumption as a logistic regression of biases and factors against items drawn by an assumed exposure.

    Logistic matrix factorisation (Johnson 2014) with the negatives sampled; by Adam, its step falling to 0.

    Args:
        users, items: int64 (n,) the consumptions.
        shown: float64 (N,) probability of each item in the assumed exposure.
        shape: (U, N).
        rank: length of the factors.
        decay: weight of the squares of the rows in a batch, a cell.
        epochs: passes over the consumptions.
        negatives: items drawn against each consumption.
        lr: first step size.
        seed: of the start, the order and the drawn items.
    """
    generator = torch.Generator().manual_seed(seed)
    sides = nn.ParameterList(0.1 * torch.randn(count, 1 + rank, generator=generator) for count in shape)
    for side in sides:
        side.data[:, 0] = 0
    positives, owners, share = torch.from_numpy(items), torch.from_numpy(users), torch.from_numpy(shown)
    size = min(max(len(positives) // _STEPS, _FEWEST), _MOST)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(positives), generator=generator)
        drawn = torch.multinomial(share, len(order) * negatives, True, generator=generator).view(-1, negatives)
        for rows in torch.split(order, size):
            yield rows, drawn[rows]

    def loss(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        rows, drawn = batch
        mine = sides[0][owners[rows]].unsqueeze(1)
        theirs = sides[1][torch.cat([positives[rows].unsqueeze(1), drawn], dim=1)]  # (b, 1 + C, 1 + r)
        scores = mine[..., 0] + theirs[..., 0] + (mine[..., 1:] * theirs[..., 1:]).sum(-1)
        truth = torch.zeros_like(scores)
        truth[:, 0] = 1
        squares = (mine**2).sum() + (theirs**2).sum() / (1 + negatives)
        return F.binary_cross_entropy_with_logits(scores, truth) + decay * squares / len(rows), len(rows)

    fit(sides, FitLoop(epochs, lr, "adam", schedule="linear"), batches, loss, name="choice factors")
    return Factors(0.0, *(side.detach().double() for side in sides))
