"""How well ratings and consumption were predicted, user by user, and what propensities weigh."""

import numpy as np
import numpy.typing as npt

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.comparison.intervals import LEVEL, Floats, Interval, Ints

_RESAMPLES = 1000


def squared_errors(wrong: Floats, users: Ints, count: int) -> Floats:
    """Sum of squared errors and number of ratings of each user: (n,) errors of `users` (n,) -> (count, 2)."""
    return np.stack(
        [np.bincount(users, weights=wrong**2, minlength=count), np.bincount(users, minlength=count)], axis=1
    )


def rmse(errors: Floats, seed: int = 0) -> Interval:
    """Root mean squared error over ratings, its interval by resampling users: `squared_errors` (U, 2).

    >>> print(rmse(np.array([[4.0, 1.0], [4.0, 1.0]])))
    2.000 [2.000, 2.000]
    """
    errors = errors[errors[:, 1] > 0]
    drawn = _resampled(errors, seed)
    return _interval(float(np.sqrt(errors[:, 0].sum() / errors[:, 1].sum())), np.sqrt(drawn[:, 0] / drawn[:, 1]))


def rmse_difference(errors: Floats, reference: Floats, seed: int = 0) -> Interval:
    """RMSE of `errors` less that of `reference`, of the same users, resampled together."""
    known = errors[:, 1] > 0
    both = _resampled(np.concatenate([errors[known], reference[known]], axis=1), seed)
    value = rmse(errors).mean - rmse(reference).mean
    return _interval(value, np.sqrt(both[:, 0] / both[:, 1]) - np.sqrt(both[:, 2] / both[:, 3]))


def user_aucs(scores: Floats, positive: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_], shown: Floats) -> Floats:
    """Chance that an item a user consumed scores above one they did not, drawn by `shown`; ties half.

    Args:
        scores: (U, N).
        positive: bool (U, N) consumed in the part that is held out.
        known: bool (U, N) consumed before: neither positive nor negative.
        shown: (N,) weights of the negatives.

    Returns:
        (U,); NaN where a user has no positive or no negative.

    >>> user_aucs(np.array([[3.0, 2.0, 1.0]]), np.array([[False, True, False]]), np.zeros((1, 3), bool), np.ones(3))
    array([0.5])
    """
    found = np.full(len(scores), np.nan)
    for user in range(len(scores)):
        mine = positive[user] & ~known[user]
        others = ~positive[user] & ~known[user]
        if not mine.any() or not others.any():
            continue
        order = np.argsort(scores[user][others])
        ranked, weight = scores[user][others][order], np.concatenate([[0.0], np.cumsum(shown[others][order])])
        below = weight[np.searchsorted(ranked, scores[user][mine], "left")]
        up_to = weight[np.searchsorted(ranked, scores[user][mine], "right")]
        found[user] = float(((below + up_to) / 2).mean() / weight[-1])
    return found


def propensity_weights(propensities: Floats, least: float) -> Floats:
    """Inverse propensities, clipped: 1 / max(p, least), scaled to mean 1, (n,).

    Raises:
        RecloopError: a propensity outside (0, 1].

    >>> propensity_weights(np.array([0.5, 0.5, 0.01]), 0.25).tolist()
    [0.75, 0.75, 1.5]
    """
    wrong = ~((propensities > 0) & (propensities <= 1))
    if wrong.any():
        raise RecloopError(f"propensity {propensities[wrong][0]:g} does not lie in (0, 1]; clean the log first")
    weights = 1 / np.maximum(propensities, least)
    scaled: Floats = weights / weights.mean()
    return scaled


def effective_sample_size(weights: Floats) -> float:
    """How many equally weighted rows tell as much (Kish 1965): (n,).

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def _resampled(rows: Floats, seed: int) -> Floats:
    """Sums over users drawn with replacement, (U, c) -> (resamples, c)."""
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=_RESAMPLES)
    sums: Floats = counts @ rows
    return sums


def _interval(value: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
