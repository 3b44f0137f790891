"""The report of a comparison: one HTML page without scripts or a network, and the same in short as Markdown.

from recloop.experiments.report.report import write_report
write_report(Path("runs/shop/report.html"), comparison, claims_of(comparison), facts)
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from scipy.stats import trim_mean

from recloop.encoders.base.names import html_escape, visible
from recloop.encoders.base.storage import replacing_file
from recloop.envs.build.card import READING
from recloop.envs.evidence.fidelity import FidelityReport, reports_on
from recloop.envs.evidence.replay.gate import GATES, GateReport
from recloop.envs.skins.rendering import answer_text
from recloop.experiments.comparison.claims import Claim, ClaimRules
from recloop.experiments.comparison.evaluate import Rollout
from recloop.experiments.comparison.intervals import SEEDS_FOR_INTERVAL, t_interval
from recloop.experiments.comparison.results import Comparison, Headline
from recloop.experiments.comparison.segments import NOTE as SEGMENTS_NOTE
from recloop.experiments.comparison.segments import cells as segment_cells
from recloop.experiments.comparison.segments import segment_lines
from recloop.experiments.report.charts import Band, Mark, curve_chart, interval_chart, small_interval
from recloop.experiments.report.pictures import seed_curves, trained
from recloop.experiments.report.summary import Summary, summary_of
from recloop.experiments.report.tables import (
    SAID,
    bracket_cells,
    fit_rows,
    flag_mark,
    flat_figures,
    interval_text,
    number_text,
    pattern_rows,
    plain_figures,
    simulator_in_words,
)

_STEPS_SHOWN, _GATE_LINES = 30, 5
_MARKDOWN = re.compile(r"[\\`*_<|~&$#]|\](?=[\[(:])|:(?=//)|(?<=www)\.")
"""What Markdown, as GitHub reads it, would take for more than text."""
Line = Sequence[Any]
"""Cells of a row; one that is a list has a line for each of its texts."""


def write_report(path: Path, comparison: Comparison, claims: Sequence[Claim], facts: Mapping[str, Any]) -> None:
    """Write `report.html` and, beside it, `report.md`; each replaced whole. `facts` is what `run.json` holds."""
    for place, made in ((path, html), (path.with_suffix(".md"), markdown)):
        with replacing_file(place) as part:
            part.write_text(made(comparison, claims, facts), encoding="utf-8")


def html(comparison: Comparison, claims: Sequence[Claim], facts: Mapping[str, Any]) -> str:
    """The whole report as text."""
    summary = summary_of(comparison, claims)
    comparison = summary.comparison
    card = comparison.world.card
    figures = {**plain_figures(card.figures), **flat_figures({"cleaning": card.cleaning} if card.cleaning else {})}
    return _rendered(
        "page.html",
        html_escape,
        summary,
        facts,
        css=Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8")),
        small_interval=small_interval,
        returns={simulator: _returns(summary, simulator) for simulator in comparison.simulators},
        differences={simulator: _differences(summary, simulator) for simulator in comparison.simulators},
        training=_training(comparison),
        details={simulator: _details(summary, simulator) for simulator in comparison.simulators},
        patterns=pattern_rows(comparison.world),
        segments=_segments(comparison),
        segments_note=SEGMENTS_NOTE,
        fidelity=reports_on(card),
        report_lines=_report_lines,
        gates=[_gate(GateReport.of(gate)) for gate in card.figures.get(GATES, {}).values()],
        notes=card.figures.get(READING, {}).get("notes", ()),
        figures=list(figures.items()),
        fits=fit_rows(card.figures),
        rules_kept=_rules(comparison),
        history=_history(comparison),
        sessions={simulator: _sessions(summary, simulator) for simulator in summary.where},
    )


def markdown(comparison: Comparison, claims: Sequence[Claim], facts: Mapping[str, Any]) -> str:
    """Verdict, caveats, main table, claims and command, as GitHub shows them."""
    return _rendered("page.md", markdown_text, summary_of(comparison, claims), facts)


def markdown_text(text: object) -> str:
    r"""A text as Markdown shows it as it is, in a line or in a cell of a table.

    >>> markdown_text("*a* | <b> [x](y)")
    '\\*a\\* \\| \\<b> [x\\](y)'
    """
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(visible(str(text), keep="\n\t").split()))


def _rendered(
    name: str, escape: Callable[[object], str], summary: Summary, facts: Mapping[str, Any], **more: Any
) -> str:
    """A template, filled in; whatever is no `Markup` passes `escape`, so that names are data."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    comparison = summary.comparison
    environment.globals.update(
        summary=summary,
        comparison=comparison,
        world=comparison.world,
        slate_size=int(next(iter(comparison.rollouts.values())).trace_slate.shape[1]),
        rules=ClaimRules(),
        in_words=lambda simulator: simulator_in_words(comparison, simulator),
        apart=summary.best not in (None, comparison.reference),
        interval=interval_text,
        note=_note(summary),
        made=[_claim(claim) for claim in summary.claims if claim.made],
        unclaimed=[_claim(claim) for claim in summary.claims if not claim.made],
        provenance=_provenance(facts),
        command=visible(str(facts.get("command", "")), keep="\t"),
    )
    return environment.get_template(name).render(**more)


