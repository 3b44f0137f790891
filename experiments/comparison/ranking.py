"""Do two kinds of users rank policies alike? Kendall's tau, with an interval over users."""

import math

import numpy as np
import numpy.typing as npt

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.comparison.intervals import LEVEL, Interval

Floats = npt.NDArray[np.float64]

DRAWS = 1000
"""Bootstrap draws of an interval."""


def taus(one: Floats, other: Floats) -> Floats:
    """Kendall's tau-b (1945) of rows: (R, P) and (R, P) -> (R,); NaN where one side ties every pair.

    The same number as `scipy.stats.kendalltau`, for many rows at once.

    >>> taus(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 3.0, 2.0]])).round(3).tolist()
    [0.333]
    """
    first, second = np.triu_indices(one.shape[1], 1)
    mine = np.sign(one[:, first] - one[:, second])  # (R, pairs)
    theirs = np.sign(other[:, first] - other[:, second])
    ordered = np.sqrt((mine != 0).sum(1) * (theirs != 0).sum(1).astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((mine * theirs).sum(1) / ordered, dtype=np.float64)


def tau_over_users(one: Floats, other: Floats, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Tau between the mean values of P policies, with its bootstrap interval over users.

    Users are drawn with replacement, the same ones on both sides: they are the same people in two simulators.

    Args:
        one, other: (P, U) value of each policy for each user.
        seed: of the bootstrap.
        draws: how many.

    Raises:
        RecloopError: fewer than two policies, or users that do not pair.
    """
    if one.shape != other.shape:
        raise RecloopError(f"values of {one.shape} and {other.shape} policies and users do not pair; value both alike")
    if len(one) < 2:
        raise RecloopError(f"an order of {len(one)} policy; give at least 2")
    weights = resampled(one.shape[1], seed, draws)  # (draws, U)
    point = float(taus(one.mean(1)[None], other.mean(1)[None])[0])
    drawn = taus(weights @ one.T, weights @ other.T)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(point, math.nan, math.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(point, float(low), float(high))


def resampled(n: int, seed: int, draws: int = DRAWS) -> Floats:
    """Bootstrap weights (draws, n): how often each of n is drawn, rows summing to 1."""
    generator = np.random.default_rng(seed)
    return np.asarray(generator.multinomial(n, np.full(n, 1 / n), size=draws) / n, dtype=np.float64)
