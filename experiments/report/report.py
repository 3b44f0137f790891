"""The report: one HTML file with the pictures in it, readable without scripts or a network.

from recloop.experiments.report.report import write_report
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recloop.encoders.base.names import html_escape as escape
from recloop.encoders.base.storage import replacing_file
from recloop.envs.build.card import READING
from recloop.experiments.comparison.claims import Claim, ClaimRules
from recloop.experiments.comparison.evaluate import Rollout
from recloop.experiments.comparison.intervals import Interval
from recloop.experiments.comparison.results import Comparison, Entry, Headline
from recloop.experiments.comparison.verdict import verdict_of
from recloop.experiments.report.pictures import differences_picture, picture, returns_picture, training_picture
from recloop.experiments.report.sections import failure_notice, fidelity_section, segments_section
from recloop.experiments.report.style import CSS
from recloop.experiments.report.tables import (
    bracket_cells,
    fit_rows,
    flag_mark,
    flat_figures,
    interval_text,
    note_lines,
    plain_figures,
    simulator_in_words,
)

__all__ = ["picture", "write_report"]

ALWAYS = {
    "random": "random",
    "popularity": "popularity",
    "greedy": "greedy on the user model",
    "sasrec": "a supervised recommender (sasrec)",
}
"""What a comparison is no evidence without, by name; a planner too where the truth is known."""

_STEPS_SHOWN = 6

_SUPPORT_NOTE = (
    " May be: what the return may be, where members of an ensemble disagree and where slates lie beyond the log. "
    "Outside: share of slates further from the log than 95 % of its own. (!): flagged, the log does not back it."
)


def write_report(path: Path, comparison: Comparison, claims: Sequence[Claim], facts: Mapping[str, Any]) -> None:
    """Write `report.html`; replaced whole. `facts` is what `run.json` holds."""
    with replacing_file(path) as part:
        part.write_text(html(comparison, claims, facts), encoding="utf-8")


def html(comparison: Comparison, claims: Sequence[Claim], facts: Mapping[str, Any]) -> str:
    """The whole report as text."""
    world = comparison.world
    name = escape(world.name)
    kind = "a truth world: its users are written down" if world.is_truth else "a world learned from a log"
    body = [
        f"<header><h1>Policies in {name}</h1><p>{kind} &middot; {len(comparison.labels)} policies &middot; "
        f"{len(comparison.seeds)} seed(s) &middot; slates of {_slate_size(comparison)} from "
        f"{len(world.catalogue):,} items</p></header>",
        failure_notice(world.card),
        _lacking(comparison),
        "".join(f'<section class="warn">{escape(line)}.</section>' for line in note_lines(comparison)),
        f'<section class="lead">{escape(verdict_of(comparison, claims))} An order is claimed of '
        f"{sum(claim.made for claim in claims)} of {len(claims)} pairs of policies.</section>",
        "<h2>Results</h2>",
        *(_headline_section(comparison, s) for s in comparison.simulators),
        _picture("Return of every policy", returns_picture(comparison)),
        _picture(f"Difference to {comparison.reference}", differences_picture(comparison)),
        "<h2>What can be claimed</h2>",
        _claims_section(comparison, claims),
        segments_section(comparison),
        _training(comparison),
        "<h2>The world's card</h2>",
        _card(comparison),
        fidelity_section(world.card),
        "<h2>One session a policy</h2>",
        _sessions(comparison),
        "<h2>How it was made</h2>",
        _made(facts),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Policies in {name}</title><style>{CSS}</style></head><body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _slate_size(comparison: Comparison) -> int:
    return int(next(iter(comparison.rollouts.values())).trace_slate.shape[1])


def _lacking(comparison: Comparison) -> str:
    """A comparison without the simple baselines is not evidence, and says so."""
    sources = {c.source for c in comparison.contenders}
    missing = [words for name, words in ALWAYS.items() if name not in sources]
    if comparison.world.is_truth and not any(c.privileged for c in comparison.contenders):
        missing.append("a planner that knows the truth")
    if not missing:
        return ""
    return (
        f'<section class="warn"><b>This comparison lacks {escape(", ".join(missing))}.</b> Without them it does not '
        "show whether a policy is any good; add them with <code>--policies</code>.</section>"
    )


def _headline_section(comparison: Comparison, simulator: str) -> str:
    signals = [s.name for s in comparison.world.signals]
    words = simulator_in_words(comparison, simulator)
    users = len(comparison.values(comparison.reference, simulator))
    lanes = len(next(iter(comparison.rollouts.values())).users)
    head = ["policy", "return", f"minus {comparison.reference}", "p(improve)", "coverage", "popularity", "slates"]
    head += ["left", "invalid", *(["may be", "outside"] if comparison.has_support else []), *signals]
    cells = "".join(f"<th{' class=n' if place else ''}>{escape(text)}</th>" for place, text in enumerate(head))
    rows = "".join(_row(comparison, c, comparison.headline(c.label, simulator)) for c in comparison.contenders)
    return (
        f"<section><h3>In front of {escape(words)}</h3><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody>"
        f'</table>{_flags(comparison, simulator)}<p class="note">'
        f"{users:,} evaluation users on {lanes:,} lanes, the same for every policy. Brackets: "
        "95 % interval over users for these trained policies. p(improve): share of users better served than by "
        f"{escape(comparison.reference)}. Coverage: share of the catalogue shown at least once. Popularity: times the "
        "average item's. Struck: places a slate lost to a repeated or forbidden item. Signals: mean total an episode."
        f"{_SUPPORT_NOTE if comparison.has_support else ''}</p></section>"
    )


def _flags(comparison: Comparison, simulator: str) -> str:
    """Why values are flagged, a line each."""
    lines = [comparison.headline(c.label, simulator) for c in comparison.contenders]
    flagged = [f"<b>{escape(line.policy)}</b>: {escape(line.flag)}" for line in lines if line.flag]
    if not flagged:
        return ""
    return f'<p class="warn">Not backed by the log: {". ".join(flagged)}.</p>'


def _row(comparison: Comparison, contender: Entry, line: Headline) -> str:
    kind = "bound" if contender.privileged else "reference" if line.difference is None else ""
    name = escape(contender.label) + (" (knows the truth)" if contender.privileged else "") + flag_mark(line)
    seeds = ""
    if line.over_seeds is not None:
        seeds = f'<span class="i">over seeds {interval_text(line.over_seeds)}</span>'
    elif contender.retrained and len(line.seeds) > 1:
        seeds = f'<span class="i">seeds {", ".join(f"{v:.2f}" for v in line.seeds)}</span>'
    difference = improves = "&ndash;"
    if line.difference is not None and line.improves is not None:
        tone = {1: "up", -1: "down", 0: ""}[line.difference.sign]
        difference = f'<span class="{tone}">{line.difference.mean:+.2f}</span>{_brackets(line.difference, "+.2f")}'
        improves = f"{line.improves.mean:.0%}{_brackets(line.improves, '.0%')}"
    numbers = [
        f"{line.value.mean:.2f}{_brackets(line.value, '.2f')}{seeds}",
        difference,
        improves,
        f"{line.coverage:.1%}",
        f"{line.popularity:.1f}&times;",
        f"{line.length:.1f}",
        f"{line.left:.0%}",
        f"{line.invalid:.2f}",
        *bracket_cells(line),
        *(f"{line.signals[s.name]:.2f}" for s in comparison.world.signals),
    ]
    cells = "".join(f'<td class="n">{text}</td>' for text in numbers)
    return f'<tr class="{kind}"><td>{name}</td>{cells}</tr>'


def _brackets(interval: Interval, form: str) -> str:
    return f'<span class="i">[{interval.low:{form}}, {interval.high:{form}}]</span>'


def _claims_section(comparison: Comparison, claims: Sequence[Claim]) -> str:
    rows = []
    for claim in claims:
        order = f"{claim.better} {'>' if claim.made else '?'} {claim.worse}"
        tone = "open" if claim.level is None else "judges" if claim.reaches_judges else ""
        shown = "<br>".join(
            f"{escape(name)} {interval_text(i, signed=True)} (p {_p(claim.p[name])})"
            for name, i in claim.differences.items()
        )
        open_ = f"<br>To settle it: {escape(claim.settle)}." if claim.settle else ""
        warning = f"<br><b>{escape(claim.warning)}.</b>" if claim.warning else ""
        rows.append(
            f'<tr><td>{escape(order)}</td><td><span class="level {tone}">{escape(claim.level or "nothing claimed")}'
            f"</span></td><td>{shown}</td><td>{escape(claim.text)}{warning}{open_}</td></tr>"
        )
    if comparison.world.is_truth:
        reach = "This world is written down: its users are the truth, and there is nothing beyond them to claim."
    else:
        reach = (
            "<b>Across judges</b>: two judges or more, and every replay gate passed; a gate that failed or cannot tell "
            "takes that level away. <b>Outside</b>: moreover a truth says so, or the brackets of the two, what the log "
            "leaves open of their values, do not overlap."
        )
    return (
        "<section><table><thead><tr><th>order</th><th>level</th><th>paired difference</th><th>in words</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
        '<p class="note">A claim needs every member of the training users and every judge to agree beyond a margin of '
        f"{ClaimRules.margin:.0%} and a standard error, a paired t test over users below 5 % in each after "
        "Holm&rsquo;s correction over all pairs, one sign in every training seed, and neither policy flagged. "
        f"<b>This trained policy</b>: fewer than {ClaimRules.seeds} seeds; <b>this method</b>: {ClaimRules.seeds} or "
        f"more. {reach}</p></section>"
    )


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _training(comparison: Comparison) -> str:
    png = training_picture(comparison)
    return "" if png is None else f"<h2>Training</h2>{_picture('Return over training steps', png)}"


def _picture(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<section><h3>{escape(title)}</h3><img alt="{escape(title)}" src="data:image/png;base64,{data}"></section>'


def _card(comparison: Comparison) -> str:
    card = comparison.world.card
    columns = "".join(
        f"<div><h3>{title}</h3>{_list(lines)}</div>"
        for title, lines in (
            ("Learned", card.learned),
            ("Assumed", card.assumed),
            ("Not claimed", card.not_claimed),
            ("How the log was read", card.figures.get(READING, {}).get("notes", ())),
        )
    )
    plain = {**plain_figures(card.figures), **flat_figures({"cleaning": card.cleaning} if card.cleaning else {})}
    figures = _table(["figure", "value"], [[name, text] for name, text in plain.items()], words=1)
    columns_of_fits, fits = fit_rows(card.figures)
    if fits:
        figures = _table([c.replace("_", " ") for c in columns_of_fits], fits, words=2) + figures
    return (
        f'<section><div class="columns">{columns}</div><h3>Reward of a step</h3>'
        f"<p>{escape(comparison.world.reward.in_words())}</p>{_rules(comparison)}"
        f"<details><summary>All figures</summary>{figures}</details></section>"
    )


def _rules(comparison: Comparison) -> str:
    lines = comparison.world.rules.in_words()
    found = {label: _mended(comparison, label) for label in comparison.labels}
    filled = [f"{label} {share:.1%}" for label, share in found.items() if share is not None]
    if filled:
        lines.append(f"Places that the rules filled and not the policy: {', '.join(filled)}.")
    return f"<h3>Rules that every slate keeps</h3>{_list(lines)}" if lines else ""


def _mended(comparison: Comparison, label: str) -> float | None:
    """Share of a policy's places, over seeds and simulators, that rules filled; None without rules."""
    shares = [r.mended.mean() for (of, _, _), r in comparison.rollouts.items() if of == label and r.mended is not None]
    return float(sum(shares) / len(shares)) if shares else None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A table whose first `words` columns are words and the rest numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        marks = ("" if place < words else " class=n" for place in range(len(cells)))
        return "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else '<p class="note">nothing recorded</p>'


