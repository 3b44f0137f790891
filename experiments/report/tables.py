"""A comparison as a table in the terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recloop.encoders.base.names import visible
from recloop.encoders.patterns import Portrait
from recloop.envs.build.card import READING
from recloop.envs.evidence.fidelity import failures
from recloop.envs.evidence.fidelity.report import FIGURE as FIDELITY
from recloop.envs.evidence.replay.gate import GATES
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.world.world import World
from recloop.experiments.comparison.claims import Claim
from recloop.experiments.comparison.intervals import Interval
from recloop.experiments.comparison.results import Comparison, Headline

FLAGGED = "(!) flagged: the log does not back this value; it may be far off, either way."
"""Said of policies that act beyond the log."""


SAID = {Verdict.passed: "passed", Verdict.failed: "FAILED", Verdict.cannot_tell: "cannot tell"}
"""How tables call the outcome of a line."""
REPORTS = (FIDELITY, GATES, READING)
"""Figures of a card that are whole reports: they are told in sentences and tables of their own."""
Rows = tuple[str, list[str], list[list[str]]]
"""Title, heads and rows of a table."""


def print_comparison(
    comparison: Comparison, claims: Sequence[Claim], out: Path, console: "PlainConsole | None" = None
) -> None:
    """Print one table a simulator, what is claimed, and where the report is."""
    console = console or wide_console()
    for simulator in comparison.simulators:
        console.print(headline_table(comparison, simulator))
    for line in note_lines(comparison):
        console.print(line, soft_wrap=True)
    for sentence in failures(comparison.world.card):
        console.print(f"this world failed its fidelity report: {sentence}", style="red")
    print_claims(claims, console)
    console.print(f"report       {out / 'report.html'}", soft_wrap=True)
    console.print(f"tensorboard  tensorboard --logdir {out / 'tensorboard'}", soft_wrap=True)


def print_claims(claims: Sequence[Claim], console: "PlainConsole") -> None:
    """How many pairs are claimed at which level, each claim as a sentence, and what warns of some of them."""
    made = [claim for claim in claims if claim.made]
    console.print(f"{len(made)} of {len(claims)} pairs are claimed{':' if made else ''}")
    for claim in made:
        console.print(f"  {claim.text}", soft_wrap=True)
    for warning in dict.fromkeys(claim.warning for claim in made if claim.warning):
        console.print(f"  warning: {warning}", soft_wrap=True)


class PlainConsole(Console):
    """A terminal that shows every text as it is: no markup, no emoji codes, nothing that moves the cursor."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text, or a cell of a table, for the screen."""
        return super().render_str(visible(text, keep="\n\t"), **options)


def wide_console(width: int = 118, **options: Any) -> PlainConsole:
    """The terminal, or `width` columns where the output goes to a file."""
    console = PlainConsole(**options)
    return console if console.is_terminal else PlainConsole(width=width, **options)


def note_lines(comparison: Comparison) -> list[str]:
    """What sets policies apart from what they are judged by, a sentence each."""
    return [f"{one.label} {one.note}" for one in comparison.contenders if one.note]


def headline_table(comparison: Comparison, simulator: str) -> Table:
    """Policies in rows: value, paired difference to the reference, probability of improvement, coverage, length."""
    users = len(comparison.values(comparison.reference, simulator))
    table = Table(
        title=f"{simulator_in_words(comparison, simulator)}: return an episode, {users} users, "
        f"{len(comparison.seeds)} seed(s), 95 % over users",
        title_justify="left",
    )
    table.add_column("policy")
    names = ["return", f"minus {comparison.reference}", "p(improve)", "coverage", "slates", "invalid"]
    if comparison.has_support:
        names += ["may be", "outside"]
    for name in names:
        table.add_column(name, justify="right")
    flags = flags_of(comparison)
    for contender in comparison.contenders:
        line = comparison.headline(contender.label, simulator)
        name = f"{contender.label} (knows the truth)" if contender.privileged else contender.label
        table.add_row(name + flag_mark(flags[contender.label]), *cells(line))
    for label in comparison.unreached:
        if label not in comparison.labels:
            table.add_row(label, "not reached")
    if any(flags.values()):
        table.caption = FLAGGED
        table.caption_justify = "left"
    return table


def flags_of(comparison: Comparison) -> dict[str, str]:
    """By policy, why the log does not back its value, as claims and `results.csv` have it; "" where nothing does."""
    brackets = {label: comparison.bracket(label) for label in comparison.labels}
    return {label: "" if bracket is None else bracket.flag for label, bracket in brackets.items()}


def flag_mark(flag: str) -> str:
    """What stands after the name of a policy whose value is not backed by the log, for whatever reason `flag` gives."""
    return " (!)" if flag else ""


def cells(line: Headline) -> list[str]:
    """The numbers of a row as text."""
    return [
        interval_text(line.value),
        "reference" if line.difference is None else interval_text(line.difference, signed=True),
        "" if line.improves is None else f"{line.improves.mean:.0%}",
        f"{line.coverage:.1%}",
        f"{line.length:.1f}",
        f"{line.invalid:.2f}",
        *bracket_cells(line),
    ]


