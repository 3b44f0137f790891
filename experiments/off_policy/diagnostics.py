"""May a number be printed? What weights and overlap say of an estimate, and the words in which it is refused."""

from dataclasses import dataclass

import numpy as np

from recloop.experiments.off_policy.choices import Floats, LoggedChoices
from recloop.experiments.off_policy.estimators import WeightedEpisodes, clip_of, tau_of
from recloop.experiments.off_policy.targets import Target

LEAST_ESS = 100.0
"""WeightedEpisodes that the weighted ones must be worth."""
MOST_UNSEEN = 0.05
"""Share of the target's items that the log may never have shown."""
LARGEST = 0.1
"""Share of all weight that one user may have."""
LEAST_KEPT = 0.9
"""Share of the target's mass that clipping, or SWITCH, must leave to the weights."""
ERRORS = 3.0
"""Standard errors that the mean weight may lie from 1."""
_ROUNDING = 0.01
"""What rounded propensities may move that mean."""


@dataclass(frozen=True)
class Diagnostics:
    """What is known of a target's weights on a log.

    Args:
        episodes: E.
        ess: effective sample size (Kish 1965), sum(w)^2 / sum(w^2), in episodes.
        matched: share of the logged episodes that the target could have made, in [0, 1].
        unseen: share of the items that the target shows which the log never did, in [0, 1].
        largest: share of all weight that lies on one user.
        mean: of the weights; 1 where propensities are right.
        error: standard error of that mean over users.
    """

    episodes: int
    ess: float
    matched: float
    unseen: float
    largest: float
    mean: float
    error: float


def diagnose(log: LoggedChoices, target: Target | None, episodes: WeightedEpisodes) -> Diagnostics:
    """Of a target, None for the logging policy itself."""
    weight, n = episodes.last, log.catalogue_size
    users = np.bincount(episodes.user, weight)
    count = np.bincount(episodes.user).astype(float)
    mean = float(weight.mean())
    spread = float(np.std(users - mean * count, ddof=1)) if len(users) > 1 else float("nan")
    unseen = 0.0
    if target is not None:
        shown = target.drawn[np.broadcast_to(log.held, target.drawn.shape) & (target.drawn < n)]
        unseen = float((~np.isin(shown, log.items)).mean()) if len(shown) else 0.0
    return Diagnostics(
        episodes=len(weight),
        ess=effective_sample_size(weight),
        matched=float((weight > 0).mean()),
        unseen=unseen,
        largest=float(users.max() / users.sum()) if users.sum() else 1.0,
        mean=mean,
        error=spread * np.sqrt(len(users)) / len(weight),
    )


def effective_sample_size(weight: Floats) -> float:
    """sum(w)^2 / sum(w^2), 0 for weights that are all 0.

    >>> effective_sample_size(np.array([1.0, 1.0, 2.0, 0.0]))
    2.6666666666666665
    """
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares else 0.0


def refusal(found: Diagnostics, episodes: WeightedEpisodes, estimator: str, doubt: str = "") -> str:
    """Why the estimate is not printed: value, limit and way out; empty where nothing speaks against it.

    What the log does not carry no estimator mends: clipping, SWITCH and the direct model hide the noise of weights and
    not their want of evidence. The first two are also held to leave most of the target to the weights.
    """
    reasons = [doubt] if doubt else []
    if found.matched == 0:
        reasons.append("the target would have made 0 logged episodes; log with a policy that explores, or soften it")
    if found.unseen > MOST_UNSEEN:
        reasons.append(
            f"{found.unseen:.0%} of what the target shows was never logged (at most {MOST_UNSEEN:.0%}); log with a "
            "policy that shows it, or evaluate one nearer to the log"
        )
    if found.ess < LEAST_ESS:
        reasons.append(
            f"the effective sample size is {found.ess:.1f} of {found.episodes} episodes (at least {LEAST_ESS:.0f}); "
            "log more, or evaluate a policy nearer to the log (--epsilon)"
        )
    if found.largest > LARGEST:
        reasons.append(
            f"one user has {found.largest:.0%} of all weight (at most {LARGEST:.0%}); log more users, or evaluate a "
            "policy nearer to the log"
        )
    if abs(found.mean - 1) > max(ERRORS * found.error, _ROUNDING):
        reasons.append(
            f"the weights' mean is {found.mean:.2f}, {abs(found.mean - 1) / max(found.error, 1e-12):.1f} standard "
            f"errors from 1 (at most {ERRORS:g}); the propensities are not those that made the log, or the log never "
            "met what the target shows"
        )
    kept = _kept(episodes, estimator)
    if kept < LEAST_KEPT:
        reasons.append(
            f"{kept:.0%} of the target is left to the weights (at least {LEAST_KEPT:.0%}), the rest is bias or the "
            "model's word; log more, or evaluate a policy nearer to the log"
        )
    return "; ".join(reasons)


def _kept(e: WeightedEpisodes, estimator: str) -> float:
    """Share of the target's mass that clipping, or SWITCH at its worst place, leaves to the weights; else 1."""
    if estimator == "clipped-ips":
        return float(np.minimum(e.last, clip_of(e)).mean() / max(e.last.mean(), 1e-12))
    if estimator != "switch-dr":
        return 1.0
    weight = e.weight * e.held
    return float(((weight * (weight <= tau_of(e))).sum(0) / weight.sum(0).clip(1e-12)).min())
