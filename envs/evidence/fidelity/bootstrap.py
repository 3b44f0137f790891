"""Intervals over users, from sums by user: what is measured is a function of totals, and users are drawn again."""

from collections.abc import Callable

import numpy as np

from recloop.envs.evidence.fidelity.lanes import Array, Numbers

DRAWS = 300


def interval(
    sums: Array,
    figure: Callable[[Array], Array],
    rng: np.random.Generator,
    drawn: Callable[[Array], Array] | None = None,
    centred: bool = False,
) -> tuple[float, float, float]:
    """A figure and its 95 % interval over users.

    Args:
        sums: float64 (B, ...) by user.
        figure: totals (R, ...) -> figures (R,).
        rng: draws the users.
        drawn: the figure of drawn users, where it is another one.
        centred: the figure can only grow by chance (a distance): what drawing users again adds to it is taken off.
    """
    value = float(figure(sums.sum(0, keepdims=True))[0])
    weights = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)  # (R, B)
    totals = np.tensordot(weights.astype(np.float64), sums, axes=(1, 0))
    found = (drawn or figure)(totals)
    found = found[np.isfinite(found)]
    if not len(found):
        return value, value, value
    low, high = np.quantile(found, [0.025, 0.975])
    if centred:
        more = max(float(found.mean()) - value, 0.0)
        low, high = max(low - more, 0.0), high - more
    return value, float(min(low, value)), float(max(high, value))


def by_user(lane: Numbers, column: Numbers, values: Numbers, users: int, columns: int) -> Array:
    """Sums (users, columns) of values (n,) by user and column."""
    flat = np.bincount(lane.astype(np.int64) * columns + column.astype(np.int64), values, users * columns).astype(
        np.float64
    )
    sums: Array = flat.reshape(users, columns)
    return sums
