"""A comparison in a line a policy: its value in front of the judges, how it stands to the others, what to bear in mind.

from recloop.experiments.report.summary import summary_of
summary_of(comparison, claims_of(comparison)).lines[0].sentence
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from recloop.agents.registry import facts_of, known_policies
from recloop.envs.evidence.fidelity import failures
from recloop.experiments.comparison.claims import Claim, ClaimRules, Evidence, Level
from recloop.experiments.comparison.evaluate import Floats
from recloop.experiments.comparison.intervals import Interval, improvement, t_interval
from recloop.experiments.comparison.results import Comparison, Entry
from recloop.experiments.comparison.verdict import verdict_of
from recloop.experiments.report.tables import flags_of, interval_text, note_lines, simulator_in_words

NOT_RL = ("baseline", "supervised", "lm")
"""Groups of policies of which the best stands for what one has without RL."""

ALWAYS = {
    "random": "random",
    "popularity": "popularity",
    "greedy": "greedy on the user model",
    "sasrec": "a supervised recommender (sasrec)",
}
"""What a comparison is no evidence without, by name; a planner too where the truth is known."""

_NAMED = 3
"""Policies that a sentence names before it counts the rest."""


@dataclass(frozen=True)
class PolicyLine:
    """One policy in front of all judges together.

    Args:
        entry: which.
        value: mean return an episode over users and judges, its interval over users for these trained policies.
        difference: paired by user to the reference; None for the reference itself and where a return is no number.
        improves: probability that a user is better served than by the reference; None there.
        to_best: paired by user to the best policy without RL; None for that one, and where there is none.
        sentence: what the claims say of it and the others.
        flag: why the log does not back the value; "" where nothing speaks against it.
    """

    entry: Entry
    value: Interval
    difference: Interval | None
    improves: Interval | None
    to_best: Interval | None
    sentence: str
    flag: str


@dataclass(frozen=True)
class Summary:
    """What a reader needs first; every view of a comparison takes it from here.

    Args:
        comparison: its reference is one of its policies.
        claims: of it.
        asked: the reference that was asked for.
    """

    comparison: Comparison
    claims: Sequence[Claim]
    asked: str

    @cached_property
    def where(self) -> tuple[str, ...]:
        """The simulators that policies are sorted by: the judges, without any the truth, else the training users."""
        others = self.comparison.simulators[1:]
        return tuple(s for s in others if s != "truth") or others[:1] or (self.comparison.base,)

    @cached_property
    def in_front_of(self) -> str:
        """Those simulators in words."""
        known: dict[tuple[str, ...], str] = {
            ("judge",): "the judge",
            ("truth",): "the true users",
            ("train",): "the training users",
        }
        if len(self.where) > 1 and all(name.startswith("judge") for name in self.where):
            return "both judges" if len(self.where) == 2 else f"all {len(self.where)} judges"
        return known.get(self.where) or " and ".join(simulator_in_words(self.comparison, name) for name in self.where)

    @cached_property
    def verdict(self) -> str:
        """Who is best as far as that is claimed, and of how many pairs an order is."""
        made = sum(claim.made for claim in self.claims)
        return f"{verdict_of(self.comparison, self.claims)} An order is claimed of {made} of {len(self.claims)} pairs."

    @cached_property
    def best(self) -> str | None:
        """Best policy without RL by its value here, a flagged one only where all are; None where none is known."""
        found = [c for c in self.comparison.contenders if not c.privileged and _group(c) in NOT_RL]
        found = [c for c in found if np.isfinite(self._of(c.label)).all()]
        found = [c for c in found if not self.flags[c.label]] or found
        return max(found, key=lambda c: float(self._of(c.label).mean())).label if found else None

    @cached_property
    def flags(self) -> dict[str, str]:
        """By policy, why the log does not back its value; "" where nothing speaks against it."""
        return flags_of(self.comparison)

    @cached_property
    def lines(self) -> tuple[PolicyLine, ...]:
        """The policies, the highest value first; those whose value is no number last."""
        lines = [self._line(entry) for entry in self.comparison.contenders]
        return tuple(sorted(lines, key=lambda n: -n.value.mean if np.isfinite(n.value.mean) else np.inf))

    @cached_property
    def caveats(self) -> tuple[str, ...]:
        """What to bear in mind before believing any of it, a sentence each."""
        comparison = self.comparison
        found = [f"This world failed its fidelity report. {text}." for text in failures(comparison.world.card)]
        lacking = Evidence.of(comparison).lacking(ClaimRules())
        if lacking and not any(claim.held_back for claim in self.claims):
            found.append(f"No claim could reach across judges: {', '.join(lacking)}.")
        found += _backing(self)
        broken = [n.entry.label for n in self.lines if not np.isfinite(n.value.mean)]
        if broken:
            found.append(f"Returns of {_listed(broken)} are not all numbers: nothing is known of such a policy.")
        if self.asked != comparison.reference:
            found.append(f"The reference {self.asked} was not compared; {comparison.reference} stands in for it.")
        missing = [words for name, words in ALWAYS.items() if name not in {c.source for c in comparison.contenders}]
        if comparison.world.is_truth and not any(c.privileged for c in comparison.contenders):
            missing.append("a planner that knows the truth")
        if missing:
            found.append(
                f"This comparison lacks {', '.join(missing)}. Without them it does not show whether a policy is any "
                "good; add them with --policies."
            )
        return (*found, *(f"{line}." for line in note_lines(comparison)))

    def claim(self, label: str, other: str) -> Claim | None:
        """The claim about a pair."""
        return next((c for c in self.claims if {c.better, c.worse} == {label, other}), None)

    def tone(self, label: str, other: str) -> str:
        """Colour of a difference to another policy: `up` or `down` where an order is claimed, else `open`."""
        claim = self.claim(label, other)
        return "open" if claim is None or not claim.made else "up" if claim.better == label else "down"

    def _of(self, label: str) -> Floats:
        """Return by user (U,), the mean over seeds and judges."""
        return np.asarray(np.mean([self.comparison.values(label, name) for name in self.where], axis=0))

    def _line(self, entry: Entry) -> PolicyLine:
        label, mine = entry.label, self._of(entry.label)

        def to(other: str | None) -> Floats | None:
            paired = None if other in (None, label) else mine - self._of(str(other))
            return paired if paired is not None and np.isfinite(paired).all() else None

        paired, to_best = to(self.comparison.reference), to(self.best)
        differences = {
            other: t_interval(found)
            for other, found in ((self.comparison.reference, paired), (self.best, to_best))
            if other is not None and found is not None
        }
        return PolicyLine(
            entry,
            t_interval(mine),
            differences.get(self.comparison.reference),
            None if paired is None else improvement(paired),
            None if self.best is None else differences.get(self.best),
            self._sentence(entry, differences),
            self.flags[label],
        )

    def _sentence(self, entry: Entry, differences: dict[str, Interval]) -> str:
        """What the claims say of a policy and its competitors; those of `differences` come first, with numbers."""
        label = entry.label
        if entry.privileged:
            return "Knows the users' true state: an upper end, no competitor."
        if not np.isfinite(self._of(label)).all():
            return "Its returns are not all numbers: nothing is known of it."
        if self.flags[label]:
            return "Flagged: the log does not back its value, and nothing is claimed of it."
        rivals = [c.label for c in self.comparison.contenders if not c.privileged and c.label != label]
        rivals.sort(key=lambda other: list(differences).index(other) if other in differences else len(differences))
        wins: list[str] = []
        losses: list[str] = []
        open_: list[str] = []
        flagged: list[str] = []
        level: Level | None = None
        for other in rivals:
            claim = self.claim(label, other)
            if claim is None or claim.level is None:
                (flagged if self.flags[other] else open_).append(other)
                continue
            (wins if claim.better == label else losses).append(other)
            level = min(level or claim.level, claim.level, key=lambda one: one.reach)
        parts = [f"beats {_listed([_by(other, differences, 1) for other in wins])}"] if wins else []
        parts += [f"is beaten by {_listed([_by(other, differences, -1) for other in losses])}"] if losses else []
        if level is not None:
            parts[-1] += f", in front of {self.in_front_of} (level: {level})"
        if open_:
            parts.append(f"{'' if parts else 'is '}not told apart from {_listed(open_)}")
        if flagged:
            parts.append(f"nothing is claimed against {_listed(flagged)} (flagged)")
        said = "; ".join(parts) or "there is nothing to compare it to"
        return f"{said[0].upper()}{said[1:]}."


def summary_of(comparison: Comparison, claims: Sequence[Claim]) -> Summary:
    """The summary of a comparison; where its reference is not among its policies, the first policy stands in."""
    asked, labels = comparison.reference, comparison.labels
    known = comparison if asked in labels else replace(comparison, reference=labels[0])
    return Summary(known, claims, asked)


def _group(entry: Entry) -> str | None:
    """The group of a known policy; None of one's own and of a policy folder: nothing is imported for a report."""
    return facts_of(entry.source).group if entry.source in known_policies() else None


