"""How sure a mean is: intervals over users, over retraining seeds, and a correction for many pairs at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from recloop.encoders.base.errors import RecloopError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Coverage of every interval, and one minus the error that claims may make."""

MOST_SEEDS = 200
"""Trainings beyond which it is not worked out how many would settle an order."""

SEEDS_FOR_INTERVAL = 5
"""Below this many retraining seeds their values are shown as dots; from here on as a t interval."""


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with probability `LEVEL`.

    Args:
        mean: the estimate.
        low, high: ends of the interval.
        p: two-sided p-value of the mean being zero.
    """

    mean: float
    low: float
    high: float
    p: float = float("nan")

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2

    @property
    def sign(self) -> int:
        """1 above zero, -1 below, 0 where the interval holds zero."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def by_user(values: npt.NDArray[np.generic], users: Ints) -> Floats:
    """The mean of each user's lanes: (B,) values of lanes with users (B,) -> (U,), users rising.

    >>> by_user(np.array([1.0, 3.0, 5.0]), np.array([7, 7, 2])).tolist()
    [5.0, 2.0]
    """
    _, place = np.unique(users, return_inverse=True)
    total = np.bincount(place, weights=values.astype(np.float64))
    return np.asarray(total / np.bincount(place), dtype=np.float64)


def t_interval(sample: Floats) -> Interval:
    """Student's t interval of the mean of a sample (n,) with its p-value against zero; n at least 2.

    A sample without any spread has a point for an interval, and p = 0 unless it lies at zero.

    >>> print(t_interval(np.array([1.0, 2.0, 3.0])))
    2.000 [-0.484, 4.484]
    """
    n = len(sample)
    if n < 2:
        raise RecloopError(f"an interval over {n} value(s); at least 2 are needed")
    mean = float(sample.mean())
    error = float(sample.std(ddof=1)) / math.sqrt(n)
    if error == 0:
        return Interval(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = error * float(stdtrit(n - 1, (1 + LEVEL) / 2))
    return Interval(mean, mean - half, mean + half, float(2 * stdtr(n - 1, -abs(mean) / error)))


def crossed_interval(sample: Floats) -> Interval:
    """Interval of the mean of a sample (S, U) of S trainings before the same U users, both drawn at random.

    Its half width squared is that of the t interval over users and that over trainings, added up: wide enough for
    normal means whichever of the two varies more (Banerjee 1960), where Satterthwaite's degrees of freedom are too many
    for three trainings that happen to be alike. What is left over between a training and a user counts in both.

    >>> print(crossed_interval(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])))  # trainings alike: users alone count
    2.000 [-0.484, 4.484]
    """
    seeds, users = sample.shape
    of_users = t_interval(sample.mean(0))
    if seeds < 2 or not np.isfinite(sample).all():
        return of_users
    errors, freedom = (_squared_error(sample.mean(0)), _squared_error(sample.mean(1))), (users - 1, seeds - 1)
    mean = of_users.mean
    half = _half_width(math.log(1 - LEVEL), errors, freedom)
    if half == 0 or mean == 0:
        return Interval(mean, mean - half, mean + half, 1.0 if mean == 0 else 0.0)
    least = math.log(1e-15)
    if _half_width(least, errors, freedom) < abs(mean):
        return Interval(mean, mean - half, mean + half, 1e-15)
    p = math.exp(brentq(lambda error: _half_width(error, errors, freedom) - abs(mean), least, 0.0))
    return Interval(mean, mean - half, mean + half, p)


def _half_width(log_error: float, errors: Sequence[float], freedom: Sequence[int]) -> float:
    """Of an interval that misses with this probability, from squared standard errors and degrees of freedom."""
    tail = math.exp(log_error) / 2
    return math.sqrt(sum(float(stdtrit(f, tail)) ** 2 * e for e, f in zip(errors, freedom, strict=True)))


def _squared_error(sample: Floats) -> float:
    """Of the mean of a sample (n,)."""
    return float(sample.var(ddof=1)) / len(sample)


def improvement(differences: Floats) -> Interval:
    """Probability that a user is better served, from paired differences (n,): ties count half; Wilson's interval.

    Over users of one trained pair of policies. Differs from the score of Agarwal et al. 2021, which is over runs.
    """
    n = len(differences)
    share = float(((differences > 0) + 0.5 * (differences == 0)).mean())
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def ratio_interval(above: Floats, below: Floats) -> Interval:
    """Interval of mean(above) / mean(below) over paired users (n,), by Fieller's theorem.

    Where the lower part may be zero the interval is the whole line: nothing is known.
    """
    n = len(above)
    top, bottom = float(above.mean()), float(below.mean())
    t = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    covariance = np.cov(above, below, ddof=1) / n
    a = bottom**2 - t**2 * covariance[1, 1]
    b = top * bottom - t**2 * covariance[0, 1]
    c = top**2 - t**2 * covariance[0, 0]
    mean = top / bottom if bottom else float("nan")
    root = b * b - a * c
    if a <= 0 or root < 0:
        return Interval(mean, -math.inf, math.inf)
    return Interval(mean, float((b - math.sqrt(root)) / a), float((b + math.sqrt(root)) / a))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for being many (Holm 1979), in the order given; one that is no number counts as 1.

    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = [1.0 if math.isnan(x) else x for x in p]
    order = sorted(range(len(p)), key=lambda i: known[i])
    corrected = [0.0] * len(p)
    worst = 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * known[i]))
        corrected[i] = worst
    return corrected


