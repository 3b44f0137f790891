"""What the state costs a step and user, after short and long histories; and is it that of the whole history?

    python -m recloop.experiments.bench.state
    python -m recloop.experiments.bench.state --lengths 10 100 1000 10000 --batch 4096

Beside it stands what encoding the history anew at every step would cost. The encoder has the default parts, six
relations and random weights: cost does not depend on what was learned. All in one run: read the ratios.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.state.config import EncoderState, StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.results_table import keep_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least

_FIGURES = ("history", "step_us", "ratio", "encode_anew_us", "largest_difference")
COLUMNS = ("data", *_FIGURES, "batch", "items", "command", "commit")


@dataclass(frozen=True)
class BenchStateConfig:
    """Time the state encoder after histories of several lengths."""

    lengths: tuple[int, ...] = (10, 100, 1000)
    """Items consumed before the step that is timed."""
    batch: int = 256
    """Users at once."""
    items: int = 10_000
    """Items of the catalogue."""
    slate: int = 10
    """Items shown a step; a third of them are consumed."""
    repeats: int = 30
    """Steps that are timed; the median counts."""
    threads: int = 1
    """Torch threads."""
    out: Path | None = None
    """CSV to write."""

    def __post_init__(self) -> None:
        if min(self.lengths, default=0) < 1:
            raise RecloopError(f"--lengths {list(self.lengths)}; give one length or more, each at least 1")
        at_least(1, batch=self.batch, items=self.items, slate=self.slate, repeats=self.repeats, threads=self.threads)


@torch.no_grad()
def main(config: BenchStateConfig) -> list[dict[str, float]]:
    """Print the table; write the CSV where one is asked for."""
    use_threads(config.threads)
    draw = torch.Generator().manual_seed(0)
    encoder = _encoder(config.items, draw)
    profile = torch.zeros(config.batch, 0)
    warm = []
    for length in config.lengths:
        history = torch.randint(config.items, (config.batch, length), generator=draw)
        feedback = torch.rand(config.batch, length, 1, generator=draw)
        warm.append((length, history, feedback, encoder.start(profile, history, feedback)))
    shown = torch.randint(config.items, (config.batch, config.slate), generator=draw)
    consumed = torch.rand(config.batch, config.slate, generator=draw) < 1 / 3
    slate = torch.where(consumed, shown, config.items)
    signals = consumed.unsqueeze(2).float()
    # Taken in turn, so that a busy neighbour slows every length alike.
    steps: dict[int, list[float]] = {length: [] for length in config.lengths}
    for _ in range(config.repeats):
        for length, _, _, state in warm:
            steps[length].append(_seconds(partial(_step, encoder, state, slate, signals)))
    rows = []
    for length, history, feedback, _ in warm:
        again = min(_seconds(partial(encoder.start, profile, history, feedback)) for _ in range(3))
        rows.append(
            {
                "history": length,
                "step_us": float(np.median(steps[length])) / config.batch * 1e6,
                "encode_anew_us": again / config.batch * 1e6,
                "largest_difference": _difference(encoder, history[:32], feedback[:32]),
            }
        )
    for row in rows:
        row["ratio"] = row["step_us"] / rows[0]["step_us"]
    _print(rows, config)
    if config.out is not None:
        _write(rows, config, config.out)
    return rows


def _encoder(items: int, draw: torch.Generator) -> StateEncoder:
    tables = torch.randn(items + 1, 6, 64, generator=draw)
    tables[items] = 0
    names = ("actor", "genre", "country", "language", "director", "writer")
    return StateEncoder(torch.randn(items, 64, generator=draw), [(0.0, 1.0)], 0, names, tables, StateEncoderConfig())


def _difference(encoder: StateEncoder, history: torch.Tensor, feedback: torch.Tensor) -> float:
    """The largest, of any entry, between the state that went along item by item and the encoding of the whole."""
    state = encoder.blank(torch.zeros(len(history), 0))
    for place in range(history.shape[1]):
        state = encoder.advance(state, history[:, place : place + 1], feedback[:, place : place + 1])
    whole = encoder.start(torch.zeros(len(history), 0), history, feedback)
    return float((encoder.vector(state) - encoder.vector(whole)).abs().max())


def _step(encoder: StateEncoder, state: EncoderState, slate: torch.Tensor, signals: torch.Tensor) -> torch.Tensor:
    return encoder.vector(encoder.advance(state, slate, signals))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _print(rows: list[dict[str, float]], config: BenchStateConfig) -> None:
    title = (
        f"state encoder, {config.batch} users, {config.items} items, slates of {config.slate}, {config.threads} thread"
    )
    table = Table(title=title, title_justify="left")
    for name in ("history", "a step, µs a user", "ratio", "encoding anew, µs a user", "largest difference"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['history']:.0f}", f"{row['step_us']:.1f}", f"{row['ratio']:.2f}", f"{row['encode_anew_us']:.1f}",
            f"{row['largest_difference']:.1e}",
        )  # fmt: skip
    wide_console().print(table)


def _write(rows: list[dict[str, float]], config: BenchStateConfig, path: Path) -> None:
    source = {"batch": config.batch, "items": config.items, **made_by()}
    figures = [{name: f"{value:.6g}" for name, value in row.items()} for row in rows]
    keep_rows(path, COLUMNS, "made up", [{**row, **source} for row in figures])


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(BenchStateConfig, main)
