"""A log of behaviour becomes a world: read, clean, encode, fit users.

    recloop build ../shared/data/ml-100k --out worlds/ml-100k
    recloop build clicks.csv --columns user=uid item=sku time=ts --signals click:binary --items-table items.csv \\
        --out worlds/shop
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.world import World
from recloop.experiments.commands.inspect import print_world
from recloop.experiments.log_options import LogOptions
from recloop.experiments.output import replacing_output
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.log_summary import print_reading
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least
from recloop.experiments.stopping import telling_what_is_kept


@dataclass(frozen=True, kw_only=True)
class BuildCommand(LogOptions):
    """Learn a world from a log of behaviour."""

    out: Path
    """World folder to write."""
    overwrite: bool = False
    """Replace a world that was made with other settings."""
    settings: Annotated[BuildConfig, tyro.conf.arg(name="")] = field(default_factory=BuildConfig)
    """How the log becomes a world."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(1, threads=self.threads)

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what world it is."""
        told = asdict(self)
        settings = told.pop("settings")
        told |= {name: value for name, value in settings.items() if name not in ("cache", "use_cache")}
        return {name: value for name, value in told.items() if name not in ("out", "overwrite", "threads", "progress")}


def main(config: BuildCommand) -> World:
    """Read, clean, build, save, and print the card."""
    use_threads(config.threads)
    checked_device(config.settings.device)
    with (
        replacing_output(config.out, "world.json", "world", config.decisive, config.overwrite) as made_with,
        telling_what_is_kept(lambda: _kept(config)),
    ):
        return _build(config, made_with)


def _build(config: BuildCommand, made_with: Mapping[str, Any]) -> World:
    console = wide_console()

    def say(line: str) -> None:
        console.print(line, style="bold", soft_wrap=True)

    say(f"reading {config.log}")
    log, report = config.read()
    print_reading(log, report, console)
    world = build_world(log, config.settings, cleaning=report.as_dict(), progress=config.progress, say=say)
    world.save(config.out, made_with)
    print_world(world, 5, console, reading=False)
    console.print(f"\nsaved in {config.out}", soft_wrap=True)
    return world


def _kept(config: BuildCommand) -> str:
    old = "the old world stays" if config.out.exists() else f"{config.out} was not written"
    cached = "; finished fits are kept in the cache" if config.settings.use_cache else ""
    return f"{old}{cached}, the same command goes on from there"


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(BuildCommand, main)
