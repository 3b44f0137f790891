"""How fast is it here? Every figure beside a reference measured in the same run, turn by turn.

    recloop bench env
    recloop bench env --quick
    recloop bench env --families recurrent --batches 1024 4096 --items 10000 --out runs/bench
    recloop bench env --world worlds/ml-100k --no-memory
    recloop bench env --device cuda --keep experiments/results/speed.csv
    recloop bench text
    recloop bench train

`env`: user-steps a second, and what the machine would allow at most. `text`: texts a second. `train`: our PPO against
Stable-Baselines3's. Worlds are made up at the default sizes of `recloop build` unless `--world` names one.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.box import MARKDOWN
from rich.table import Table

from recloop.encoders.base.storage import replacing_file
from recloop.experiments.bench.env import BenchEnvConfig, Bound, bench_env
from recloop.experiments.bench.memory import Footprint
from recloop.experiments.bench.text import BenchTextConfig, bench_text
from recloop.experiments.bench.timing import Row, keep, write_rows
from recloop.experiments.bench.train import BenchTrainConfig, bench_train
from recloop.experiments.output import checked_out
from recloop.experiments.provenance import provenance
from recloop.experiments.report.pictures import COLOURS, GREY, INK, new_figure, png_of
from recloop.experiments.report.tables import PlainConsole, wide_console

_WIDTH = 200
_Size = Callable[[Row], int]


@tyro.conf.configure(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
@dataclass(frozen=True)
class BenchCommand:
    """Measure speed beside references in the same run."""

    what: (
        Annotated[BenchEnvConfig, tyro.conf.subcommand("env")]
        | Annotated[BenchTrainConfig, tyro.conf.subcommand("train")]
        | Annotated[BenchTextConfig, tyro.conf.subcommand("text")]
    )


def main(command: BenchCommand) -> list[Row]:
    """Measure and print; write where `--out` and `--keep` say so."""
    config = command.what
    if config.out is not None:
        checked_out(config.out, "bench.json", "benchmark")
    if isinstance(config, BenchTextConfig):
        return _told(bench_text(config), {}, config.out, config.keep, config.device)
    if isinstance(config, BenchTrainConfig):
        return _told(bench_train(config), {}, config.out, config.keep, config.device)
    figures = bench_env(config)
    facts = {name: value for name, value in asdict(figures).items() if name != "rows"}
    rows = _told(figures.rows, facts, config.out, config.keep, config.device)
    if figures.bounds:
        _console().print(_bounds_table(figures.bounds))
    if figures.footprints:
        _console().print(_footprints_table(figures.footprints))
    return rows


def _console() -> PlainConsole:
    """The terminal, or lines as long as they need to be where the output goes to a file: a table there is Markdown."""
    return wide_console(_WIDTH)


def _told(rows: list[Row], facts: dict[str, Any], out: Path | None, kept: Path | None, device: str) -> list[Row]:
    """Print rows, write them, and put them where they are kept."""
    _console().print(rows_table(rows))
    if out is not None:
        write_rows(rows, out, {**facts, "provenance": provenance(device)})
        picture = growth_picture(rows)
        if picture is not None:
            with replacing_file(out / "growth.png") as part:
                part.write_bytes(picture)
    if kept is not None:
        keep(rows, kept)
    return rows


def rows_table(rows: list[Row]) -> Table:
    """A row a figure; the ratio is green where it reaches its aim, red where it does not."""
    first = rows[0]
    title = f"median rates, slates of {first.slate}, {first.device}, {first.threads} thread(s)" if first.slate else ""
    table = Table(title=title, title_justify="left", box=MARKDOWN)
    table.add_column("what", no_wrap=True)
    for name in ("batch", "items", "value", "unit", "µs", "ratio", "aim"):
        table.add_column(name, justify="right")
    table.add_column("reference, a second")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        if row.aim is not None and row.ratio is not None:
            ratio = f"[{'green' if row.ratio >= row.aim else 'red'}]{ratio}[/]"
        value = f"{row.value:,.0f}" if row.value >= 1000 else f"{row.value:.4g}"
        cost = f"{1e6 / row.value:,.2f}" if row.unit.endswith("/s") else ""
        aim = "" if row.aim is None else f"{row.aim:.3g}"
        items = f"{row.items:,}" if row.items else ""
        table.add_row(row.what, f"{row.batch:,}", items, value, row.unit, cost, ratio, aim, row.reference)
    return table


def _bounds_table(bounds: list[Bound]) -> Table:
    """What a user-step takes beside what the machine gave in the same turns."""
    table = Table(title="bounds of a step, counted as it runs eagerly", title_justify="left", box=MARKDOWN)
    table.add_column("what", no_wrap=True)
    names = ("kFLOP", "kB moved", "kB at least", "kernels", "GFLOP/s", "GB/s", "value", "of bound", "of kernels' bound")
    for name in names:
        table.add_column(name, justify="right")
    for one in bounds:
        found = one.machine
        table.add_row(
            one.what, f"{one.cost.flops / 1e3:,.1f}", f"{one.cost.traffic / 1e3:,.1f}",
            f"{one.cost.compulsory / 1e3:,.1f}", f"{one.cost.kernels:,}", f"{found.flops / 1e9:,.1f}",
            f"{found.bandwidth / 1e9:,.1f}", f"{one.value:,.0f}", f"{one.value / one.cost.bound(found):.2f}",
            f"{one.value / one.cost.bound(found, traffic=True):.2f}",
        )  # fmt: skip
    return table


def _footprints_table(footprints: list[Footprint]) -> Table:
    table = Table(title="memory and making, CPU, one process a world", title_justify="left", box=MARKDOWN)
    for name in ("items", "made in s", "prepared in s", "peak GiB", "B an item", "B a lane"):
        table.add_column(name, justify="right")
    for one in footprints:
        table.add_row(
            f"{one.items:,}", f"{one.make_seconds:.1f}", f"{one.prepare_seconds:.1f}",
            f"{one.peak_bytes / 2**30:.2f}", f"{one.item_bytes:,.0f}", f"{one.lane_bytes:,.0f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(BenchCommand, main)


def growth_picture(rows: Sequence[Row]) -> bytes | None:
    """PNG of microseconds a user-step over lanes (left) and over items (right); None where nothing grows.

    A line a kind of row that was measured at several sizes; the bare NumPy loop beside them is grey.
    """
    rows = [row for row in rows if row.unit == "user-steps/s" and row.reference]
    panels: list[tuple[str, str, _Size, _Size]] = [
        ("lanes at once", "items", lambda row: row.batch, lambda row: row.items),
        ("items of the catalogue", "lanes", lambda row: row.items, lambda row: row.batch),
    ]
    found = [
        (label, f"{home:,} {other}", growing, _series(rows, growing, fixed, home))
        for label, other, growing, fixed in panels
        for home in [_home(rows, fixed)]
    ]
    grown = [panel for panel in found if panel[3]]
    if not grown:
        return None
    figure, axes = new_figure(len(grown), 4.2)
    names = list(dict.fromkeys(name for *_, series in grown for name in series))
    for axis, (label, title, growing, series) in zip(axes, grown, strict=True):
        axis.set_title(title, color=INK, fontsize=10)
        for name, points in series.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            axis.plot(*zip(*points, strict=True), "-o", color=colour, markersize=4.5, linewidth=1.8, label=name)
        bound: dict[int, list[float]] = {}
        for row in rows:
            if _loop(row) and row.what in series:
                bound.setdefault(growing(row), []).append(1e6 / float(_loop(row)))
        if bound:
            sizes, costs = zip(*((size, float(np.median(found))) for size, found in sorted(bound.items())), strict=True)
            axis.plot(sizes, costs, "--", color=GREY, linewidth=1.4, label="bare NumPy loop")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.grid(True, which="major", axis="both", color="#e8ebef", linewidth=0.8)
        axis.set_xlabel(label, color=INK)
        axis.set_ylabel("µs a user-step", color=INK)
        axis.legend(frameon=False, fontsize=7.5, loc="best")
    return png_of(figure)


def _home(rows: Sequence[Row], size: _Size) -> int:
    """The size of most rows; 0 without any."""
    sizes = [size(row) for row in rows]
    return max(set(sizes), key=sizes.count, default=0)


def _series(rows: Sequence[Row], growing: _Size, fixed: _Size, home: int) -> dict[str, list[tuple[int, float]]]:
    """Points (size, µs) by what was measured at several sizes, the other size being `home`."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if fixed(row) == home:
            found.setdefault(row.what, {})[growing(row)] = 1e6 / row.value
    return {name: sorted(points.items()) for name, points in found.items() if len(points) > 1}


def _loop(row: Row) -> str:
    """The rate of the bare NumPy loop that a row was held against; empty for other references."""
    name, _, value = row.reference.rpartition(": ")
    return value.replace(",", "") if name.startswith("bare NumPy loop") else ""
