"""The rule: what is claimed of every pair of policies; see `recloop.experiments.comparison.claims`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from recloop.experiments.comparison.claims.claim import PLANNING, Claim, Level
from recloop.experiments.comparison.claims.evidence import ClaimRules, Evidence, Witness, named
from recloop.experiments.comparison.intervals import (
    LEVEL,
    MOST_SEEDS,
    Floats,
    Interval,
    holm,
    seeds_needed,
    t_interval,
    users_needed,
)
from recloop.experiments.comparison.results import Comparison

SETTLED_BY_USERS = 1_000_000
"""Above this many users a log is of no practical size."""


def claims_of(comparison: Comparison, rules: ClaimRules | None = None) -> tuple[Claim, ...]:
    """One claim for each pair of policies of a comparison, by all looks so far; those that reach furthest first."""
    known = [look for look in comparison.looks if look <= len(comparison.seeds)] or [len(comparison.seeds)]
    looks = [Evidence.of(replace(comparison, seeds=comparison.seeds[:n])) for n in known]
    return claims_over([claims_from(evidence, rules) for evidence in looks])


def claims_over(looks: Sequence[Sequence[Claim]]) -> tuple[Claim, ...]:
    """Of each pair the claim of the first look that makes one, else what the last says; the furthest first."""
    found: dict[frozenset[str], Claim] = {}
    for claim in (claim for look in looks for claim in look):
        pair = frozenset((claim.better, claim.worse))
        if pair not in found or not found[pair].made:
            found[pair] = claim
    return _furthest_first(found.values())


def claims_from(evidence: Evidence, rules: ClaimRules | None = None) -> tuple[Claim, ...]:
    """One claim for each pair of policies at one look; those that reach furthest first."""
    rules = rules or ClaimRules()
    pairs = list(combinations(range(len(evidence.policies)), 2))
    intervals = {w.name: [evidence.difference(w, a, b) for a, b in pairs] for w in evidence.witnesses}
    retrained = {w.name: [evidence.retrained_difference(w, a, b) for a, b in pairs] for w in evidence.witnesses}
    p, of_methods = (
        {name: _corrected([i.p for i in found], evidence.spent) for name, found in told.items()}
        for told in (intervals, retrained)
    )
    claims = [
        _Pair(
            evidence,
            rules,
            *pair,
            differences={name: found[at] for name, found in intervals.items()},
            p={name: found[at] for name, found in p.items()},
            of_methods={name: found[at] for name, found in of_methods.items()},
        )
        for at, pair in enumerate(pairs)
    ]
    return _furthest_first(pair.claim() for pair in claims)


def _furthest_first(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    return tuple(sorted(claims, key=lambda c: -(c.level.reach if c.level else 0)))


def _corrected(p: Sequence[float], spent: float) -> list[float]:
    """p-values corrected for all pairs and for the share of the error that a look may spend."""
    return [min(1.0, found / spent) if spent else 1.0 for found in holm(p)]


def truth_sign(difference: Floats, ties: float = ClaimRules.ties) -> int:
    """1 or -1 by the sign of the mean of paired differences (U,) in the truth; 0 where they tie."""
    mean = float(difference.mean())
    return int(math.copysign(1, mean)) if abs(mean) > ties * _error(difference) else 0


@dataclass(frozen=True)
class _Pair:
    """Two policies, a and b, and what is known of their difference a minus b by simulator."""

    evidence: Evidence
    rules: ClaimRules
    a: int
    b: int
    differences: Mapping[str, Interval]
    p: Mapping[str, float]
    of_methods: Mapping[str, float]
    """Corrected p-values over users and seeds."""

    def claim(self) -> Claim:
        if self.forced() < 0:
            return self.turned().claim()
        truth = self.evidence.truth
        borne = None if truth is None else truth_sign(truth[self.a] - truth[self.b], self.rules.ties)
        against, settle = self.against()
        of_training, held_back = ("", ()) if against else (self.of_training(), self.evidence.lacking(self.rules))
        names = self.evidence.policies
        warned = [names[i] for i in (self.a, self.b) if self.evidence.planning[i]]
        return Claim(
            names[self.a],
            names[self.b],
            None if against else self.level(of_training, held_back, borne),
            dict(self.differences),
            dict(self.p),
            against=against,
            of_training=of_training,
            held_back=held_back,
            settle=settle,
            warning=f"{' and '.join(warned)} {PLANNING}" if warned else "",
            seeds=self.evidence.seeds,
            truth=borne,
            waits=bool(against) and self.waits(),
        )

    def told(self, witnesses: Sequence[Witness]) -> list[Witness]:
        """Those who tell the two apart."""
        return [w for w in witnesses if self.p[w.name] < 1 - LEVEL]

    def forced(self) -> float:
        """The mean difference among the judges who tell the two apart, else in training users who do, else in all."""
        evidence = self.evidence
        asked = self.told(evidence.judges) or self.told([evidence.training]) or evidence.witnesses
        return float(np.mean([self.differences[w.name].mean for w in asked]))

    def turned(self) -> "_Pair":
        found = {n: Interval(-i.mean, -i.high, -i.low, i.p) for n, i in self.differences.items()}
        return _Pair(self.evidence, self.rules, self.b, self.a, found, self.p, self.of_methods)

    def of_training(self) -> str:
        """Why nothing is claimed of what trains the two; empty where neither is trained anew, or trainings agree."""
        evidence = self.evidence
        if not evidence.retrains(self.a, self.b):
            return ""
        if evidence.seeds < self.rules.seeds:
            return f"that takes {self.rules.seeds} training seeds or more"
        silent = [w.name for w in evidence.witnesses if self.of_methods[w.name] >= 1 - LEVEL]
        return f"over trainings the difference may be chance in {named(silent)}" if silent else ""

    def level(self, of_training: str, held_back: Sequence[str], borne: int | None) -> Level:
        evidence = self.evidence
        if of_training:
            return Level.this_policy
        if held_back or evidence.written_down:
            return Level.this_method if evidence.seeds >= self.rules.seeds else Level.this_policy
        if borne is not None:
            return Level.outside if borne == 1 else Level.across_judges
        better, worse = evidence.brackets[self.a], evidence.brackets[self.b]
        apart = better is not None and worse is not None and better.pessimistic > worse.optimistic
        return Level.outside if apart else Level.across_judges

    def against(self) -> tuple[str, str]:
        """Why the order is not claimed, and what would settle it; two empty texts where it is claimed."""
        evidence = self.evidence
        flagged = [f"{evidence.policies[i]} ({evidence.flag(i)})" for i in (self.a, self.b) if evidence.flag(i)]
        if flagged:
            return f"flagged: {'; '.join(flagged)}", "a log that shows what these policies show"
        broken = [evidence.policies[i] for i in (self.a, self.b) if not self.has_numbers(i)]
        if broken:
            return f"returns of {named(broken)} are not all numbers", "a reward and users whose answers are numbers"
        if not evidence.spent:
            looks = ", ".join(map(str, evidence.looks))
            return f"claims are looked at after {looks} seeds, and there are {evidence.seeds}", "the same command again"
        told = [w.name for w in self.told(evidence.witnesses)]
        contrary = [name for name in told if self.differences[name].mean < 0]
        if contrary:
            return f"{named(contrary)} say the opposite", "a log with slates shown at random would tell who is right"
        turning = [w.name for w in evidence.witnesses if not self.seeds_agree(w)]
        if turning:
            return f"the order changes with the training seed in {named(turning)}", self.more_seeds(turning[0])
        silent = [w.name for w in evidence.witnesses if w.name not in told]
        if silent:
            asks_seeds = evidence.looks and evidence.retrains(self.a, self.b)
            settle = (self.more_seeds if asks_seeds else self.more_users)(silent[0])
            return f"the difference may be chance in {named(silent)}", settle
        return self.within_margin()

    def seeds_agree(self, witness: Witness) -> bool:
        """The mean difference has one sign in every seed, where any of the two was retrained and no test asks seeds."""
        if self.evidence.looks or not self.evidence.retrains(self.a, self.b):
            return True
        means = (witness.values[:, self.a] - witness.values[:, self.b]).mean(1)
        return bool((means > 0).all() or (means < 0).all() or not means.any())

    def within_margin(self) -> tuple[str, str]:
        """Which members and judges see no more than the margin, or the opposite."""
        short = []
        for witness in self.evidence.witnesses:
            voices = witness.voices()
            said = [self.beyond_margin(values) for values in voices]
            if not all(said):
                members = f" ({said.count(False)} of {len(voices)} members)" if witness.members else ""
                short.append(f"{witness.name}{members}")
        if not short:
            return "", ""
        margin = f"the difference does not exceed the margin of {self.rules.margin:.0%} in {named(short)}"
        return margin, "a log from which members and judges learn the same; a difference this small may be their error"

    def beyond_margin(self, values: Floats) -> bool:
        difference = values[self.a] - values[self.b]
        larger = max(abs(float(values[self.a].mean())), abs(float(values[self.b].mean())))
        asked = self.rules.margin * larger + self.rules.errors * _error(difference)
        return float(difference.mean()) >= asked if len(difference) > 1 else False

    def has_numbers(self, policy: int) -> bool:
        """Whether a policy's returns are numbers, in front of everybody."""
        return all(bool(np.isfinite(w.values[:, policy]).all()) for w in self.evidence.witnesses)

    def waits(self) -> bool:
        """Whether seeds that are still to come may bring a claim: some order is neither ruled out by a flag, nor by the
        interval, nor by the margin, nor by too few users."""
        evidence = self.evidence
        open_to_seeds = bool(evidence.looks) and evidence.retrains(self.a, self.b)
        if not open_to_seeds or any(evidence.flag(i) or not self.has_numbers(i) for i in (self.a, self.b)):
            return False
        return all(self.within_reach(w, 1) for w in evidence.witnesses) or all(
            self.within_reach(w, -1) for w in evidence.witnesses
        )

    def within_reach(self, witness: Witness, sign: int) -> bool:
        """Whether the difference may be as large as margin and users ask for, in this order."""
        interval, paired = self.differences[witness.name], t_interval(witness.difference(self.a, self.b))
        larger = max(abs(float(witness.values[:, i].mean())) for i in (self.a, self.b))
        end = interval.high if sign > 0 else -interval.low
        return end > max(self.rules.margin * larger, paired.half)

    def more_seeds(self, simulator: str) -> str:
        """How many trainings would settle it, by what these few tell of their spread; else more users."""
        witness = next(w for w in self.evidence.witnesses if w.name == simulator)
        if self.evidence.seeds < 2:
            return self.more_users(simulator)
        needed, seeds = seeds_needed(witness.values[:, self.a] - witness.values[:, self.b], self.pairs), witness.seeds
        paired = witness.difference(self.a, self.b)
        if needed is None and (users_needed(paired, self.pairs) or math.inf) <= len(paired):
            most = f"more than {MOST_SEEDS} training seeds, were difference and spread as seen"
            return f"{most}, or longer training (--steps)"
        if needed is None:
            return f"seeds alone would not settle it, but {self.more_users(simulator)}, or longer training (--steps)"
        if needed <= seeds:
            return "just missed after correction for many pairs and looks: fewer policies, or more seeds (--seeds)"
        return (
            f"about {needed} training seeds instead of {seeds}, were difference and spread as seen (--seeds "
            f"{max(seeds, self.rules.seeds)}:{needed}), or longer training (--steps)"
        )

    @property
    def pairs(self) -> int:
        """All pairs of the comparison."""
        return math.comb(len(self.evidence.policies), 2)

    def more_users(self, simulator: str) -> str:
        """How many evaluation users would settle it."""
        witness = next(w for w in self.evidence.witnesses if w.name == simulator)
        paired = witness.difference(self.a, self.b)
        needed = users_needed(paired, self.pairs)
        if not paired.any():
            return "they earned exactly the same from every user: nothing to settle"
        if needed is None:
            return "no difference at all on average: more users, and no order need come out"
        if needed > SETTLED_BY_USERS:
            return f"a difference this small ({paired.mean():+.4f}) would need more than {SETTLED_BY_USERS:,} users"
        if needed <= len(paired):
            return "just missed after correction for many pairs: fewer policies or more evaluation users (--episodes)"
        return f"about {needed:,} evaluation users instead of {len(paired):,}, were the difference as large as seen"


def _error(difference: Floats) -> float:
    """Standard error of the mean of paired differences (U,)."""
    if len(difference) < 2:
        return math.inf
    return float(difference.std(ddof=1)) / math.sqrt(len(difference))
