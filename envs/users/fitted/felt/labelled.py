"""Rows that a model of one signal learns from, and what is said where they are too few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Objective = Literal["binary", "regression"]
_FEW = 40
"""Rows, and four times the rows of the rarer answer, below which nothing is learned but the base rate."""


@dataclass(frozen=True)
class Labelled:
    """Rows to learn from.

    Args:
        inputs: (n, F).
        values: (n,) 0 or 1, or numbers.
        weights: (n,), or None for equal ones.
        start: (n,) raw scores that trees are grown on top of; None for none.
    """

    inputs: Rows
    values: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32] | None = None
    start: npt.NDArray[np.float32] | None = None


def too_few(rows: Labelled, objective: Objective) -> bool:
    """Whether nothing but the base rate can be learned."""
    positive = int((rows.values > 0.5).sum())
    rare = min(positive, len(rows.values) - positive) if objective == "binary" else len(rows.values)
    return len(rows.values) < _FEW or rare < _FEW // 4


def constant_of(rows: Labelled, objective: Objective) -> float:
    """The base rate as a score."""
    if rows.start is not None:
        return 0.0
    weights = np.ones_like(rows.values) if rows.weights is None else rows.weights
    if objective == "regression":
        return float(np.average(rows.values, weights=weights)) if weights.sum() > 0 else 0.0
    total = max(float(weights.sum()), 1e-9)
    share = (float((weights * rows.values).sum()) / total * len(rows.values) + 0.5) / (len(rows.values) + 1)
    return float(np.log(share / (1 - share)))
