"""What units of the truth study say together: measures, their intervals, their aims, and the table that is kept.

A unit is one (world, log, draw). Intervals are a bootstrap over clusters (world, draw): a draw of a world has its
users and items in common, so its policies are no independent witnesses.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from recloop.encoders.base.names import csv_text
from recloop.encoders.base.storage import replacing_file
from recloop.experiments.comparison.claims import FIXED_ON
from recloop.experiments.comparison.intervals import LEVEL, Floats

COLUMNS = ("world", "log", "measure", "value", "low", "high", "aim", "command", "commit")
POOLED, UNSEEN = "pooled", "pooled-unseen"
"""The worlds of rows over all worlds, and over those that no constant was tuned on (`claims.FIXED_ON`)."""
OFF = 0.25
"""A simulated value further from the true one than this share is off."""
NEAR = (0.8, 1.25)
"""Where simulated over true value is near enough."""
_DRAWS = 400


@dataclass(frozen=True)
class TruthUnit:
    """One (world, log, draw), as its JSON file tells it; P policies, the planner not among them.

    Args:
        world, log, draw: which.
        simulated, truth: value of each policy among the judges, and in the truth.
        flagged: whether each is said to go beyond the log.
        held_back: a gate failed or cannot tell, so that nothing is claimed across judges.
        brackets: pessimistic and optimistic value of each, or None without a support model.
        taus: Kendall's tau by pair of simulators.
        pairs, made, right: all pairs, claims of them that reach across judges, claims borne out.
        opposite: claims of which the truth says the opposite.
        effects: difference among the judges over that in the truth, of each pair that the truth decides.
        fidelity: by measure; a measure that a unit does not have is missing.
        commit: of the code that ran it.
    """

    world: str
    log: str
    draw: int
    simulated: tuple[float, ...]
    truth: tuple[float, ...]
    flagged: tuple[bool, ...]
    held_back: bool
    brackets: tuple[tuple[float, float], ...] | None
    taus: Mapping[str, float]
    pairs: int
    made: int
    right: int
    fidelity: Mapping[str, float]
    opposite: int = 0
    effects: tuple[float, ...] = ()
    commit: str | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """From a unit's JSON."""
        found = facts["agreement"]
        names = found["policies"]
        brackets = [found["brackets"][n] for n in names if found["brackets"]]
        return cls(
            world=facts["world"],
            log=facts["log"],
            draw=facts["draw"],
            simulated=tuple(float(np.mean(found["judges"][name])) for name in names),
            truth=tuple(found["truth"][name] for name in names),
            flagged=tuple(name in found["flagged"] for name in names),
            held_back=any(gate["verdict"] != "passed" for gate in found["gates"]),
            brackets=tuple((b["pessimistic"], b["optimistic"]) for b in brackets) or None,
            taus={name: tau["value"] for name, tau in found["taus"].items() if tau["value"] is not None},
            pairs=found["counted"]["pairs"],
            made=found["counted"]["made"],
            right=found["counted"]["right"],
            opposite=found["counted"]["opposite"],
            effects=tuple(found["effects"]),
            fidelity={name: value for name, value in facts["fidelity"].items() if value is not None},
            commit=facts.get("commit"),
        )

    @property
    def ratios(self) -> list[float]:
        """Simulated over true value of each policy; NaN where the truth is nil."""
        return [s / t if t else math.nan for s, t in zip(self.simulated, self.truth, strict=True)]

    @property
    def off(self) -> list[bool]:
        """Whether each policy's value is off by more than `OFF`."""
        return [not abs(ratio - 1) <= OFF for ratio in self.ratios]


Units = Sequence[TruthUnit]
Measure = Callable[[Units], float]


def _share(kept: Callable[[TruthUnit], Sequence[bool]], among: Callable[[TruthUnit], Sequence[bool]]) -> Measure:
    """Of the policies for which `among` holds, the share for which `kept` does."""

    def measure(units: Units) -> float:
        found = [k for u in units for k, a in zip(kept(u), among(u), strict=True) if a]
        return float(np.mean(found)) if found else math.nan

    return measure


def _mean(read: Callable[[TruthUnit], float | None]) -> Measure:
    def measure(units: Units) -> float:
        found = [value for value in map(read, units) if value is not None and math.isfinite(value)]
        return float(np.mean(found)) if found else math.nan

    return measure


