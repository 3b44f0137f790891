"""A log of behaviour becomes a world: read, clean, encode, fit users.

    recloop build ../shared/data/ml-100k --out worlds/ml-100k
    recloop build clicks.csv --columns user=uid item=sku time=ts --signals click:binary --items-table items.csv \\
        --out worlds/shop
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from recloop.encoders.base.errors import LogError, unknown_name
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.logs.cleaning import CleaningOptions, clean
from recloop.envs.logs.readers.any import read_log
from recloop.envs.logs.readers.interactions import ColumnMapping
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.world import World
from recloop.experiments.commands.inspect import print_world
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least, checked_out


@dataclass(frozen=True)
class BuildCommand:
    """Learn a world from a log of behaviour."""

    log: tyro.conf.Positional[Path]
    """Folder or file: atomic, sequences, CSV, Parquet; MovieLens, Coat, KuaiRand, KuaiRec, MIND, Open Bandit."""
    out: Path
    """World folder to write."""
    columns: tuple[str, ...] = ()
    """Which column is what, such as user=uid item=sku time=ts; default the usual names."""
    signals: tuple[str, ...] = ()
    """The answers, the consumption first: NAME, NAME:1,2,3 (levels), NAME:0..1 (range); @OTHER where given on it."""
    items_table: Path | None = None
    """Table of items beside a CSV or Parquet log."""
    users_table: Path | None = None
    """Table of users beside a CSV or Parquet log."""
    item_relations: tuple[str, ...] = ()
    """Columns of items that become triples of a graph; default labels that items share; `none` for no graph."""
    times: Literal["behavioural", "entry", "none"] | None = None
    """What the log's times mean, where you know it; default measured."""
    bad_rows: Literal["error", "drop"] = "error"
    """Rows that cannot be read: stop, or drop and count them."""
    clean: CleaningOptions = field(default_factory=CleaningOptions)
    """What cleaning does beyond what it must."""
    settings: Annotated[BuildConfig, tyro.conf.arg(name="")] = field(default_factory=BuildConfig)
    """How the log becomes a world."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(1, threads=self.threads)


def main(config: BuildCommand) -> World:
    """Read, clean, build, save, and print the card."""
    use_threads(config.threads)
    checked_device(config.settings.device)
    checked_out(config.out, "world.json", "world")
    console = wide_console()

    def say(line: str) -> None:
        console.print(line, style="bold", soft_wrap=True)

    say(f"reading {config.log}")
    log, report = clean(_read(config), config.clean)
    console.print(str(report))
    world = build_world(log, config.settings, cleaning=report.as_dict(), progress=config.progress, say=say)
    world.save(config.out)
    print_world(world, 5, console)
    console.print(f"\nsaved in {config.out}", soft_wrap=True)
    return world


def _read(config: BuildCommand) -> LoggedBehavior:
    options: dict[str, Any] = {"on_bad_rows": config.bad_rows}
    if config.columns or config.signals:
        options["columns"] = _mapping(config.columns, config.signals)
    if config.items_table is not None:
        options["items"] = config.items_table
    if config.users_table is not None:
        options["users"] = config.users_table
    if config.item_relations:
        options["item_relations"] = () if config.item_relations == ("none",) else config.item_relations
    if config.times is not None:
        options["times"] = Times(config.times)
    return read_log(config.log, **options)


def _mapping(columns: tuple[str, ...], signals: tuple[str, ...]) -> ColumnMapping:
    named: dict[str, Any] = {}
    for part in columns:
        name, equals, column = part.partition("=")
        if not equals or not column:
            raise LogError(f"--columns {part} is not understood; write WHAT=COLUMN, such as user=uid")
        if name not in (*Columns.interactions, "time_unit"):
            raise LogError(f"--columns {part}: {unknown_name('column', name, (*Columns.interactions, 'time_unit'))}")
        named[name] = column
    return ColumnMapping(**named, signals=tuple(parsed_signal(s) for s in signals))


def parsed_signal(text: str) -> Signal:
    """A signal as the command line writes it.

    >>> parsed_signal("rating:1,2,3@click").levels
    (1.0, 2.0, 3.0)
    >>> parsed_signal("watch:0..1").range
    (0.0, 1.0)
    """
    rest, _, given_on = text.partition("@")
    name, _, values = rest.partition(":")
    try:
        if values in ("", "binary"):
            return Signal(name, given_on=given_on or None)
        if ".." in values:
            low, high = values.split("..")
            return Signal(name, "continuous", range=(float(low), float(high)), given_on=given_on or None)
        levels = tuple(float(v) for v in values.split(","))
        return Signal(name, "ordinal", levels=levels, given_on=given_on or None)
    except ValueError:
        raise LogError(
            f"--signals {text} is not understood; write NAME, NAME:1,2,3 for levels or NAME:0..1 for a range"
        ) from None


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(BuildCommand, main)