def looks_between(first: int, most: int) -> tuple[int, ...]:
    """Numbers of trainings after which orders are looked at: from `first`, half as many again each time, to `most`.

    >>> looks_between(3, 10)
    (3, 5, 8, 10)
    """
    looks = [first]
    while looks[-1] < most:
        looks.append(min(most, looks[-1] + (looks[-1] + 1) // 2))
    return tuple(looks)


def users_needed(differences: Floats, pairs: int, power: float = 0.8) -> int | None:
    """Users that would tell this difference (U,) from zero, were it as large as seen; None where it is nil.

    Normal approximation at `LEVEL`, Bonferroni over `pairs`, with the given power.

    Raises:
        RecloopError: a difference that is no number.
    """
    mean, spread = _numbers(differences), float(differences.std(ddof=1))
    if mean == 0:
        return None
    z = float(stats.norm.ppf(1 - (1 - LEVEL) / (2 * max(pairs, 1))) + stats.norm.ppf(power))
    return math.ceil((z * spread / mean) ** 2)


def seeds_needed(differences: Floats, pairs: int, power: float = 0.8, most: int = MOST_SEEDS) -> int | None:
    """Trainings that would tell these differences (S, U) from zero in the test of `crossed_interval`, were mean and
    spread as seen in S of at least 2; None where no number up to `most` does, as where users are what is lacking.

    Approximate: the quantile of t at `LEVEL`, Bonferroni over `pairs`, and that of the normal for the power.

    Raises:
        RecloopError: a difference that is no number.
    """
    mean, of_users = abs(_numbers(differences)), _squared_error(differences.mean(0))
    seeds = np.arange(2, most + 1)
    of_seeds = differences.mean(1).var(ddof=1) / seeds
    tail = (1 - LEVEL) / (2 * max(pairs, 1))
    half = np.sqrt(stdtrit(differences.shape[1] - 1, tail) ** 2 * of_users + stdtrit(seeds - 1, tail) ** 2 * of_seeds)
    enough = seeds[mean > half + stats.norm.ppf(power) * np.sqrt(of_users + of_seeds)]
    return int(enough[0]) if len(enough) else None


def _numbers(differences: Floats) -> float:
    """Their mean; an error where it is no number."""
    mean = float(differences.mean())
    if not math.isfinite(mean):
        raise RecloopError(
            f"a mean difference of {mean}: how many more would settle it is unknown; look for returns that are no "
            "numbers, in the reward or in users of your own"
        )
    return mean