def _tau(name: str) -> Measure:
    return _mean(lambda unit: unit.taus.get(name))


def _fidelity(name: str) -> Measure:
    return _mean(lambda unit: unit.fidelity.get(name))


def _ratio(part: Callable[[TruthUnit], int], whole: Callable[[TruthUnit], int]) -> Measure:
    def measure(units: Units) -> float:
        below = sum(map(whole, units))
        return sum(map(part, units)) / below if below else math.nan

    return measure


def _of_effects(units: Units, figure: Callable[[Floats], float]) -> float:
    found = np.array([effect for unit in units for effect in unit.effects])
    return figure(found) if len(found) else math.nan


def _unflagged_ratios(units: Units) -> list[float]:
    pairs = [(r, f) for u in units for r, f in zip(u.ratios, u.flagged, strict=True)]
    return [ratio for ratio, flag in pairs if not flag and math.isfinite(ratio)]


def _everyone(unit: TruthUnit) -> list[bool]:
    return [True] * len(unit.truth)


def _not(flags: Sequence[bool]) -> list[bool]:
    return [not flag for flag in flags]


def _near(unit: TruthUnit) -> list[bool]:
    return [NEAR[0] <= ratio <= NEAR[1] for ratio in unit.ratios]


def _caught(unit: TruthUnit) -> list[bool]:
    return [flag or unit.held_back for flag in unit.flagged]


def _bracketed(unit: TruthUnit) -> list[bool]:
    return [low <= t <= high for (low, high), t in zip(unit.brackets or (), unit.truth, strict=True)]


def _with_brackets(measure: Callable[[Units], float]) -> Measure:
    return lambda units: measure([unit for unit in units if unit.brackets is not None])


def _width(units: Units) -> float:
    widths = [
        (high - low) / abs(value)
        for unit in units
        for (low, high), value in zip(unit.brackets or (), unit.simulated, strict=True)
        if value
    ]
    return float(np.median(widths)) if widths else math.nan


MEASURES: Mapping[str, Measure] = {
    "likelihood_gain": _fidelity("likelihood_gain"),
    "two_sample_auc": _fidelity("two_sample_auc"),
    "session_length_ks": _fidelity("session_length_ks"),
    "tau_judges_truth": _tau("judges-truth"),
    "tau_training_truth": _tau("training-truth"),
    "tau_judges_truth_without_extremes": _tau("judges-truth-without-extremes"),
    "value_ratio_low": lambda units: min(_unflagged_ratios(units), default=math.nan),
    "value_ratio_high": lambda units: max(_unflagged_ratios(units), default=math.nan),
    "value_ratio_near": _share(_near, lambda unit: _not(unit.flagged)),
    "direction_forced": lambda units: _of_effects(units, lambda found: float(np.mean(found > 0))),
    "effect_recovered": lambda units: _of_effects(units, lambda found: float(np.median(found))),
    "claims_opposite": _ratio(lambda unit: unit.opposite, lambda unit: unit.made),
    "claims_right": _ratio(lambda unit: unit.right, lambda unit: unit.made),
    "claims_made": _ratio(lambda unit: unit.made, lambda unit: unit.pairs),
    "flag_recall": _share(_caught, lambda unit: unit.off),
    "flag_precision": _share(lambda unit: unit.off, lambda unit: unit.flagged),
    "unflagged": _share(lambda unit: _not(unit.flagged), _everyone),
    "bracket_coverage": _with_brackets(_share(_bracketed, _everyone)),
    "bracket_width": _with_brackets(_width),
}
"""Measure -> what it is of some units, NaN where they cannot say. `calibration_SIGNAL` joins them by signal.

`direction_forced` is the share of the pairs that the truth decides on which the judges have its sign, and
`effect_recovered` the median share of the true difference that they show; no pair is left out for gates or flags.
Claims are those that reach across judges, of all pairs; one about a pair that ties in the truth is not right.
`value_ratio_low` and `_high` are the lowest and highest simulated over true value of the unflagged policies,
`value_ratio_near` the share of them within `NEAR`. `flag_recall`: of the policies that are `OFF`, those flagged or held
back by a failed gate; `flag_precision`: of those flagged, those that are off. `bracket_width` is the median of the
bracket's width over the simulated value.
"""

