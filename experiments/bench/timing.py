"""How speed is measured here: subject and reference in turn, warm-up dropped, medians; and the rows that come of it.

On one thread of a CPU the process's own time counts, so that a busy neighbour takes none of it; else the wall's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recloop.encoders.base.storage import write_json
from recloop.experiments.provenance import made_by
from recloop.experiments.report.results_table import replace_rows

Floats = npt.NDArray[np.float64]

COLUMNS = (
    "what", "batch", "items", "slate", "device", "threads", "value", "unit", "reference", "ratio", "aim", "command",
    "commit",
)  # fmt: skip
"""Of `experiments/results/speed.csv`."""
_KEY = ("what", "batch", "items", "slate", "device", "threads", "unit")
"""Columns that say what was measured."""


@dataclass(frozen=True)
class Paced:
    """Something that is timed.

    Args:
        name: in words.
        batch: user-steps (or texts, or whatever the unit counts) that one call of `step` makes.
        step: makes them.
        device: what to wait for before the clock is read.
    """

    name: str
    batch: int
    step: Callable[[], object]
    device: str = "cpu"


@dataclass(frozen=True)
class Pace:
    """How long a measurement takes.

    Args:
        repeats: turns; the median counts.
        seconds: one turn of one side lasts at least so long.
    """

    repeats: int = 7
    seconds: float = 0.15


@dataclass(frozen=True)
class Row:
    """One measured figure; the fields are the columns of the CSV.

    Args:
        what: in words.
        batch, items, slate: sizes; 0 where there is no such thing.
        device, threads: it ran on.
        value: the median, in `unit`.
        reference: what it is held against and its median, in words; empty without.
        ratio: median over turns of value by reference; None without.
        aim: least ratio (or value, where the reference says so) that is asked for; None where nothing is.
    """

    what: str
    batch: int
    items: int
    slate: int
    device: str
    threads: int
    value: float
    unit: str = "user-steps/s"
    reference: str = ""
    ratio: float | None = None
    aim: float | None = None


def in_turn(sides: Sequence[Paced], pace: Pace) -> Floats:
    """What each side makes a second, (repeats, sides): one turn after the other, so that a busy neighbour slows all."""
    calls = [_calls(side, pace.seconds) for side in sides]
    turns = range(pace.repeats)
    return np.array([[s.batch * n / _seconds(s, n) for s, n in zip(sides, calls, strict=True)] for _ in turns])


def against(subject: Paced, reference: Paced, pace: Pace) -> tuple[float, float, float]:
    """Medians of both rates, and of their ratio turn by turn."""
    rates = in_turn((subject, reference), pace)
    return float(np.median(rates[:, 0])), float(np.median(rates[:, 1])), float(np.median(rates[:, 0] / rates[:, 1]))


def _calls(side: Paced, seconds: float) -> int:
    """Calls that last so long; what comes first (allocation, compilation) is not timed."""
    _seconds(side, 2)
    return max(1, round(seconds / max(_seconds(side, 1), 1e-9)))


def _seconds(side: Paced, calls: int) -> float:
    alone = side.device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    _wait(side.device)
    start = clock()
    for _ in range(calls):
        side.step()
    _wait(side.device)
    return clock() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def write_rows(rows: list[Row], folder: Path, facts: dict[str, Any]) -> None:
    """`bench.json`, which has the `facts` too, and `bench.csv`, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench.json", {**facts, "rows": [asdict(row) for row in rows]})
    (folder / "bench.csv").unlink(missing_ok=True)
    keep(rows, folder / "bench.csv")


def keep(rows: list[Row], path: Path) -> None:
    """Put rows into a CSV file in place of those that measured the same; the others stay."""
    source = made_by()
    replace_rows(path, COLUMNS, _KEY, [{**_written(row), **source} for row in rows])


def _written(row: Row) -> dict[str, Any]:
    figures = {
        name: "" if value is None else f"{value:.4g}" for name, value in (("ratio", row.ratio), ("aim", row.aim))
    }
    return {**asdict(row), "value": f"{row.value:.6g}", **figures}
