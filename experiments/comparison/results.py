"""What came out of a comparison: rows by policy, seed and simulator, and the headline over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recloop.encoders.base.names import csv_text
from recloop.encoders.base.storage import replacing_file
from recloop.envs.evidence.support.bracket import Bracket, BracketRules, bracket_of
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Floats, Rollout
from recloop.experiments.comparison.intervals import SEEDS_FOR_INTERVAL, Interval, by_user, improvement, t_interval

COLUMNS = (
    "policy",
    "seed",
    "simulator",
    "users",
    "lanes",
    "value",
    "low",
    "high",
    "reference",
    "difference",
    "difference_low",
    "difference_high",
    "p_improve",
    "length",
    "left",
    "coverage",
    "gini",
    "tail",
    "popularity",
    "diversity",
    "invalid",
    "outside",
    "pessimistic",
    "optimistic",
    "flag",
)
"""Columns of `results.csv`, before one `signal:NAME` (mean total an episode) a signal. The four before the signals say
what the support leaves open of the value; they are empty in a world without a support model."""

Curve = list[tuple[int, float]]
"""(training step, value), steps rising."""


@dataclass(frozen=True)
class Entry:
    """One policy of a comparison.

    Args:
        label: what tables call it, once in a comparison.
        source: a registered name, a dotted path `module:Class`, or a policy folder.
        retrained: True where every seed is a training of its own.
        privileged: True for a planner that reads the users' true state: a bound, not a competitor.
        settings: where they differ from the policy's defaults, by name.
        plans: True for a policy that plans on a model of the training users.
        note: what sets it apart: what it was made for or learned from, that it kept its start.
    """

    label: str
    source: str
    retrained: bool = False
    privileged: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    plans: bool = False
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """One policy in one simulator, over all seeds.

    Args:
        policy, simulator: which.
        value: mean return with its interval over users, for these trained policies.
        seeds: mean return of each seed.
        over_seeds: interval of the mean over retraining seeds; None below `SEEDS_FOR_INTERVAL` or without any.
        difference: to the reference policy, paired by user; None for the reference itself.
        improves: probability that a user is better served than by the reference; None for the reference itself.
        length, left, coverage, gini, tail, popularity, diversity, invalid: means over seeds; invalid is a slate's mean.
        signals: mean total an episode, by signal.
        bracket: what the log's support leaves open of the value; None in a world without a support model.
    """

    policy: str
    simulator: str
    value: Interval
    seeds: tuple[float, ...]
    over_seeds: Interval | None
    difference: Interval | None
    improves: Interval | None
    length: float
    left: float
    coverage: float
    gini: float
    tail: float
    popularity: float
    diversity: float
    invalid: float
    signals: Mapping[str, float]
    bracket: Bracket | None = None

    @property
    def flag(self) -> str:
        """Why the value is not to be relied on; "" where nothing speaks against it, or nobody looked."""
        return "" if self.bracket is None else self.bracket.flag


@dataclass(frozen=True)
class Comparison:
    """Every policy's lanes, in every simulator, for every seed.

    Args:
        world: where it happened.
        contenders: the policies in the order asked for.
        seeds: the seeds.
        simulators: names, the one trained in first.
        reference: label of the policy that the others are compared to.
        rollouts: by (label, seed, simulator).
        curves: training curves by (label, seed), then by TensorBoard tag.
        looks: numbers of seeds at which claims are looked at; none where they are asked for once.
        unreached: seeds, by label, that a budget of time left no room for; the label may be none of `contenders`.
    """

    world: World
    contenders: tuple[Entry, ...]
    seeds: tuple[int, ...]
    simulators: tuple[str, ...]
    reference: str
    rollouts: Mapping[tuple[str, int, str], Rollout]
    curves: Mapping[tuple[str, int], Mapping[str, Curve]] = field(default_factory=dict)
    looks: tuple[int, ...] = ()
    unreached: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def out_of_time(self) -> str:
        """What a budget of time left no room for, as a sentence; "" where all was reached."""
        if not self.unreached:
            return ""
        missing = [
            f"{label} (seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))})"
            for label, seeds in self.unreached.items()
        ]
        return f"Not reached in the time given: {', '.join(missing)}; the same command goes on from here."

    @property
    def labels(self) -> tuple[str, ...]:
        """The policies' labels, in order."""
        return tuple(c.label for c in self.contenders)

    @property
    def base(self) -> str:
        """The simulator that agents trained in."""
        return self.simulators[0]

    def values(self, policy: str, simulator: str, seed: int | None = None) -> Floats:
        """Return by user (U,), users rising; the mean over seeds unless one is named."""
        chosen = self.seeds if seed is None else (seed,)
        found = [self.rollouts[policy, s, simulator] for s in chosen]
        return np.asarray(np.mean([by_user(r.value, r.users) for r in found], axis=0), dtype=np.float64)

    def members(self, simulator: str) -> tuple[Floats, ...]:
        """Return by policy and user (P, U'), over all seeds, of the lanes of each member of an ensemble; () without."""
        everyone = {r.member is None for (_, _, name), r in self.rollouts.items() if name == simulator}
        if everyone != {False}:
            return ()
        of = {(label, s): self.rollouts[label, s, simulator] for label in self.labels for s in self.seeds}
        number = np.unique(np.asarray(of[self.labels[0], self.seeds[0]].member))
        return tuple(
            np.stack([np.mean([_of_member(of[label, s], member) for s in self.seeds], axis=0) for label in self.labels])
            for member in number
        )

    def difference(self, better: str, worse: str, simulator: str, seed: int | None = None) -> Floats:
        """Paired difference of returns by user (U,)."""
        return self.values(better, simulator, seed) - self.values(worse, simulator, seed)

    @cached_property
    def headlines(self) -> tuple[Headline, ...]:
        """One for each policy and simulator, by simulator and then in the order of the policies."""
        return tuple(self._headline(c, s) for s in self.simulators for c in self.contenders)

    def headline(self, policy: str, simulator: str) -> Headline:
        """The headline of one policy in one simulator."""
        return next(h for h in self.headlines if (h.policy, h.simulator) == (policy, simulator))

    def _headline(self, contender: Entry, simulator: str) -> Headline:
        label = contender.label
        rollouts = [self.rollouts[label, s, simulator] for s in self.seeds]
        seeds = tuple(float(self.values(label, simulator, s).mean()) for s in self.seeds)
        spread = contender.retrained and len(seeds) >= SEEDS_FOR_INTERVAL
        paired = None
        if label != self.reference:
            paired = self.difference(label, self.reference, simulator)
        slates = [max(int(r.length.sum()), 1) for r in rollouts]

        def mean(numbers: list[float]) -> float:
            return float(np.mean(numbers))

        return Headline(
            policy=label,
            simulator=simulator,
            value=t_interval(self.values(label, simulator)),
            seeds=seeds,
            over_seeds=t_interval(np.array(seeds)) if spread else None,
            difference=None if paired is None else t_interval(paired),
            improves=None if paired is None else improvement(paired),
            length=mean([float(r.length.mean()) for r in rollouts]),
            left=mean([float(r.left.mean()) for r in rollouts]),
            coverage=mean([r.coverage for r in rollouts]),
            gini=mean([r.gini for r in rollouts]),
            tail=mean([r.tail(self.world.catalogue.popularity) for r in rollouts]),
            popularity=mean([float(r.popularity.mean()) for r in rollouts]),
            diversity=mean([float(r.diversity.mean()) for r in rollouts]),
            invalid=mean([int(r.invalid.sum()) / n for r, n in zip(rollouts, slates, strict=True)]),
            signals={
                signal.name: mean([float(r.signals[:, i].mean()) for r in rollouts])
                for i, signal in enumerate(self.world.signals)
            },
            bracket=bracket_over([rollouts], planning=contender.plans),
        )

    @property
    def has_support(self) -> bool:
        """True where rollouts carry what the log's support leaves open."""
        return all(r.outside is not None for r in self.rollouts.values())

    def bracket(self, policy: str) -> Bracket | None:
        """What is open of a policy's value over all simulators and seeds, the training users' value first."""
        judging = [s for s in self.simulators if s != "truth"] or list(self.simulators)
        groups = [[self.rollouts[policy, seed, s] for seed in self.seeds] for s in judging]
        return bracket_over(groups, planning=self.plans(policy))

    def plans(self, policy: str) -> bool:
        """Whether a policy plans on a model of the training users."""
        return next(c.plans for c in self.contenders if c.label == policy)

    def rows(self) -> list[dict[str, str]]:
        """The rows of `results.csv`: one for each policy, seed and simulator. Holds no times."""
        return [
            self._row(label, seed, simulator)
            for label in self.labels
            for seed in self.seeds
            for simulator in self.simulators
        ]

    def _row(self, label: str, seed: int, simulator: str) -> dict[str, str]:
        rollout = self.rollouts[label, seed, simulator]
        value = t_interval(self.values(label, simulator, seed))
        paired = self.difference(label, self.reference, simulator, seed)
        difference, better = t_interval(paired), improvement(paired)
        numbers = {
            "value": value.mean,
            "low": value.low,
            "high": value.high,
            "difference": difference.mean,
            "difference_low": difference.low,
            "difference_high": difference.high,
            "p_improve": better.mean,
            "length": rollout.length.mean(),
            "left": rollout.left.mean(),
            "coverage": rollout.coverage,
            "gini": rollout.gini,
            "tail": rollout.tail(self.world.catalogue.popularity),
            "popularity": rollout.popularity.mean(),
            "diversity": rollout.diversity.mean(),
            "invalid": rollout.invalid.mean(),
            **{f"signal:{s.name}": rollout.signals[:, i].mean() for i, s in enumerate(self.world.signals)},
        }
        bracket = bracket_over([[rollout]], planning=self.plans(label))
        over_all = self.bracket(label)
        if bracket is not None:
            known = (bracket.outside, bracket.pessimistic, bracket.optimistic)
            numbers.update(zip(("outside", "pessimistic", "optimistic"), known, strict=True))
        return {
            "flag": "" if over_all is None else over_all.flag,
            "policy": label,
            "seed": str(seed),
            "simulator": simulator,
            "users": str(len(np.unique(rollout.users))),
            "lanes": str(len(rollout.users)),
            "reference": self.reference,
            **{name: f"{number:.6f}" for name, number in numbers.items()},
        }

    def csv(self) -> str:
        """`results.csv` as text: equal runs give equal bytes."""
        names = [*COLUMNS, *(f"signal:{s.name}" for s in self.world.signals)]
        return csv_text([names, *([row.get(name, "") for name in names] for row in self.rows())])

    def write_csv(self, path: Path) -> None:
        """Write `results.csv`; replaced whole."""
        with replacing_file(path) as part:
            part.write_text(self.csv(), encoding="utf-8")


