"""The one rule for claims: which policy is better, how far that is known, and what would settle the rest.

"A beats B" is claimed where every member of the training ensemble and every judge say so beyond a margin, a paired t
test over users passes at 5 % in each of them after Holm's correction over all pairs, every training seed has the same
sign, and neither policy is flagged (acts beyond the log). A claim has a level, always named:

1. *this trained policy in this world*: the rule holds for the policies as they were trained;
2. *this method in this world*: three seeds or more, and the test passes over users and trainings at once
   (`crossed_interval`), where a policy is trained anew with each seed: trainings of one method differ, and three of
   them may all fall out alike by chance;
3. *across judges*: two judges or more are among those who say so, and every gate of the training users and of the
   judges passed. A gate that failed, or that cannot tell, takes this level away and is named;
4. *outside*: moreover the truth says so, where there is one, or else the log backs it: what it leaves open of the two
   values (their brackets) does not overlap.

Where trainings are added until pairs are decided (`compare --seeds 3:10`), claims are looked at after 3, 5, 8 and 10
seeds, and a claim once made stays. Retrained pairs are then tested over users and seeds alone, in place of one sign in
every seed. The 5 % are spent over the looks in proportion to the seeds that each adds, each
look corrected by Holm: whatever the looks have to do with each other, the chance of any false claim among all pairs at
any look is at most the sum, 5 %. AdaStop (Mathieu et al. 2023) spends the same way in permutation tests, which with so
many pairs can decide nothing before some ten seeds; this test can after three, and takes means for nearly normal.

`compare`, `agreement`, the report, TensorBoard and the truth study all ask here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np

from recloop.envs.evidence.gates import gate_outcomes
from recloop.envs.evidence.support.bracket import Bracket
from recloop.envs.evidence.verdict import GateOutcome, Verdict
from recloop.experiments.comparison.intervals import (
    LEVEL,
    MOST_SEEDS,
    Floats,
    Interval,
    crossed_interval,
    holm,
    seeds_needed,
    t_interval,
    users_needed,
)
from recloop.experiments.comparison.results import Comparison

SETTLED_BY_USERS = 1_000_000
"""Above this many users a log is of no practical size."""

FIXED_ON = ("boredom", "clicks", "drift")
"""Truth worlds on which the constants of `ClaimRules` and of the brackets were set; the others only test them."""

PLANNING = (
    "plans on a model of the training users, whose errors it finds and takes for taste: its value is an upper end, "
    "and its bracket is wider"
)
"""Said of every policy that chooses by users fitted on the people that agents train with."""


class Level(StrEnum):
    """How far a claim reaches, the least first."""

    this_policy = "this trained policy in this world"
    this_method = "this method in this world"
    across_judges = "across judges"
    outside = "outside"

    @property
    def reach(self) -> int:
        """1 to 4."""
        return list(Level).index(self) + 1


@dataclass(frozen=True)
class ClaimRules:
    """The constants of the rule.

    Args:
        margin: share of the larger of the two values that the difference must exceed, in every member and judge.
        errors: standard errors of the paired difference that are asked for on top.
        seeds: training seeds from which on a claim is about the method.
        judges: judges from which on a claim may reach across them.
        ties: standard errors within which two policies tie in the truth.
    """

    margin: float = 0.05
    errors: float = 1.0
    seeds: int = 3
    judges: int = 2
    ties: float = 2.0


@dataclass(frozen=True)
class Witness:
    """What one kind of users says of P policies.

    Args:
        name: of the simulator.
        values: float64 (S, P, U) return by training seed, policy and user.
        members: one float64 (P, U') for each member of an ensemble, over all seeds, each of users of its own; () where
            the users are no ensemble.
    """

    name: str
    values: Floats
    members: tuple[Floats, ...] = ()

    @property
    def seeds(self) -> int:
        """S."""
        return len(self.values)

    def difference(self, a: int, b: int) -> Floats:
        """Paired difference of two policies by user (U,), the mean over seeds."""
        return np.asarray(self.values[:, a].mean(0) - self.values[:, b].mean(0), dtype=np.float64)

    def voices(self) -> tuple[Floats, ...]:
        """(P, U') of everyone who must agree: the members, or the users as a whole."""
        return self.members or (np.asarray(self.values.mean(0), dtype=np.float64),)


@dataclass(frozen=True)
class Evidence:
    """What claims about P policies are made from.

    Args:
        policies: names, P.
        training: the users that agents train with; the truth in a world that is written down.
        judges: users that no policy was trained or tuned against.
        truth: float64 (P, U), or None.
        retrained: (P,) whether each seed is a training of its own; default none.
        brackets: (P,) what the log leaves open of each value; default nobody measured it.
        planning: (P,) whether a policy plans on a model of the training users; default none.
        gates: of the training users and of the judges; one that is not here cannot tell.
        written_down: the training users are the truth: there is nothing to pass.
        looks: numbers of seeds at which claims are looked at, rising; none where they are asked for once.
    """

    policies: tuple[str, ...]
    training: Witness
    judges: tuple[Witness, ...] = ()
    truth: Floats | None = None
    retrained: tuple[bool, ...] = ()
    brackets: tuple[Bracket | None, ...] = ()
    planning: tuple[bool, ...] = ()
    gates: tuple[GateOutcome, ...] = ()
    written_down: bool = False
    looks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, default in (("retrained", False), ("brackets", None), ("planning", False)):
            object.__setattr__(self, name, getattr(self, name) or (default,) * len(self.policies))

    @classmethod
    def of(cls, comparison: Comparison) -> "Evidence":
        """What a comparison holds: its gates are those on the world's card."""
        world, base = comparison.world, comparison.base
        judges = [name for name in comparison.simulators[1:] if name != "truth"]
        truth = None
        if "truth" in comparison.simulators[1:]:
            truth = np.stack([comparison.values(label, "truth") for label in comparison.labels])
        return cls(
            policies=comparison.labels,
            training=_witness(comparison, base),
            judges=tuple(_witness(comparison, name) for name in judges),
            truth=truth,
            retrained=tuple(c.retrained for c in comparison.contenders),
            brackets=tuple(comparison.bracket(label) for label in comparison.labels),
            planning=tuple(c.plans for c in comparison.contenders),
            gates=gate_outcomes(world.card, (base, *judges)),
            written_down=base == "truth",
            looks=comparison.looks,
        )

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """Training users and judges."""
        return (self.training, *self.judges)

    @property
    def seeds(self) -> int:
        """Trainings of each policy."""
        return self.training.seeds

    @property
    def spent(self) -> float:
        """Share of the error that this look may spend: seeds it adds over the most there may be; 0 between looks."""
        if not self.looks:
            return 1.0
        before = max((look for look in self.looks if look < self.seeds), default=0)
        return (self.seeds - before) / self.looks[-1] if self.seeds in self.looks else 0.0

    def difference(self, witness: Witness, a: int, b: int) -> Interval:
        """Of two policies by one kind of users: over users, and over seeds too where there are looks."""
        return self.retrained_difference(witness, a, b) if self.looks else t_interval(witness.difference(a, b))

    def retrained_difference(self, witness: Witness, a: int, b: int) -> Interval:
        """Over users, and over seeds too where one of the two is trained anew with each."""
        if self.retrains(a, b):
            return crossed_interval(witness.values[:, a] - witness.values[:, b])
        return t_interval(witness.difference(a, b))

    def retrains(self, a: int, b: int) -> bool:
        """Whether seeds are trainings of one of the two at least."""
        return self.retrained[a] or self.retrained[b]

    def lacking(self, rules: ClaimRules) -> tuple[str, ...]:
        """Why no claim reaches across judges; empty where nothing is in the way."""
        if self.written_down:
            return ()
        known = {gate.simulator for gate in self.gates}
        nobody = [w.name for w in self.witnesses if w.name not in known]
        found = [gate.text for gate in self.gates if gate.verdict is not Verdict.passed]
        found += [f"no gate was run in {name}" for name in nobody]
        if len(self.judges) < rules.judges:
            found.append(f"{len(self.judges)} of the {rules.judges} judges it takes")
        return tuple(found)

    def flag(self, policy: int) -> str:
        """Why a policy's value is not to be relied on; "" where nothing speaks against it."""
        bracket = self.brackets[policy]
        return "" if bracket is None else bracket.flag


@dataclass(frozen=True)
class Claim:
    """What is known about the order of two policies.

    Args:
        better, worse: the two; where nothing is claimed, as those say who tell them apart, the judges first.
        level: how far the claim reaches; None where nothing is claimed.
        differences: paired difference of returns, better minus worse, by simulator.
        p: corrected p-values, by simulator.
        against: why nothing is claimed; empty where something is.
        of_training: why a claim is of these trained policies alone and not of what trains them.
        held_back: why a claim does not reach across judges.
        settle: what would settle what is not known; empty where nothing is open.
        warning: what to bear in mind of one of the two.
        seeds: trainings it rests on.
        truth: 1 where the truth says so too, -1 where it says the opposite, 0 where they tie in it; None without one.
        waits: nothing is claimed yet, and more seeds may still bring it.
    """

    better: str
    worse: str
    level: Level | None
    differences: dict[str, Interval]
    p: dict[str, float]
    against: str = ""
    of_training: str = ""
    held_back: tuple[str, ...] = ()
    settle: str = ""
    warning: str = ""
    seeds: int = 1
    truth: int | None = None
    waits: bool = False

    @property
    def made(self) -> bool:
        """Whether anything is claimed."""
        return self.level is not None

    @property
    def reaches_judges(self) -> bool:
        """Whether it holds across judges, or outside: what is claimed of more than these simulated users."""
        return self.level in (Level.across_judges, Level.outside)

    @property
    def text(self) -> str:
        """The claim as a sentence, its level named."""
        if self.level is None:
            return f"Nothing is claimed of {self.better} and {self.worse}: {self.against}."
        seeds = f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"
        said = f"{self.better} beats {self.worse}: {self.level}, {seeds}"
        if self.of_training:
            said += f"; not of the method: {self.of_training}"
        if self.held_back:
            said += f"; not across judges: {', '.join(self.held_back)}"
        borne = {1: " The truth bears it out.", -1: " The truth says the opposite.", 0: " In the truth they tie."}
        return f"{said}.{'' if self.truth is None else borne[self.truth]}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: intervals as lists of ends, the sentence beside them."""
        return {**asdict(self), "text": self.text}


@dataclass(frozen=True)
class ClaimCount:
    """How many pairs are claimed across judges and how many of the claims the truth bears out.

    A claim in this world alone is about simulated users, and no truth can contradict it.

    Args:
        pairs: all pairs, those that tie in the truth too.
        made: claims among them that reach across judges.
        right: those that the truth bears out; 0 without one.
        opposite: those of which it says the opposite; the others are of pairs that tie in it.
        in_world: claims that hold in this world alone.
    """

    pairs: int
    made: int
    right: int
    opposite: int = 0
    in_world: int = 0


def count(claims: Sequence[Claim]) -> ClaimCount:
    """Claims made and borne out, over all pairs: one about a pair that ties in the truth is not borne out."""
    made = [claim for claim in claims if claim.reaches_judges]
    return ClaimCount(
        pairs=len(claims),
        made=len(made),
        right=sum(claim.truth == 1 for claim in made),
        opposite=sum(claim.truth == -1 for claim in made),
        in_world=sum(claim.made for claim in claims) - len(made),
    )


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
        return f"over trainings the difference may be chance in {_names(silent)}" if silent else ""

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
            return f"returns of {_names(broken)} are not all numbers", "a reward and users whose answers are numbers"
        if not evidence.spent:
            looks = ", ".join(map(str, evidence.looks))
            return f"claims are looked at after {looks} seeds, and there are {evidence.seeds}", "the same command again"
        told = [w.name for w in self.told(evidence.witnesses)]
        contrary = [name for name in told if self.differences[name].mean < 0]
        if contrary:
            return f"{_names(contrary)} say the opposite", "a log with slates shown at random would tell who is right"
        turning = [w.name for w in evidence.witnesses if not self.seeds_agree(w)]
        if turning:
            return f"the order changes with the training seed in {_names(turning)}", self.more_seeds(turning[0])
        silent = [w.name for w in evidence.witnesses if w.name not in told]
        if silent:
            asks_seeds = evidence.looks and evidence.retrains(self.a, self.b)
            settle = (self.more_seeds if asks_seeds else self.more_users)(silent[0])
            return f"the difference may be chance in {_names(silent)}", settle
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
        margin = f"the difference does not exceed the margin of {self.rules.margin:.0%} in {_names(short)}"
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


def _witness(comparison: Comparison, simulator: str) -> Witness:
    labels, seeds = comparison.labels, comparison.seeds
    values = np.stack([np.stack([comparison.values(label, simulator, seed) for label in labels]) for seed in seeds])
    return Witness(simulator, values, comparison.members(simulator))


def _error(difference: Floats) -> float:
    """Standard error of the mean of paired differences (U,)."""
    if len(difference) < 2:
        return math.inf
    return float(difference.std(ddof=1)) / math.sqrt(len(difference))


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
