"""Which signals a log's numeric columns are: on/off, a rating scale, or a measure."""

import numpy as np
import numpy.typing as npt

from recloop.envs.logs.schema import Signal

CONSUME = "consume"
"""Name of the consumption signal that readers add where a row means that the item was consumed."""
RATING_SCALES: tuple[tuple[float, ...], ...] = (
    (1, 2, 3, 4, 5),
    tuple(step / 2 for step in range(1, 11)),
    tuple(range(1, 11)),
    tuple(range(0, 11)),
)
"""Scales that ratings are given on; the first that holds nearly all ratings of a log is taken."""
SCALE_HOLDS = 0.99
"""Share of the ratings that must lie on a scale; the rest is out of range and left to cleaning."""
MOST_LEVELS = 10
"""A column of up to this many different values is ordinal; above, it is continuous."""


def consumption() -> Signal:
    """The signal that is 1 in every row of a log that holds consumption alone."""
    return Signal(CONSUME)


def rating_scale(values: npt.NDArray[np.float64]) -> tuple[float, ...] | None:
    """The scale ratings (R,) are given on, or None where none of `RATING_SCALES` holds them.

    >>> rating_scale(np.array([1.0, 5.0, 4.0]))
    (1, 2, 3, 4, 5)
    """
    known = values[np.isfinite(values)]
    for scale in RATING_SCALES:
        if len(known) and float(np.mean(np.isin(known, scale))) >= SCALE_HOLDS:
            return scale
    return None


def guess_signal(name: str, values: npt.NDArray[np.float64], given_on: str | None) -> Signal | None:
    """The signal a numeric column is, or None for a column that says nothing (one value or no value).

    A column called rating is held against `RATING_SCALES`; otherwise 0 and 1 are binary, up to `MOST_LEVELS`
    values are ordinal levels, and more are continuous within the range seen.
    """
    known = np.unique(values[np.isfinite(values)])
    if "rating" in name.lower() and (scale := rating_scale(values)) is not None:
        return Signal(name, "ordinal", levels=tuple(float(level) for level in scale), given_on=given_on)
    if len(known) and np.isin(known, (0.0, 1.0)).all():
        return Signal(name, given_on=given_on)
    if len(known) < 2:
        return None
    if len(known) <= MOST_LEVELS:
        return Signal(name, "ordinal", levels=tuple(known.tolist()), given_on=given_on)
    return Signal(name, "continuous", range=(float(known[0]), float(known[-1])), given_on=given_on)