def _backing(summary: Summary) -> list[str]:
    """That the log backs no value at all, in one sentence, or which it does not back and why."""
    flagged = {label: reason for label, reason in summary.flags.items() if reason}
    if not flagged:
        return []
    if len(flagged) < len(summary.flags):
        return [f"Not backed by the log (!): {'; '.join(f'{label}: {why}' for label, why in flagged.items())}."]
    brackets = (summary.comparison.bracket(label) for label in flagged)
    shares = [bracket.outside for bracket in brackets if bracket is not None]
    span = f"{min(shares):.0%}" + ("" if min(shares) == max(shares) else f" to {max(shares):.0%}")
    return [
        f"Not backed by the log (!): no policy's value is, {span} of their steps lie outside the log's support. Values "
        "and orders are those of simulated users, and nothing is claimed."
    ]


def _by(other: str, differences: dict[str, Interval], sign: int) -> str:
    """A policy and by how much, as a positive number where the order is as claimed."""
    if other not in differences:
        return other
    found = differences[other]
    low, high = sorted((sign * found.low, sign * found.high))
    return f"{other} by {interval_text(Interval(sign * found.mean, low, high))}"


def _listed(names: Sequence[str]) -> str:
    """Names as a person lists them, those beyond `_NAMED` counted.

    >>> _listed(["a", "b"]), _listed(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c and 2 more')
    """
    if len(names) > _NAMED + 1:
        names = [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
