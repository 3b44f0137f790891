"""Cost against growth, on logarithmic axes: what a user-step takes as the batch and the catalogue grow."""

from collections.abc import Callable, Sequence

import numpy as np

from recloop.experiments.bench_timing import Row
from recloop.experiments.pictures import COLOURS, GREY, INK, new_figure, png_of


def growth_picture(rows: Sequence[Row]) -> bytes | None:
    """PNG of microseconds a user-step over lanes (left) and over items (right); None where nothing grows.

    A line a kind of row that was measured at several sizes; the bare NumPy loop beside them is grey.
    """
    rows = [row for row in rows if row.unit == "user-steps/s" and row.batch and row.items]
    panels: list[tuple[str, Callable[[Row], int], Callable[[Row], int]]] = [
        ("lanes at once", lambda row: row.batch, lambda row: row.items),
        ("items of the catalogue", lambda row: row.items, lambda row: row.batch),
    ]
    grown = [(label, growing, _series(rows, growing, fixed)) for label, growing, fixed in panels]
    grown = [panel for panel in grown if panel[2]]
    if not grown:
        return None
    figure, axes = new_figure(len(grown), 4.2)
    names = sorted({name for _, _, series in grown for name in series})
    for axis, (label, growing, series) in zip(axes, grown, strict=True):
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


def _series(
    rows: Sequence[Row], growing: Callable[[Row], int], fixed: Callable[[Row], int]
) -> dict[str, list[tuple[int, float]]]:
    """Points (size, µs) by what was measured at several sizes, the other size being that of most rows."""
    sizes = [fixed(row) for row in rows]
    home = max(set(sizes), key=sizes.count)
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if fixed(row) == home:
            found.setdefault(row.what, {})[growing(row)] = 1e6 / row.value
    return {name: sorted(points.items()) for name, points in found.items() if len(points) > 1}


def _loop(row: Row) -> str:
    """The rate of the bare NumPy loop that a row was held against; empty for other references."""
    name, _, value = row.reference.rpartition(": ")
    return value.replace(",", "") if name.startswith("bare NumPy loop") else ""
