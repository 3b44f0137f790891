"""One log, some targets: every estimate with its interval and its difference to a reference, or why there is none.

from recloop.experiments.off_policy.evaluation import evaluate_targets
evaluate_targets(choices_of_world(world), {"random": make_policy("random", world)})
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recloop.agents.policy import Policy
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.experiments.off_policy.choices import LoggedChoices
from recloop.experiments.off_policy.diagnostics import Diagnostics, diagnose, refusal
from recloop.experiments.off_policy.estimators import (
    ESTIMATORS,
    RESAMPLES,
    Sums,
    Unit,
    WeightedEpisodes,
    bernstein,
    bootstrap,
    by_users,
    clip_of,
    delta_ips,
    episodes_of,
    estimators_for,
    mean_sums,
    percentile,
    value_of,
)
from recloop.experiments.off_policy.targets import Target, target_of

LOGGED = "logged"
"""The policy that made the log, whose value is what the log earned."""
DELTA = "delta-ips"
OK = "ok"
_NONE = (math.nan, math.nan)


@dataclass(frozen=True)
class OffPolicyOptions:
    """How targets are evaluated.

    Args:
        unit: what a value is of: a slate at the logged moments, or a session.
        horizon: of a session, its first so many slates; None for all.
        epsilon: softens targets without probabilities.
        interval: `bootstrap` over users, or `bernstein` (empirical) where weights are bounded: for `clipped-ips`.
        reference: whom differences are to: `logged`, or a target.
        seed: of draws and resamples.
        resamples: of users.
    """

    unit: Unit = "slate"
    horizon: int | None = None
    epsilon: float | None = None
    interval: Literal["bootstrap", "bernstein"] = "bootstrap"
    reference: str = LOGGED
    seed: int = 0
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class Estimate:
    """What one estimator says of one target.

    Args:
        target, estimator: names; of `delta-ips` the value is the difference to the reference.
        value, low, high: in the reward's unit an episode, and its 95 % interval; NaN where refused, and of `dm` the
            interval, whose error is its model's.
        difference, difference_low, difference_high: to the same estimator's value of the reference, paired over users;
            NaN where either is refused.
        interval: how low and high were found; `none` of `dm`.
        diagnostics: of the target's weights.
        verdict: `ok`, or `refused: ` and why.
    """

    target: str
    estimator: str
    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    interval: str
    diagnostics: Diagnostics
    verdict: str

    @property
    def refused(self) -> bool:
        """Whether no value is given."""
        return self.verdict != OK


def evaluate_targets(
    log: LoggedChoices, targets: Mapping[str, Policy], options: OffPolicyOptions | None = None
) -> list[Estimate]:
    """Estimates of all targets by all estimators that fit, in order; the log's own mean stands first, as `logged`.

    Args:
        log: with propensities, logged or estimated.
        targets: policies by name.
        options: see there.

    Raises:
        RecloopError: a policy without probabilities, an unknown reference, a log without propensities, fewer than two
            users, or a Bernstein interval of rewards below 0.
    """
    options = options or OffPolicyOptions()
    met = {name: target_of(it, log, epsilon=options.epsilon, seed=options.seed) for name, it in targets.items()}
    return estimates_of(log, met, options)


def estimates_of(log: LoggedChoices, targets: Mapping[str, Target], options: OffPolicyOptions) -> list[Estimate]:
    """`evaluate_targets` where it is known what the targets would have shown."""
    if options.reference not in (LOGGED, *targets):
        raise RecloopError(unknown_name("reference", options.reference, (LOGGED, *targets)))
    episodes = {LOGGED: episodes_of(log, None, options.unit, options.horizon)}
    episodes |= {name: episodes_of(log, it, options.unit, options.horizon) for name, it in targets.items()}
    found = {name: diagnose(log, targets.get(name), e) for name, e in episodes.items()}
    reference, own = episodes[options.reference], episodes[LOGGED]
    sums: dict[tuple[str, str], Sums] = {(LOGGED, "mean"): by_users(mean_sums(own), own.user)}
    refused: dict[tuple[str, str], str] = {(LOGGED, "mean"): ""}
    for name in targets:
        e = episodes[name]
        for estimator in estimators_for(e, options.unit):
            sums[name, estimator] = by_users(ESTIMATORS[estimator](e), e.user)
            refused[name, estimator] = refusal(found[name], e, estimator, log.doubt)
        if name != options.reference:
            sums[name, DELTA] = by_users(delta_ips(e, reference), e.user)
            of_reference = refusal(found[options.reference], reference, "ips", log.doubt)
            refused[name, DELTA] = refusal(found[name], e, "ips", log.doubt) or of_reference
    keys = list(sums)
    drawn = dict(zip(keys, bootstrap(list(sums.values()), options.seed, options.resamples).T, strict=True))
    made = []
    for key in keys:
        name, estimator = key
        value, (low, high), kind = value_of(sums[key]), percentile(drawn[key]), "bootstrap"
        if options.interval == "bernstein" and estimator == "clipped-ips":
            (low, high), kind = bernstein(sums[key], _largest(episodes[name])), "bernstein"
        other = (LOGGED, "mean") if options.reference == LOGGED else (options.reference, estimator)
        apart, (apart_low, apart_high) = math.nan, _NONE
        if other in sums and other != key and estimator != DELTA and not refused[other] and not refused[key]:
            apart, (apart_low, apart_high) = value - value_of(sums[other]), percentile(drawn[key] - drawn[other])
        if estimator == "dm":  # resampling users says nothing of how wrong the model is
            (low, high), (apart_low, apart_high), kind = _NONE, _NONE, "none"
        if refused[key]:
            value, (low, high) = math.nan, _NONE
        verdict = f"refused: {refused[key]}" if refused[key] else OK
        made.append(
            Estimate(name, estimator, value, low, high, apart, apart_low, apart_high, kind, found[name], verdict)
        )
    return made


def _largest(e: WeightedEpisodes) -> float:
    """The most that one user can add to the mean of `clipped-ips`: their episodes, at the largest weight and reward."""
    total = e.reward.sum(1)
    if (total < 0).any():
        raise RecloopError(f"a Bernstein interval needs rewards of 0 or more; one is {total.min():g}: use --interval "
                           "bootstrap")  # fmt: skip
    count = np.bincount(e.user)
    return float(clip_of(e) * total.max() * count.max() * len(count) / count.sum())
