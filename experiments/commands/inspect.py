"""What a world holds, what was learned, what was assumed, and what it does not claim.

recloop inspect worlds/ml-100k
recloop inspect worlds/ml-100k --user 42
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table
from torch import Tensor

from recloop.envs.build.card import READING
from recloop.envs.evidence.fidelity import reports_on
from recloop.envs.logs.reading import LogReading
from recloop.envs.world.user_context import newest_items, user_paths, user_row
from recloop.envs.world.world import PARTS, World
from recloop.experiments.report.log_summary import print_columns, signal_in_words
from recloop.experiments.report.tables import (
    PlainConsole,
    fit_rows,
    flat_figures,
    pairs_table,
    pattern_tables,
    plain_figures,
    wide_console,
)
from recloop.experiments.settings import at_least


@dataclass(frozen=True)
class InspectConfig:
    """Print a world's card, counts, simulators and most popular items; or what it knows of one user."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    top: int = 10
    """How many of the most popular items to list; with --user, of the newest items."""
    user: str | None = None
    """Id of a user: print their history's head, their segment, and what the knowledge graph makes of it, instead."""
    paths: int = 8
    """How many paths through the knowledge graph to list of --user."""

    def __post_init__(self) -> None:
        at_least(0, top=self.top, paths=self.paths)


def main(config: InspectConfig) -> None:
    """Print what a world holds."""
    world, console = World.load(config.world), wide_console()
    if config.user is None:
        print_world(world, config.top, console)
    else:
        print_user(world, config.user, config.top, config.paths, console)


def print_world(world: World, top: int, console: PlainConsole, reading: bool = True) -> None:
    """Print a world's card, how its log was read, counts, simulators, figures and `top` most popular items."""
    console.print(f"{world.name}  {world.fingerprint[:12]}", style="bold")
    console.print(pairs_table("what it holds", _holdings(world)))
    if reading and (read := world.card.figures.get(READING)) is not None:
        print_columns(LogReading.of(read), read["notes"], console)
    for title, lines in (
        ("learned", world.card.learned),
        ("assumed", world.card.assumed),
        ("not claimed", world.card.not_claimed),
    ):
        console.print(f"\n{title}", style="bold")
        for line in lines or ("nothing recorded",):
            console.print(f"  - {line}", soft_wrap=True)
    console.print()
    for report in reports_on(world.card):
        console.print(f"fidelity  {report.verdict}", style="bold", soft_wrap=True)
    console.print(pairs_table("figures", plain_figures(world.card.figures)))
    columns, rows = fit_rows(world.card.figures)
    if rows:
        console.print(_fits(columns, rows))
    for patterns in pattern_tables(world):
        console.print(patterns)
    if world.card.cleaning:
        console.print(pairs_table("cleaning", flat_figures(world.card.cleaning)))
    if top:
        console.print(_popular(world, top))


def print_user(world: World, name: str, newest: int, paths: int, console: PlainConsole) -> None:
    """Print what a world knows of a user: part, segment, `newest` items, and `paths` through the knowledge graph."""
    row, titles = user_row(world, name), world.catalogue.titles
    facts = {"part": PARTS[int(world.users.part[row])], "consumptions": f"{_consumed(world, row):,}"}
    if world.patterns is not None and world.patterns.segments is not None:
        number, portraits = int(world.patterns.segment[row]), world.patterns.segments.portraits
        facts["segment"] = f"{number}: {portraits[number].name}" if number < len(portraits) else "no history"
    console.print(pairs_table(f"user {name} of {world.name}", facts))
    items = newest_items(world, row, newest)
    given = world.users.feedback[row][world.users.history[row] < len(titles)].flip(0)
    console.print(
        _lines(
            "newest first",
            [f"{titles[item]}{_signals(world, given[i])}" for i, item in enumerate(items)] or ["nothing consumed"],
        )
    )
    if not paths:
        return
    found = [path.in_words(titles) for path in user_paths(world, row, paths, telling=True)]
    nothing = (
        "the world has no knowledge graph" if world.knowledge is None else "nothing: no item of it has a neighbour"
    )
    console.print(
        _lines("knowledge graph: what sets the history apart, with its share of the attention", found or [nothing])
    )


def _lines(title: str, lines: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for line in lines:
        table.add_row(line)
    return table


def _consumed(world: World, row: int) -> int:
    """How much a user consumed in all; a truth world has no log, and what they arrive with counts."""
    if world.sequences.users == len(world.users):
        return int(world.sequences.lengths[row])
    return int((world.users.history[row] < len(world.catalogue)).sum())


def _signals(world: World, values: Tensor) -> str:
    """What was answered beside consuming, in brackets."""
    said = [f"{s.name} {float(v):g}" for s, v in zip(world.signals[1:], values[1:], strict=True)]
    return f" ({', '.join(said)})" if said else ""


def _holdings(world: World) -> dict[str, str]:
    encoder = world.state_encoder
    parts = ", ".join(f"{len(world.users.rows(part)):,} {part}" for part in PARTS)
    consumed = int(world.sequences.lengths.sum())
    slates = world.sequences.slates
    graph = world.knowledge
    return {
        "users": f"{len(world.users):,} ({parts})",
        "items": f"{len(world.catalogue):,}",
        "consumptions": f"{consumed:,} ({consumed / max(len(world.users), 1):.1f} a user)",
        "slates": "not logged" if slates is None else f"{len(slates.items):,}",
        "knowledge graph": "none" if graph is None else f"{len(graph.triples):,} triples",
        "signals": ", ".join(signal_in_words(s) for s in world.signals),
        "reward of a step": world.reward.in_words(),
        **({"rules": " ".join(world.rules.in_words())} if world.rules else {}),
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


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(InspectConfig, main)
