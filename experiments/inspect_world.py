"""What a world holds, what was learned, what was assumed, and what it does not claim.

recloop inspect worlds/ml-100k
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from recloop.envs.fidelity import reports_on
from recloop.envs.logs.schema import Signal
from recloop.envs.world import PARTS, World
from recloop.experiments.patterns_tables import pattern_tables
from recloop.experiments.settings import at_least
from recloop.experiments.tables import fit_rows, flat_figures, plain_figures, wide_console


@dataclass(frozen=True)
class InspectConfig:
    """Print a world's card, counts, simulators and most popular items."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    top: int = 10
    """How many of the most popular items to list."""

    def __post_init__(self) -> None:
        at_least(0, top=self.top)


def main(config: InspectConfig) -> None:
    """Print what a world holds."""
    print_world(World.load(config.world), config.top, wide_console())


def print_world(world: World, top: int, console: Console) -> None:
    """Print a world's card, counts, simulators, figures and `top` most popular items."""
    console.print(f"[bold]{world.name}[/bold]  {world.fingerprint[:12]}", highlight=False)
    console.print(_pairs("what it holds", _holdings(world)))
    for title, lines in (
        ("learned", world.card.learned),
        ("assumed", world.card.assumed),
        ("not claimed", world.card.not_claimed),
    ):
        console.print(f"\n[bold]{title}[/bold]")
        for line in lines or ("nothing recorded",):
            console.print(f"  - {line}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    for report in reports_on(world.card):
        console.print(f"[bold]fidelity[/bold]  {report.verdict}", highlight=False, soft_wrap=True)
    console.print(_pairs("figures", plain_figures(world.card.figures)))
    columns, rows = fit_rows(world.card.figures)
    if rows:
        console.print(_fits(columns, rows))
    for patterns in pattern_tables(world):
        console.print(patterns)
    if world.card.cleaning:
        console.print(_pairs("cleaning", flat_figures(world.card.cleaning)))
    if top:
        console.print(_popular(world, top))


def signal_in_words(signal: Signal) -> str:
    """A signal as a reader understands it.

    >>> signal_in_words(Signal("rating", "ordinal", levels=(1, 2, 3), given_on="consume"))
    'rating (ordinal 1 to 3, given on consume)'
    """
    low, high = signal.bounds
    kind = "binary" if signal.kind == "binary" else f"{signal.kind} {low:g} to {high:g}"
    given = f", given on {signal.given_on}" if signal.given_on else ""
    return f"{signal.name} ({kind}{given}{'' if signal.good else ', bad for the user'})"


def _holdings(world: World) -> dict[str, str]:
    encoder = world.state_encoder
    parts = ", ".join(f"{len(world.users.rows(part)):,} {part}" for part in PARTS)
    consumed = int(world.sequences.lengths.sum())
    slates = world.sequences.slates
    graph = world.knowledge
    rules = world.reward.as_dict()
    weights = [f"{w:g} x {name}" for name, w in rules.pop("signals").items()]
    weights += [f"{value:g} x {name}" for name, value in rules.items() if value]
    return {
        "users": f"{len(world.users):,} ({parts})",
        "items": f"{len(world.catalogue):,}",
        "consumptions": f"{consumed:,} ({consumed / max(len(world.users), 1):.1f} a user)",
        "slates": "not logged" if slates is None else f"{len(slates.items):,}",
        "knowledge graph": "none" if graph is None else f"{len(graph.triples):,} triples",
        "signals": ", ".join(signal_in_words(s) for s in world.signals),
        "reward of a step": " + ".join(weights) or "0",
        "slate, time limit": f"{world.slate_size} items, {world.max_steps} slates",
        "an item again": "may be consumed again" if world.consumes_twice else "never shown again once consumed",
        "simulators": ", ".join(f"{name} ({type(s).__name__})" for name, s in world.simulators.items()),
        "trained in, judged in": f"{world.training_simulator}; {', '.join(world.evaluation_simulators)}",
        "state encoder": f"{encoder.dim} numbers a user, {len(encoder.relations)} relations",
    }


def _fits(columns: list[str], rows: list[list[str]]) -> Table:
    table = Table(title="fits, on users held out from each", title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name.replace("_", " "), justify="left" if place < 2 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _popular(world: World, top: int) -> Table:
    counts = world.catalogue.popularity
    table = Table(title="most consumed by the train users", title_justify="left")
    table.add_column("id", justify="right")
    table.add_column("title")
    table.add_column("times", justify="right")
    for row in counts.argsort(descending=True, stable=True)[:top].tolist():
        table.add_row(world.catalogue.ids[row], world.catalogue.titles[row], f"{int(counts[row]):,}")
    return table


def _pairs(title: str, pairs: Mapping[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, value)
    return table


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(InspectConfig, main)
