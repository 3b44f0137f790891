"""Cost against growth, on logarithmic axes: what a user-step takes as the batch and the catalogue grow."""

from collections.abc import Callable, Sequence

import numpy as np

from recloop.experiments.bench.timing import Row
from recloop.experiments.report.pictures import COLOURS, GREY, INK, new_figure, png_of

_Size = Callable[[Row], int]


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
