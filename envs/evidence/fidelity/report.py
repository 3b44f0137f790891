"""What a fidelity report is: lines with a value, an interval, a limit and a reason, on disk and on a world's card."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recloop.encoders.base.storage import json_like, read_json, write_json
from recloop.envs.evidence.verdict import Verdict, together
from recloop.envs.world.world import Card, World

FIGURE = "fidelity"
"""Key of the reports' summaries among a card's figures, by simulator."""


@dataclass(frozen=True)
class FidelityLine:
    """One thing measured.

    Args:
        name: what tables and files call it: `calibration_click`, `session_length_ks`, `two_sample_auc`, ...
        loop: `answers` (the next answer, the log's before it known), `open` (on the logged slates) or `closed` (on
            slates of the logging policy).
        value, low, high: with its 95 % interval over users.
        rule: the pass line, `high <= 0.100` or `low > 0` or so: the whole interval has to keep to it.
        verdict: passed where it does, failed where the whole interval lies beyond, else it cannot tell.
        reason: why that is the pass line.
    """

    name: str
    loop: str
    value: float
    low: float
    high: float
    rule: str
    verdict: Verdict
    reason: str

    @property
    def passed(self) -> bool:
        """Whether its whole interval keeps to the pass line."""
        return self.verdict is Verdict.passed

    @property
    def text(self) -> str:
        """Value and interval."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Curve:
    """What a picture needs: `calibration` has x predicted and y actual, `distribution` shares by value.

    Args:
        name: of the signal, or of what is distributed.
        kind: `calibration` or `distribution`.
        x: predicted means, or lower edges of bins.
        logged: actual means, or shares in the log.
        simulated: shares among simulated sessions; empty for a calibration.
    """

    name: str
    kind: str
    x: tuple[float, ...]
    logged: tuple[float, ...]
    simulated: tuple[float, ...] = ()


@dataclass(frozen=True)
class FidelityReport:
    """How far simulated users are from held-out logged ones.

    Args:
        world, simulator: which.
        users, slates: how many were measured on.
        sessions: logged sessions; 0 where only next answers could be measured.
        lines: what was measured.
        unsupported: what this log or simulator cannot support, in plain sentences.
        told_by: the features that tell simulated sessions best, with how much more of it they have.
        figures: further numbers: base rates, log-likelihoods, effective sizes.
        curves: for pictures.
    """

    world: str
    simulator: str
    users: int
    slates: int
    sessions: int
    lines: tuple[FidelityLine, ...]
    unsupported: tuple[str, ...] = ()
    told_by: tuple[tuple[str, float], ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()

    @property
    def failed(self) -> tuple[FidelityLine, ...]:
        """The lines that failed."""
        return tuple(line for line in self.lines if line.verdict is Verdict.failed)

    @property
    def outcome(self) -> Verdict:
        """Failed where a line failed, passed where something was measured and every line passed."""
        return together(line.verdict for line in self.lines)

    @property
    def passed(self) -> bool:
        """Whether something was measured and every line passed."""
        return self.outcome is Verdict.passed

    def line(self, name: str, loop: str | None = None) -> FidelityLine | None:
        """The first line of a name (and loop), or None where it was not measured."""
        return next((x for x in self.lines if x.name == name and loop in (None, x.loop)), None)

    @property
    def verdict(self) -> str:
        """One sentence."""
        who = f"the simulator '{self.simulator}' of world '{self.world}'"
        if not self.lines:
            return f"NOTHING MEASURED: {who} could not be held against its log"
        if self.passed:
            return f"PASSED: {who} passed all {len(self.lines)} fidelity lines"
        if not self.failed:
            names = ", ".join(f"{line.name} ({line.loop})" for line in self.lines if not line.passed)
            return f"CANNOT TELL: {who} failed no fidelity line, but the log is too small for {names}"
        names = ", ".join(f"{line.name} ({line.loop})" for line in self.failed)
        return f"FAILED: {who} failed {len(self.failed)} of {len(self.lines)} fidelity lines: {names}"

    def save(self, path: Path) -> None:
        """Write as JSON; replaced whole."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "FidelityReport":
        """Undo `save`."""
        return cls.from_facts(read_json(path))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "FidelityReport":
        """From what JSON holds; numbers that are None there are NaN."""
        numbers = ("value", "low", "high")
        lines = tuple(
            FidelityLine(**{**_with_verdict(line), **{n: _number(line[n]) for n in numbers}}) for line in facts["lines"]
        )
        curves = tuple(
            Curve(c["name"], c["kind"], tuple(c["x"]), tuple(c["logged"]), tuple(c["simulated"]))
            for c in facts["curves"]
        )
        told_by = tuple((str(name), _number(value)) for name, value in facts["told_by"])
        rest = {"lines": lines, "curves": curves, "told_by": told_by, "unsupported": tuple(facts["unsupported"])}
        figures = {name: _number(value) for name, value in facts["figures"].items()}
        return cls(**{**facts, **rest, "figures": figures})


def _with_verdict(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line from before there were three outcomes that passed may just have seen too little."""
    known = dict(line)
    before = Verdict.cannot_tell if known.pop("passed", False) else Verdict.failed
    return {**known, "verdict": Verdict(known.get("verdict", before))}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def marked(world: World, *reports: FidelityReport) -> World:
    """The world with reports on its card, whence every result made in it is marked where one failed."""
    found = dict(world.card.figures.get(FIGURE, {}))
    found.update({report.simulator: json_like(asdict(replace(report, curves=()))) for report in reports})
    return replace(world, card=replace(world.card, figures={**world.card.figures, FIGURE: found}))


def reports_on(card: Card) -> tuple[FidelityReport, ...]:
    """The reports that a card holds, without their curves."""
    return tuple(FidelityReport.from_facts(facts) for facts in card.figures.get(FIGURE, {}).values())


def failures(card: Card) -> tuple[str, ...]:
    """A sentence for each report on the card that failed."""
    return tuple(report.verdict for report in reports_on(card) if report.failed or not report.lines)
