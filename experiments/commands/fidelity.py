"""Is a simulator like the people whose log it was fitted on? A table, a picture, and a mark on the world.

recloop fidelity worlds/ml-100k
recloop fidelity worlds/ml-100k --simulator judge --out runs/fidelity --mark
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from recloop.encoders.base.manifest import Manifest
from recloop.encoders.base.storage import replacing_file
from recloop.envs.evidence.fidelity import FidelityConfig, FidelityReport, fidelity_of, marked
from recloop.envs.world.world import World
from recloop.experiments.output import writing
from recloop.experiments.report.fidelity_pictures import fidelity_picture
from recloop.experiments.report.tables import SAID, PlainConsole, wide_console
from recloop.experiments.settings import at_least


@dataclass(frozen=True)
class FidelityCommand:
    """Hold a world's simulator against logged users that nothing was fitted on."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    simulator: str | None = None
    """Which of its simulators; default the one that agents train in."""
    part: str = "evaluate"
    """Part of the users to measure on."""
    users: int = 400
    """Most users."""
    steps: int = 60
    """Most slates a user, from the beginning of the log."""
    seed: int = 0
    """Of all draws."""
    device: str = "cpu"
    """Torch device."""
    out: Path | None = None
    """Folder for fidelity.json and fidelity.png; default runs/fidelity-WORLD-SIMULATOR."""
    mark: bool = False
    """Write the report on the world's card too, so that results made in the world carry it."""

    def __post_init__(self) -> None:
        at_least(1, users=self.users, steps=self.steps)


def main(config: FidelityCommand) -> None:
    """Measure, print the table, write the files."""
    world = World.load(config.world)
    name = config.simulator or world.training_simulator
    out = config.out or Path("runs") / f"fidelity-{config.world.resolve().name}-{name}"
    with ExitStack() as held:
        for folder in (out, config.world) if config.mark else (out,):
            held.enter_context(writing(folder))
        print_report(_measured(config, world, name, out), out, wide_console())


def _measured(config: FidelityCommand, world: World, name: str, out: Path) -> FidelityReport:
    report = fidelity_of(
        world,
        name,
        world.users.rows(config.part),
        config=FidelityConfig(config.users, config.steps, config.seed, config.device),
    )
    out.mkdir(parents=True, exist_ok=True)
    report.save(out / "fidelity.json")
    png = fidelity_picture(report)
    if png is not None:
        with replacing_file(out / "fidelity.png") as part:
            part.write_bytes(png)
    if config.mark:
        manifest = Manifest.read(config.world)
        marked(world, report).save(config.world, None if manifest is None else manifest.made_with)
    return report


def print_report(report: FidelityReport, out: Path, console: PlainConsole) -> None:
    """Print the table, what is not supported, the verdict, and where the files are."""
    console.print(fidelity_table(report))
    if report.told_by:
        told = "; ".join(f"{name} {value:+.2f}" for name, value in report.told_by)
        console.print(f"sessions differ most in (standard deviations): {told}")
    for sentence in report.unsupported:
        console.print(f"  - {sentence}")
    console.print(report.verdict, style="bold red" if report.failed else "bold green" if report.passed else "bold")
    console.print(f"report       {out / 'fidelity.json'}", soft_wrap=True)


def fidelity_table(report: FidelityReport) -> Table:
    """Lines in rows: value with its interval, the pass line, whether it passed."""
    table = Table(
        title=f"{report.simulator} of {report.world}: {report.users} users, {report.slates:,} slates, "
        f"{report.sessions:,} sessions; 95 % over users",
        title_justify="left",
    )
    for name, justify in (("measure", "left"), ("loop", "left"), ("value", "right"), ("passes", "right"), ("", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left")
    for line in report.lines:
        table.add_row(line.name, line.loop, line.text, line.rule, "" if line.passed else SAID[line.verdict])
    return table


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(FidelityCommand, main)
