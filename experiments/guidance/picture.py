"""The frontier: what policies earn against what they give."""

from collections.abc import Mapping
from pathlib import Path

from recloop.encoders.base.storage import replacing_file
from recloop.experiments.comparison.intervals import Interval
from recloop.experiments.report.pictures import COLOURS, INK, new_figure, png_of

_FLOOR = " >= "
"""Stands in the name of a policy that was trained under a floor."""


def save_frontier(path: Path, world: str, given: str, points: Mapping[str, tuple[Interval, Interval]]) -> None:
    """A PNG with a cross of intervals a policy; those trained under floors are joined by a line, in their order.

    Args:
        path: replaced whole.
        world: its name, for the title.
        given: what the axis to the right is.
        points: by policy what it gives and what it earns.
    """
    figure, (axis,) = new_figure(1, 4.6)
    floors = [name for name in points if _FLOOR in name]
    axis.plot(*([points[name][at].mean for name in floors] for at in (0, 1)), color=INK, linewidth=0.8, zorder=1)
    for number, (name, (gives, earns)) in enumerate(points.items()):
        axis.errorbar(
            gives.mean,
            earns.mean,
            xerr=[[gives.mean - gives.low], [gives.high - gives.mean]],
            yerr=[[earns.mean - earns.low], [earns.high - earns.mean]],
            fmt="s" if name in floors else "o",
            color=COLOURS[number % len(COLOURS)],
            label=name,
            markersize=5,
            elinewidth=0.9,
        )
    axis.set_xlabel(f"{given} (95 % over users)", color=INK)
    axis.set_ylabel("return an episode", color=INK)
    axis.set_title(f"{world}: what is earned, and what is given", color=INK, fontsize=11, loc="left")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    with replacing_file(path) as part:
        part.write_bytes(png_of(figure))
