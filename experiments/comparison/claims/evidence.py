"""What claims are made of: the rule's constants, and what every kind of users says of the policies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recloop.envs.evidence.gates import gate_outcomes
from recloop.envs.evidence.support.bracket import Bracket
from recloop.envs.evidence.verdict import GateOutcome, Verdict
from recloop.experiments.comparison.intervals import Floats, Interval, crossed_interval, t_interval
from recloop.experiments.comparison.results import Comparison

FIXED_ON = ("boredom", "clicks", "drift")
"""Truth worlds on which the constants of `ClaimRules` and of the brackets were set; the others only test them."""


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


def _witness(comparison: Comparison, simulator: str) -> Witness:
    labels, seeds = comparison.labels, comparison.seeds
    values = np.stack([np.stack([comparison.values(label, simulator, seed) for label in labels]) for seed in seeds])
    return Witness(simulator, values, comparison.members(simulator))


def named(names: Sequence[str]) -> str:
    return ", ".join(names)