def _of_member(rollout: Rollout, member: int) -> Floats:
    mine = rollout.member == member
    return by_user(rollout.value[mine], rollout.users[mine])


def bracket_over(
    groups: Sequence[Sequence[Rollout]], rules: BracketRules | None = None, *, planning: bool = False
) -> Bracket | None:
    """What the support leaves open of one policy's value; None where there was no support model.

    Args:
        groups: rollouts of the policy, those of one simulator (its seeds) together; the bracket spans the simulators.
        rules: the constants.
        planning: whether the policy plans on a model of the training users.
    """
    values, lows, highs, outside, spreads = [], [], [], [], []
    for rollouts in groups:
        beyond, low, high = 0.0, 0.0, 0.0
        for r in rollouts:
            if r.outside is None or r.pessimistic is None or r.optimistic is None:
                return None
            beyond += float((r.outside * r.length).sum())
            low, high = low + float(r.pessimistic.mean()), high + float(r.optimistic.mean())
        values.append(float(np.mean([r.value.mean() for r in rollouts])))
        lows.append(low / len(rollouts))
        highs.append(high / len(rollouts))
        members = [r.expected.mean(0) for r in rollouts if r.expected is not None]
        spreads.append(float(np.mean(members, axis=0).std()) if members else 0.0)
        outside.append(beyond / max(sum(int(r.length.sum()) for r in rollouts), 1))
    return bracket_of(values, lows, highs, outside, rules, spreads=spreads, planning=planning)