def _claim(claim: Claim) -> Line:
    """The claim in words, the differences by simulator, and what to bear in mind of it, or what would settle it."""
    differences = []
    for name, found in claim.differences.items():
        p = "< 0.001" if claim.p[name] < 0.001 else f"{claim.p[name]:.3f}"
        differences.append(f"{name} {interval_text(found, signed=True)} (p {p})")
    more = claim.warning if claim.made else claim.settle
    return claim.text, differences, f"{more}." if more else ""


def _returns(summary: Summary, simulator: str) -> Markup:
    marks = []
    for place in summary.lines:
        line = summary.comparison.headline(place.entry.label, simulator)
        seeds = line.seeds if place.entry.retrained and len(line.seeds) > 1 else ()
        told = f"{line.policy}: {interval_text(line.value)} over users"
        told += f"; seeds {', '.join(map(number_text, seeds))}" if seeds else ""
        tone = "bound" if place.entry.privileged else "open" if place.flag else ""
        marks.append(Mark(line.policy, line.value, told, seeds, tone))
    return interval_chart(f"Return in front of {simulator_in_words(summary.comparison, simulator)}", marks)


def _differences(summary: Summary, simulator: str) -> Markup:
    reference, marks = summary.comparison.reference, []
    for place in summary.lines:
        line = summary.comparison.headline(place.entry.label, simulator)
        if line.difference is not None:
            told = f"{line.policy} minus {reference}: {interval_text(line.difference, signed=True)} over users"
            marks.append(Mark(line.policy, line.difference, told, (), summary.tone(line.policy, reference)))
    words = simulator_in_words(summary.comparison, simulator)
    return interval_chart(f"Return minus that of {reference}, in front of {words}", marks, zero=True)


def _training(comparison: Comparison) -> tuple[Markup, str] | None:
    """The curves of training, and what their bands are; None where nothing trained."""
    bands = []
    for label, curves in trained(comparison).items():
        steps, values = seed_curves(curves)  # (n,), (S, n)
        low, high = values.min(0), values.max(0)
        if len(values) >= SEEDS_FOR_INTERVAL:
            ends = [t_interval(column) for column in values.T]
            low, high = np.array([end.low for end in ends]), np.array([end.high for end in ends])
        known = np.isfinite(values).all(0)
        if known.any():
            bands.append(Band(label, *(x[known].tolist() for x in (steps, values.mean(0), low, high))))
    if not bands:
        return None
    seeds = len(comparison.seeds)
    what = "95 % t interval over" if seeds >= SEEDS_FOR_INTERVAL else "lowest to highest of"
    return curve_chart("Return over training steps", bands), f"{what} {seeds} training seeds" if seeds > 1 else ""


def _details(summary: Summary, simulator: str) -> tuple[Line, list[Line]]:
    """Heads, and a row a policy in the order of the main table."""
    comparison = summary.comparison
    signals = [signal.name for signal in comparison.world.signals]
    head = [
        "policy",
        "return [users]",
        "interquartile mean",
        "retraining [seeds]",
        f"minus {comparison.reference} [users]",
    ]
    head += ["p(improve)", "slates", "left", "coverage", "popularity", "invalid"]
    head += [*(["may be", "outside"] if comparison.has_support else []), *signals]
    rows: list[Line] = []
    for place in summary.lines:
        entry = place.entry
        line = comparison.headline(entry.label, simulator)
        difference = improves = "–"
        if line.difference is not None:
            difference = interval_text(line.difference, signed=True)
            if line.improves is not None and np.isfinite(line.difference.mean):
                low, high = line.improves.low, line.improves.high
                improves = f"{line.improves.mean:.0%} [{low:.0%}, {high:.0%}]"
        numbers = [interval_text(line.value), number_text(_middle(comparison, line))]
        numbers += [_retraining(line) if entry.retrained else "–", difference, improves, f"{line.length:.1f}"]
        numbers += [f"{line.left:.0%}", f"{line.coverage:.1%}", f"{line.popularity:.1f}×", f"{line.invalid:.2f}"]
        numbers += [*bracket_cells(line), *(f"{line.signals[name]:.2f}" for name in signals)]
        rows.append([entry.label + flag_mark(place.flag), *numbers])
    return head, rows


def _middle(comparison: Comparison, line: Headline) -> float:
    """Mean of the middle half of the returns of all seeds and users; NaN where one is no number."""
    values = np.concatenate([comparison.values(line.policy, line.simulator, seed) for seed in comparison.seeds])
    return float(trim_mean(values, 0.25)) if np.isfinite(values).all() else float("nan")