_ALL = ("narrow", "mixed", "switching")
AIMS: Mapping[str, Mapping[str, str]] = {
    "calibration": dict.fromkeys(_ALL, "<= 0.1"),
    "likelihood_gain": dict.fromkeys(_ALL, ">= 0.8"),
    "two_sample_auc": dict.fromkeys(_ALL, "<= 0.6"),
    "tau_judges_truth": {"switching": ">= 0.9", "mixed": ">= 0.8"},
    "tau_judges_truth_without_extremes": {"switching": ">= 0.9"},
    "value_ratio_low": {"switching": ">= 0.8"},
    "value_ratio_high": {"switching": "<= 1.25"},
    "claims_right": dict.fromkeys(_ALL, ">= 0.95"),
    "claims_made": {"switching": ">= 0.7", "mixed": ">= 0.4", "narrow": ">= 0.1"},
    "flag_recall": dict.fromkeys(_ALL, ">= 0.9"),
    "flag_precision": dict.fromkeys(_ALL, ">= 0.7"),
    "unflagged": {"switching": ">= 0.5"},
    "bracket_coverage": dict.fromkeys(_ALL, ">= 0.9"),
}
"""Measure -> log -> what is aimed at over all worlds; `calibration` stands for every `calibration_SIGNAL`."""


@dataclass(frozen=True)
class PooledRow:
    """One row of the table.

    Args:
        world: its name, or `pooled`.
        log, measure: which.
        value, low, high: the measure and its interval; NaN where it cannot be said.
        aim: such as `>= 0.9`; empty where there is none.
    """

    world: str
    log: str
    measure: str
    value: float
    low: float
    high: float
    aim: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where there is none, False where the value cannot be said."""
        if not self.aim:
            return None
        sign, limit = self.aim.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def pool(units: Units, seed: int = 0) -> list[PooledRow]:
    """All measures over all worlds and by world, log by log; pooled rows first."""
    rows = []
    logs = [log for log in _ALL if any(unit.log == log for unit in units)]
    for log in logs:
        mine = [unit for unit in units if unit.log == log]
        worlds = list(dict.fromkeys(unit.world for unit in mine))
        rows += _rows(POOLED, log, mine, seed)
        unseen = [unit for unit in mine if unit.world not in FIXED_ON]
        if 0 < len(unseen) < len(mine):
            rows += _rows(UNSEEN, log, unseen, seed)
        for world in worlds:
            rows += _rows(world, log, [unit for unit in mine if unit.world == world], seed)
    return rows


def write_table(rows: Sequence[PooledRow], path: Path, command: str, commit: str) -> None:
    """Write the CSV; replaced whole. What cannot be said is left empty."""
    table: list[Sequence[str]] = [COLUMNS]
    for row in rows:
        numbers = [f"{x:.4f}" if math.isfinite(x) else "" for x in (row.value, row.low, row.high)]
        table.append([row.world, row.log, row.measure, *numbers, row.aim, command, commit])
    with replacing_file(path) as part:
        part.write_text(csv_text(table), encoding="utf-8")


def _rows(world: str, log: str, units: Units, seed: int) -> list[PooledRow]:
    signals = dict.fromkeys(n for unit in units for n in unit.fidelity if n.startswith("calibration_"))
    measures = {**{name: _fidelity(name) for name in signals}, **MEASURES}
    clusters = _clusters(units)
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(clusters), size=(_DRAWS, len(clusters)))
    samples = [[unit for place in pick for unit in clusters[place]] for pick in picks]
    rows = []
    for name, measure in measures.items():
        low, high = math.nan, math.nan
        if len(clusters) > 1:
            drawn = [value for value in map(measure, samples) if math.isfinite(value)]
            if drawn:
                low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        aim = AIMS.get("calibration" if name in signals else name, {}).get(log, "")
        rows.append(PooledRow(world, log, name, measure(units), float(low), float(high), aim))
    return rows


def _clusters(units: Units) -> list[list[TruthUnit]]:
    found: dict[tuple[str, int], list[TruthUnit]] = {}
    for unit in units:
        found.setdefault((unit.world, unit.draw), []).append(unit)
    return list(found.values())
