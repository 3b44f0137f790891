"""Which policy is better, how far that is known, and what would settle the rest.

Three levels. *In this world*: among the simulated users that agents trained with (in a ground-truth world: the truth).
*Across judges*: the same order also among users that no policy was trained or tuned against. *Outside*: among real
people; never claimed here, because this version makes no off-policy estimates.

A claim needs a paired t test over users that passes at 5 % after Holm's correction over all pairs of policies in
that simulator, and the same sign in every retraining seed.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from recloop.experiments.comparison.intervals import LEVEL, Interval, holm, t_interval, users_needed
from recloop.experiments.comparison.results import Comparison

SETTLED_BY_USERS = 1_000_000
"""Above this many users a log is of no practical size."""


class Level(StrEnum):
    """How far a claim reaches."""

    in_this_world = "in this world"
    across_judges = "across judges"
    outside = "outside"


@dataclass(frozen=True)
class Claim:
    """What is known about the order of two policies.

    Args:
        better, worse: the two policies; where the order is not known, as they stand in the table.
        level: how far the claim reaches; None where the order is not known.
        differences: paired difference of returns, better minus worse, by simulator.
        p: corrected p-values, by simulator.
        settle: what would settle what is not known; empty where nothing is open.
    """

    better: str
    worse: str
    level: Level | None
    differences: dict[str, Interval]
    p: dict[str, float]
    settle: str = ""

    @property
    def text(self) -> str:
        """The claim as a sentence."""
        if self.level is None:
            return f"The order of {self.better} and {self.worse} is not known."
        return f"{self.better} is better than {self.worse} {self.level}."


def claims_of(comparison: Comparison) -> tuple[Claim, ...]:
    """One claim for each pair of policies; those that reach furthest first."""
    pairs = list(combinations(comparison.labels, 2))
    intervals = {
        name: [t_interval(comparison.difference(a, b, name)) for a, b in pairs] for name in comparison.simulators
    }
    corrected = {name: holm([i.p for i in found]) for name, found in intervals.items()}
    claims = []
    for place, (a, b) in enumerate(pairs):
        differences = {name: intervals[name][place] for name in comparison.simulators}
        p = {name: corrected[name][place] for name in comparison.simulators}
        claims.append(_claim(comparison, a, b, differences, p, len(pairs)))
    order = [Level.across_judges, Level.in_this_world, None]
    return tuple(sorted(claims, key=lambda c: order.index(c.level)))


def _claim(
    comparison: Comparison,
    a: str,
    b: str,
    differences: dict[str, Interval],
    p: dict[str, float],
    pairs: int,
) -> Claim:
    base, others = comparison.simulators[0], comparison.simulators[1:]
    known = {s: _sign(differences[s]) if p[s] < 1 - LEVEL else 0 for s in comparison.simulators}
    agree = {s: _seeds_agree(comparison, a, b, s) for s in comparison.simulators}
    sign = known[base] if agree[base] else 0
    if sign < 0:
        a, b = b, a
        differences = {s: Interval(-i.mean, -i.high, -i.low, i.p) for s, i in differences.items()}
    if sign == 0:
        if not agree[base]:
            settle = "the order changes with the training seed: more seeds (--seeds), or longer training (--steps)"
        else:
            settle = _more_users(comparison, a, b, base, pairs)
        return Claim(a, b, None, differences, p, settle)
    contrary = [s for s in others if known[s] == -sign]
    open_ = [s for s in others if known[s] == 0 or not agree[s]]
    if others and not contrary and not open_:
        return Claim(a, b, Level.across_judges, differences, p)
    settle = ""
    if contrary:
        settle = f"{', '.join(contrary)} say the opposite: a log with slates shown at random would tell who is right"
    elif open_:
        settle = f"not confirmed in {', '.join(open_)}: {_more_users(comparison, a, b, open_[0], pairs)}"
    return Claim(a, b, Level.in_this_world, differences, p, settle)


def _sign(interval: Interval) -> int:
    return int(math.copysign(1, interval.mean)) if interval.mean else 0


def _seeds_agree(comparison: Comparison, a: str, b: str, simulator: str) -> bool:
    """The mean difference has one sign in every seed, where any of the two was retrained."""
    retrained = any(c.retrained for c in comparison.contenders if c.label in (a, b))
    if not retrained:
        return True
    means = [float(comparison.difference(a, b, simulator, seed).mean()) for seed in comparison.seeds]
    return all(m > 0 for m in means) or all(m < 0 for m in means) or not any(means)


def _more_users(comparison: Comparison, a: str, b: str, simulator: str, pairs: int) -> str:
    paired = comparison.difference(a, b, simulator)
    needed = users_needed(paired, pairs)
    if not paired.any():
        return "they earned exactly the same from every user: nothing to settle"
    if needed is None:
        return "no difference at all on average: more users, and no order need come out"
    if needed > SETTLED_BY_USERS:
        return f"a difference this small ({paired.mean():+.4f}) would need more than {SETTLED_BY_USERS:,} users"
    if needed <= len(paired):
        return "just missed after correction for many pairs: fewer policies or more evaluation users (--episodes)"
    return f"about {needed:,} evaluation users instead of {len(paired):,}, were the difference as large as seen"
