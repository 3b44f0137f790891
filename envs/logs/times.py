"""What the times of a log mean: when things were done, or when they were typed in."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recloop.envs.logs.schema import Times

DAY = 86_400.0
"""Seconds of a day."""
TIES_OF_ENTRY = 0.25
"""From this share of equal neighbouring times on, they are taken for times of entry by itself."""
FEW_TIES_OF_ENTRY = 0.05
"""From this share on, if most users also fit within a day: nobody consumes a history in one sitting."""
WITHIN_DAY_OF_ENTRY = 0.5
"""Share of users whose whole history fits within 24 hours that counts as most users."""
LEAST_ROWS = 5
"""Rows from which on a user counts for the share within a day: a short history proves nothing."""


@dataclass(frozen=True)
class TimesEvidence:
    """What was measured on the times of a log.

    Args:
        ties: share of the pairs of neighbouring rows of a user that carry the same time, in [0, 1].
        within_day: share of users, of those with `LEAST_ROWS` rows, whose history fits within 24 hours.
        whole_days: True where every time is a midnight: dates, not times.
        rows: rows with a time.
    """

    ties: float
    within_day: float
    whole_days: bool
    rows: int


def measure_times(users: npt.ArrayLike, times: npt.ArrayLike) -> TimesEvidence:
    """Measure times (R,), in seconds, of rows of `users` (R,), any labels. Rows without a time do not count.

    >>> measure_times(["a", "a", "a", "b"], [10.0, 10.0, 99.0, 5.0]).ties
    0.5
    """
    seconds = np.asarray(times, dtype=np.float64)
    known = np.isfinite(seconds)
    labels = np.unique(np.asarray(users).astype(str), return_inverse=True)[1][known]
    seconds = seconds[known]
    order = np.lexsort((seconds, labels))
    labels, seconds = labels[order], seconds[order]
    neighbours = labels[1:] == labels[:-1]
    ties = float(np.mean(seconds[1:][neighbours] == seconds[:-1][neighbours])) if neighbours.any() else 0.0
    starts = np.flatnonzero(np.concatenate([[True], ~neighbours])) if len(seconds) else np.zeros(0, dtype=int)
    ends = np.concatenate([starts[1:], [len(seconds)]]) - 1 if len(seconds) else starts
    long = ends - starts + 1 >= LEAST_ROWS
    spans = (seconds[ends] - seconds[starts])[long]
    within = float(np.mean(spans <= DAY)) if len(spans) else 0.0
    whole = bool(len(seconds)) and bool(np.all(seconds % DAY == 0))
    return TimesEvidence(ties, within, whole, len(seconds))


def decide_times(evidence: TimesEvidence, *, known_entry: str = "") -> tuple[Times, str]:
    """What the times mean, and why in a sentence for the card.

    Args:
        evidence: what `measure_times` found.
        known_entry: a reason to know that they are times of entry, whatever was measured (MovieLens).
    """
    shares = (
        f"{evidence.ties:.0%} of a user's neighbouring rows carry the same time and "
        f"{evidence.within_day:.0%} of users have their whole history within 24 hours"
    )
    if not evidence.rows:
        return Times.none, "The log has no times: order only."
    if known_entry:
        return Times.entry, f"Times are times of typing-in: {known_entry}; {shares}."
    if evidence.whole_days:
        return Times.entry, "Times are whole days: the order within a day and every rhythm are unknown."
    few = evidence.ties >= FEW_TIES_OF_ENTRY and evidence.within_day >= WITHIN_DAY_OF_ENTRY
    if evidence.ties >= TIES_OF_ENTRY or few:
        return Times.entry, f"Times are taken for times of typing-in: {shares}."
    return Times.behavioural, f"Times are taken for times of behaviour: {shares}."
