"""Next-answer lines: how well each answer was predicted, the logged answers before it known."""

from dataclasses import dataclass, replace

import numpy as np

from recloop.envs.evidence.fidelity.bootstrap import by_user, interval
from recloop.envs.evidence.fidelity.lanes import Array, LoggedLanes, Numbers
from recloop.envs.evidence.fidelity.replaying import TeacherForced
from recloop.envs.evidence.fidelity.report import Curve, FidelityLine
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.logs.schema import Signal

LEAVE = "leave"
"""Name of leaving among the signals."""
CALIBRATION_LIMIT = 0.1
FEWEST = 50
"""Answers below which nothing is measured."""
_BINS = 10
_GRADES = 200
_TINY = 1e-6
_NO_WORSE = {"rmse": 0.05, "likelihood": 0.01, "auc": 0.05}
"""How much worse than knowing nothing still counts as not worse: a share of the RMSE, nats an answer, AUC."""


@dataclass
class Findings:
    """Lines, curves, further figures and what could not be measured, as they are collected."""

    lines: list[FidelityLine]
    curves: list[Curve]
    figures: dict[str, float]
    unsupported: list[str]


@dataclass(frozen=True)
class Answers:
    """n answers of one kind: who gave them, what was predicted, what came."""

    lane: Numbers
    predicted: Numbers
    actual: Numbers
    users: int


def next_answer_lines(
    signals: tuple[Signal, ...], lanes: LoggedLanes, forecast: TeacherForced, rng: np.random.Generator, found: Findings
) -> None:
    """Add the lines of every signal and of leaving to what was found."""
    lane = np.broadcast_to(np.arange(len(lanes.users))[:, None, None], lanes.items.shape)
    for s, signal in enumerate(signals):
        if s == 0 and not lanes.exposures:
            _preference(signal, forecast, rng, found)
            continue
        there = lanes.given[..., s]
        answers = Answers(lane[there], forecast.mean[..., s][there], lanes.answers[..., s][there], len(lanes.users))
        _signal_lines(signal, answers, s == 0, rng, found)
    told = lanes.left >= 0
    if not told.any():
        found.unsupported.append("The log does not say how sessions ended: leaving is not measured.")
    elif forecast.leave is None:
        found.unsupported.append("The simulator does not say with what probability users leave: it is not measured.")
    else:
        left = Answers(
            np.nonzero(told)[0], forecast.leave[told], (lanes.left[told] == 1).astype(float), len(lanes.users)
        )
        _signal_lines(Signal(LEAVE), left, False, rng, found)


def _signal_lines(signal: Signal, answers: Answers, known: bool, rng: np.random.Generator, found: Findings) -> None:
    name, actual = signal.name, answers.actual
    if len(actual) < FEWEST:
        found.unsupported.append(f"'{name}' was logged {len(actual)} times among these users, too few to measure.")
        return
    if (actual == actual[0]).all():
        found.unsupported.append(
            f"'{name}' has one value only ({actual[0]:g}) among these users: likelihood, AUC and RMSE have no meaning."
        )
        return
    base = float(actual.mean())
    found.figures[f"base_{name}"] = base
    _calibration(name, answers, base - signal.bounds[0], signal.kind == "binary", rng, found)
    if signal.kind == "binary":
        _likelihood(name, answers, base, known, rng, found)
        _auc(name, answers, known, rng, found)
        return
    mine: Array = (answers.predicted - actual) ** 2
    sums = np.stack([_sums(answers, mine), _sums(answers, (base - actual) ** 2)], axis=1)
    value = interval(sums, lambda t: np.sqrt(t[:, 0] / t[:, 1]), rng)
    found.figures[f"rmse_{name}"] = float(np.sqrt(mine.mean()))
    found.figures[f"rmse_base_{name}"] = float(np.std(actual))
    reason = "RMSE over that of always saying the mean; there may be nothing to know, so it must only not be worse"
    verdict = _within(value[2] - 1, _NO_WORSE["rmse"], value[1] - 1)
    rule = f"high <= {1 + _NO_WORSE['rmse']:g}"
    found.lines.append(FidelityLine(f"rmse_ratio_{name}", "answers", *value, rule, verdict, reason))


def _calibration(
    name: str, answers: Answers, base: float, binary: bool, rng: np.random.Generator, found: Findings
) -> None:
    """Mean gap of predicted and actual over ten bins, less what chance gives, over the base rate.

    The squared gap of a bin is lowered by its variance over users (twice for drawn users), so that a calibrated
    simulator is not failed for a small log.
    """
    order = np.argsort(answers.predicted, kind="stable")
    bins = np.zeros(len(order), dtype=np.int64)
    bins[order] = np.arange(len(order)) * _BINS // len(order)
    columns = [answers.predicted - answers.actual, np.ones(len(order)), answers.predicted, answers.actual]
    sums = np.stack([by_user(answers.lane, bins, c, answers.users, _BINS) for c in columns], axis=1)  # (B, 4, bins)
    gap, count = sums[:, 0], sums[:, 1]
    mean = gap.sum(0) / np.maximum(count.sum(0), 1)
    variance = ((gap - mean * count) ** 2).sum(0) / np.maximum(count.sum(0), 1) ** 2

    def error(totals: Array, chance: float) -> Array:
        squared = (totals[:, 0] / np.maximum(totals[:, 1], 1)) ** 2
        share = totals[:, 1] / totals[:, 1].sum(1, keepdims=True)
        figure: Array = (share * np.sqrt(np.maximum(squared - chance * variance, 0))).sum(1) / max(base, _TINY)
        return figure

    value = interval(sums, lambda t: error(t, 1), rng, lambda t: error(t, 2))
    reason = "a gap of a tenth of the base rate between predicted and actual is the most that values may be off by"
    line = _no_more(f"calibration_{name}", value, CALIBRATION_LIMIT, reason)
    rarer = min(answers.actual.sum(), len(order) - answers.actual.sum()) if binary else len(order)
    few = rarer < FEWEST  # too few of one answer for an interval
    found.lines.append(replace(line, verdict=Verdict.cannot_tell) if few else line)
    total = sums.sum(0)
    x, y = total[2] / np.maximum(total[1], 1), total[3] / np.maximum(total[1], 1)
    found.curves.append(Curve(name, "calibration", tuple(map(float, x)), tuple(map(float, y))))