def bracket_cells(line: Headline) -> list[str]:
    """What a value may be, and the share of slates outside the log's support; nothing without a support model."""
    bracket = line.bracket
    if bracket is None:
        return []
    ends = [number_text(end) for end in (bracket.pessimistic, bracket.optimistic)]
    return [" to ".join(dict.fromkeys(ends)), f"{bracket.outside:.0%}"]


def number_text(number: float, form: str = ".2f") -> str:
    """A number, or "not known" for what is none."""
    return f"{number:{form}}" if math.isfinite(number) else "not known"


def interval_text(interval: Interval, signed: bool = False) -> str:
    """An interval as `mean [low, high]`; "not known" where the mean is no number."""
    form = "+.2f" if signed else ".2f"
    if not math.isfinite(interval.mean):
        return number_text(interval.mean)
    return f"{interval.mean:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def simulator_in_words(comparison: Comparison, simulator: str) -> str:
    """What a reader calls a simulator."""
    known = {"train": "training users", "judge": "judge", "truth": "the truth", "validation": "validation users"}
    if simulator.startswith("judge-"):
        return f"judge {simulator.removeprefix('judge-')}"
    return known.get(simulator, f"your users {simulator}")


def flat_figures(figures: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested figures as text on one level.

    >>> flat_figures({"items": 1200, "click": {"auc": 0.71234}})
    {'items': '1,200', 'click / auc': '0.7123'}
    """
    flat: dict[str, str] = {}
    for name, value in figures.items():
        path = f"{above} / {name}" if above else str(name)
        if isinstance(value, Mapping):
            flat.update(flat_figures(value, path))
        elif isinstance(value, float):
            flat[path] = f"{value:.4g}"
        else:
            flat[path] = f"{value:,}" if type(value) is int else str(value)
    return flat


def fit_rows(figures: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Figures of fits (model -> signal -> figure -> number) as a table: its columns, and a row a model and signal.

    >>> fit_rows({"items": 3, "judge": {"click": {"auc": 0.75, "count": 120}}})
    (['users', 'signal', 'auc', 'count'], [['judge', 'click', '0.75', '120']])
    """
    fits = {
        name: value
        for name, value in figures.items()
        if name not in REPORTS and isinstance(value, Mapping) and all(isinstance(x, Mapping) for x in value.values())
    }
    found = [(model, signal, numbers) for model, signals in fits.items() for signal, numbers in signals.items()]
    names = sorted({name for _, _, numbers in found for name in numbers})
    rows = []
    for model, signal, numbers in found:
        texts = flat_figures({name: numbers[name] for name in names if name in numbers})
        rows.append([model, signal, *(texts.get(name, "") for name in names)])
    return (["users", "signal", *names] if rows else []), rows


def plain_figures(figures: Mapping[str, Any]) -> dict[str, str]:
    """The figures that `fit_rows` does not take, as text on one level, without reports."""
    shown = {row[0] for row in fit_rows(figures)[1]}
    return flat_figures({name: value for name, value in figures.items() if name not in (*shown, *REPORTS)})


def pattern_tables(world: World) -> list[Table]:
    """For the terminal; nothing where nobody looked for patterns."""
    tables = []
    for title, head, rows in pattern_rows(world):
        table = Table(title=title, title_justify="left")
        for place, name in enumerate(head):
            table.add_column(name, justify="right" if place < 2 else "left")
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def pattern_rows(world: World) -> list[Rows]:
    """Number, size, most telling attributes and items of every segment and topic."""
    patterns, found = world.patterns, []
    if patterns is not None and patterns.segments is not None:
        counts = patterns.segment.bincount(minlength=patterns.segments.dim).tolist()
        drawn = (*patterns.segments.portraits, Portrait((patterns.segments.names[-1],)))
        rows = [_row(place, f"{counts[place]:,}", portrait) for place, portrait in enumerate(drawn)]
        title = f"segments of users; {patterns.silhouettes}"
        found.append((title, ["segment", "users", "more than others", "most telling items"], rows))
    if patterns is not None and patterns.topics is not None:
        shares = patterns.mix.mean(0).tolist()
        rows = [_row(place, f"{shares[place]:.0%}", p) for place, p in enumerate(patterns.topics.portraits)]
        heads = ["topic", "share", "more than others", "most telling items"]
        found.append(("topics of behaviour; share of the mean user", heads, rows))
    return found


def _row(place: int, size: str, portrait: Portrait) -> list[str]:
    nothing = "" if portrait.attributes or portrait.items else portrait.name
    return [str(place), size, ", ".join(portrait.attributes) or nothing, ", ".join(portrait.items)]


def pairs_table(title: str, pairs: Mapping[str, str]) -> Table:
    """Names and values in two columns."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, value)
    return table
