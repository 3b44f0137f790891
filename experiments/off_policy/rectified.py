"""A rectified judge: many simulated episodes and a few live ones as one interval that the live ones vouch for.

Prediction-powered inference (Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, Science 2023) with the weight of PPI++
(Angelopoulos, Duchi and Zrnic 2023). Differences: means over users alone; intervals by Student's t with the degrees of
freedom of the live users, since those are few; the weight is kept within [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.comparison.intervals import LEVEL, Floats, Interval, t_interval


@dataclass(frozen=True)
class Rectified:
    """What a policy, or a difference of two, is worth to live users.

    Args:
        live: by the live users alone.
        judged: by the simulated users alone, whom nothing vouches for.
        together: by both.
        weight: of the simulated users, from 0 (they tell nothing of the live ones) to 1.
        users: live users.
        saved: share of the live users that the simulated ones stand for: with so many fewer, `together` is as wide as
            `live` is. 0 where nothing is saved.
    """

    live: Interval
    judged: Interval
    together: Interval
    weight: float
    users: int
    saved: float


FEWEST = 10
"""Live users below which nothing is rectified: the weight would be noise."""


def rectified(live: Floats, of_live: Floats, others: Floats) -> Rectified:
    """What live outcomes and a judge's values tell of the mean outcome.

    mean(live) + w (mean(others) - mean(of_live)), with w = cov(live, of_live) / ((1 + n / N) var(of_live)): whatever
    the judge gets wrong on average is taken out by the live users, and its errors cost width alone.

    Args:
        live: outcomes of n live users, (n,).
        of_live: what the judge makes of the same users, (n,).
        others: what it makes of N users drawn from the same people, (N,).

    Raises:
        RecloopError: fewer than `FEWEST` live users, values that are no numbers, or not one of each.
    """
    n, many = len(live), len(others)
    if n != len(of_live):
        raise RecloopError(f"{n} live outcomes and {len(of_live)} judged ones; give one of each for every live user")
    if n < FEWEST or many < 2:
        raise RecloopError(f"{n} live users, {many} simulated; at least {FEWEST} and 2 are needed")
    if not all(np.isfinite(values).all() for values in (live, of_live, others)):
        raise RecloopError("an outcome is NaN or infinite; leave users without one out")
    spread = float(of_live.var(ddof=1))
    weight = 0.0
    if spread > 0:
        weight = float(np.cov(live, of_live, ddof=1)[0, 1]) / ((1 + n / many) * spread)
    weight = min(max(weight, 0.0), 1.0)
    alone = t_interval(live)
    mean = float(live.mean()) + weight * (float(others.mean()) - float(of_live.mean()))
    variance = float((live - weight * of_live).var(ddof=1)) / n + weight**2 * float(others.var(ddof=1)) / many
    half = math.sqrt(variance) * float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    p = 1.0 if half == 0 and mean == 0 else float(2 * stats.t.sf(abs(mean) / max(math.sqrt(variance), 1e-300), n - 1))
    of_one = float(live.var(ddof=1)) / n
    saved = 0.0 if of_one == 0 else max(0.0, 1 - variance / of_one)
    return Rectified(alone, t_interval(others), Interval(mean, mean - half, mean + half, p), weight, n, saved)