def _likelihood(
    name: str, answers: Answers, base: float, known: bool, rng: np.random.Generator, found: Findings
) -> None:
    actual = answers.actual
    chance = np.clip(answers.predicted.astype(np.float64), _TINY, 1 - _TINY)
    mine = np.log(np.where(actual > 0.5, chance, 1 - chance))
    constant = np.log(np.where(actual > 0.5, base, 1 - base))
    sums = np.stack([_sums(answers, mine - constant), _sums(answers, np.ones(len(mine)))], axis=1)
    value = interval(sums, lambda t: t[:, 0] / t[:, 1], rng)
    found.figures[f"log_likelihood_{name}"] = float(mine.mean())
    found.figures[f"log_likelihood_base_{name}"] = float(constant.mean())
    reason = "nats an answer over always saying the base rate"
    found.lines.append(_better(f"likelihood_gain_{name}", value, 0.0, known, reason))


def _auc(name: str, answers: Answers, known: bool, rng: np.random.Generator, found: Findings) -> None:
    edges = np.unique(np.quantile(answers.predicted, np.arange(1, _GRADES) / _GRADES))
    grade = np.searchsorted(edges, answers.predicted)
    sums = np.stack(
        [
            by_user(answers.lane, grade, (answers.actual > 0.5) == kind, answers.users, _GRADES)
            for kind in (False, True)
        ],
        axis=1,
    )

    def auc(totals: Array) -> Array:
        below = totals[:, 0].cumsum(1) - totals[:, 0] / 2
        pairs = np.maximum(totals[:, 0].sum(1) * totals[:, 1].sum(1), 1)
        figure: Array = (below * totals[:, 1]).sum(1) / pairs
        return figure

    value = interval(sums, auc, rng)
    found.lines.append(_better(f"auc_{name}", value, 0.5, known, "an order that is no better than chance is none"))


def _preference(signal: Signal, forecast: TeacherForced, rng: np.random.Generator, found: Findings) -> None:
    """Consumption in a log without exposures: consumed items against others as popular."""
    found.unsupported.append(
        f"The log has no exposures: how often a shown item gets '{signal.name}' is not measured, only whether consumed "
        "items are preferred to others as popular; no sessions are simulated."
    )
    if forecast.wins is None or forecast.pairs is None or not forecast.pairs.sum():
        found.unsupported.append("The simulator does not rank items (`utility`): its preferences are not measured.")
        return
    sums = np.stack([forecast.wins, forecast.pairs], axis=1).astype(np.float64)
    value = interval(sums, lambda t: t[:, 0] / np.maximum(t[:, 1], 1), rng)
    reason = "against items drawn by popularity, so that popularity alone gets one half"
    found.lines.append(_better(f"auc_{signal.name}", value, 0.5, True, reason))


def _sums(answers: Answers, values: Numbers) -> Array:
    sums: Array = np.bincount(answers.lane, values, answers.users).astype(np.float64)
    return sums


def _no_more(name: str, value: tuple[float, float, float], limit: float, reason: str) -> FidelityLine:
    """An error that must not exceed a limit."""
    verdict = Verdict.failed if value[1] > limit else Verdict.passed if value[2] <= limit else Verdict.cannot_tell
    return FidelityLine(name, "answers", *value, f"high <= {limit:.3f}", verdict, reason)


def _within(worst: float, tolerance: float, best: float) -> Verdict:
    """Of how much worse something is, by its ends: not known to be worse, passed if known to be hardly so."""
    if best > 0:
        return Verdict.failed
    return Verdict.passed if worst <= tolerance else Verdict.cannot_tell


def _better(name: str, value: tuple[float, float, float], chance: float, known: bool, reason: str) -> FidelityLine:
    """A merit: above chance with its whole interval where there is something to be known, else not below it."""
    if known:
        verdict = Verdict.cannot_tell
        if value[1] > chance or value[2] <= chance:
            verdict = Verdict.passed if value[1] > chance else Verdict.failed
        return FidelityLine(name, "answers", *value, f"low > {chance:g}", verdict, reason)
    reason = f"{reason}; there may be nothing to know about it, so it must only not be worse"
    hardly = _NO_WORSE[name.split("_")[0]]
    verdict = _within(chance - value[1], hardly, chance - value[2])
    return FidelityLine(name, "answers", *value, f"low >= {chance - hardly:g}", verdict, reason)