def _retraining(line: Headline) -> str:
    """Over seeds: an interval from five on, before that the seeds themselves."""
    if line.over_seeds is not None:
        return interval_text(line.over_seeds)
    return ", ".join(map(number_text, line.seeds)) if len(line.seeds) > 1 else "one seed"


def _segments(comparison: Comparison) -> dict[str, list[Line]]:
    """By simulator: segment, policy, return, difference and p."""
    found: dict[str, list[Line]] = {}
    before = None
    for line in segment_lines(comparison):
        place = (line.simulator, line.segment)
        name = "" if place == before else f"{line.segment} {line.name} ({line.users:,} users)"
        before = place
        found.setdefault(line.simulator, []).append([name, *segment_cells(line)])
    return found


def _rules(comparison: Comparison) -> list[str]:
    """The rules in words, and the share of each policy's places, over seeds and simulators, that they filled."""
    found: dict[str, list[float]] = {}
    for (label, _, _), rollout in comparison.rollouts.items():
        if rollout.mended is not None:
            found.setdefault(label, []).append(float(rollout.mended.mean()))
    filled = ", ".join(f"{label} {np.mean(shares):.1%}" for label, shares in found.items())
    return comparison.world.rules.in_words() + (
        [f"Places that the rules filled and not the policy: {filled}."] if filled else []
    )


def _report_lines(report: FidelityReport) -> list[Line]:
    return [
        (n.name, n.loop, f"{n.value:.3f} [{n.low:.3f}, {n.high:.3f}]", n.rule, SAID[n.verdict], n.reason)
        for n in report.lines
    ]


def _gate(report: GateReport) -> Line:
    """Whose gate, how it ended, and what was found; the lines that failed or cannot tell, by name."""
    why = [f"{line.measure} {line.policy}: {line.reason}" for line in (*report.failed, *report.open)]
    return report.simulator, SAID[report.verdict], [report.sentence, *why[:_GATE_LINES]]


def _note(summary: Summary) -> str:
    """What the numbers of the main table are."""
    users = len(summary.comparison.values(summary.comparison.labels[0], summary.where[0]))
    best = "" if summary.best is None else f" {summary.best} is the best without RL, chosen by these very values."
    return (
        f"Return: mean total reward of an episode. Brackets: 95 % interval over the same {users:,} users for these "
        f"trained policies; nothing of it is about retraining. Differences are paired by user.{best}"
    )


def _history(comparison: Comparison) -> tuple[str, str]:
    """The user whose sessions are shown, and what they had consumed last."""
    first = comparison.rollouts[comparison.labels[0], comparison.seeds[0], comparison.simulators[-1]]
    titles = comparison.world.catalogue.titles
    before = [titles[row] for row in first.trace_history.tolist() if row < len(titles)][-5:]
    return comparison.world.users.ids[int(first.users[0])], ", ".join(before) or "nothing"


def _sessions(summary: Summary, simulator: str) -> list[tuple[str, str, list[list[tuple[str, bool]]]]]:
    """A policy in a row: its name, how the session ended, and its slates of (item and answers, taken)."""
    comparison, found = summary.comparison, []
    for place in summary.lines:
        label = place.entry.label
        rollout = comparison.rollouts[label, comparison.seeds[0], simulator]
        slates = [_slate(comparison, rollout, step) for step in range(min(len(rollout.trace_slate), _STEPS_SHOWN))]
        end = "the user left" if rollout.left[0] else "the time limit came"
        told = f"{len(rollout.trace_slate)} slates, then {end}; return {number_text(rollout.value[0])}"
        found.append((label, told, slates))
    return found


def _slate(comparison: Comparison, rollout: Rollout, step: int) -> list[tuple[str, bool]]:
    """What was shown at a step, each with what was answered, and whether it was taken."""
    titles, lines = (*comparison.world.catalogue.titles, "(empty place)"), []
    for place, row in enumerate(rollout.trace_slate[step].tolist()):
        given, answer = rollout.trace_given[step, place], rollout.trace_signals[step, place]
        taken = bool(given[0]) and answer[0] > 0.5
        said = [
            answer_text(s, float(answer[i]))
            for i, s in enumerate(comparison.world.signals)
            if i and given[i] and (s.kind != "binary" or answer[i] > 0.5)
        ]
        lines.append((titles[row] + (f" ({', '.join(said)})" if said and taken else ""), taken))
    return lines


def _provenance(facts: Mapping[str, Any]) -> list[Line]:
    versions = ", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items())
    known = {name: facts.get(name) for name in ("device", "threads", "seeds", "started", "seconds")}
    known |= {"commit": facts.get("commit") or "installed package", "versions": versions or None}
    return [(name, str(value)) for name, value in known.items() if value is not None]