def _sessions(comparison: Comparison) -> str:
    simulator = comparison.simulators[-1]
    first = comparison.rollouts[comparison.labels[0], comparison.seeds[0], simulator]
    titles = comparison.world.catalogue.titles
    before = [titles[row] for row in first.trace_history.tolist() if row < len(titles)][-5:]
    user = comparison.world.users.ids[int(first.users[0])]
    boxes = "".join(
        f"<div><h3>{escape(label)}</h3>"
        f"{_session(comparison, comparison.rollouts[label, comparison.seeds[0], simulator])}</div>"
        for label in comparison.labels
    )
    history = escape(", ".join(before)) or "nothing"
    words = escape(simulator_in_words(comparison, simulator))
    return (
        f'<section><p class="note">User {escape(user)} in front of {words}, '
        f"the same luck for every policy. Last consumed before: {history}. Bold: consumed.</p>"
        f'<div class="session">{boxes}</div></section>'
    )


def _session(comparison: Comparison, rollout: Rollout) -> str:
    world = comparison.world
    titles = (*world.catalogue.titles, "(empty place)")
    parts = []
    for step in range(min(len(rollout.trace_slate), _STEPS_SHOWN)):
        lines = []
        for place, row in enumerate(rollout.trace_slate[step].tolist()):
            given = rollout.trace_given[step, place]
            answer = rollout.trace_signals[step, place]
            taken = bool(given[0]) and answer[0] > 0.5
            said = [
                f"{s.name} {answer[i]:g}" if s.kind == "ordinal" else f"{s.name} {answer[i]:.2f}"
                for i, s in enumerate(world.signals)
                if i and given[i] and (s.kind != "binary" or answer[i] > 0.5)
            ]
            words = f" ({', '.join(said)})" if said and taken else ""
            tone = "taken" if taken else "untaken"
            lines.append(f'<li class="{tone}">{escape(titles[row])}{escape(words)}</li>')
        parts.append(f"<b>Slate {step + 1}</b><ol>{''.join(lines)}</ol>")
    rest = len(rollout.trace_slate) - _STEPS_SHOWN
    end = "the user left" if rollout.left[0] else "the time limit came"
    more = f"{rest} more slates, then " if rest > 0 else "Then "
    return f'{"".join(parts)}<p class="note">{more}{end}. Return {rollout.value[0]:.2f}.</p>'


def _made(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items())
    lines = [
        ("device", facts.get("device")),
        ("threads", facts.get("threads")),
        ("seeds", facts.get("seeds")),
        ("commit", facts.get("commit") or "installed package"),
        ("versions", versions),
        ("started", facts.get("started")),
        ("seconds", facts.get("seconds")),
    ]
    rows = "".join(f"<tr><td>{name}</td><td>{escape(str(value))}</td></tr>" for name, value in lines)
    return f"<section><pre>{escape(str(facts.get('command', '')))}</pre><table><tbody>{rows}</tbody></table></section>"
