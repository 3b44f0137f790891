"""Pictures of a fidelity report: calibration curves, and what simulated and logged sessions look like."""

from typing import Any

from recloop.envs.evidence.fidelity import Curve, FidelityReport
from recloop.experiments.report.pictures import COLOURS, GREY, INK, new_figure, png_of


def fidelity_picture(report: FidelityReport) -> bytes | None:
    """A panel for each curve of a report. PNG; None where there are none."""
    if not report.curves:
        return None
    columns = min(len(report.curves), 4)
    rows = -(-len(report.curves) // columns)
    figure, axes = new_figure(columns, 2.9 * rows, rows=rows)
    for axis, curve in zip(axes, report.curves, strict=False):
        if curve.kind == "calibration":
            _draw_calibration(axis, curve)
        else:
            _draw_distribution(axis, curve)
    for axis in axes[len(report.curves) :]:
        axis.set_visible(False)
    figure.suptitle(f"{report.simulator} of {report.world}", x=0.01, ha="left", fontsize=11, color=INK)
    return png_of(figure)


def _draw_calibration(axis: Any, curve: Curve) -> None:
    low, high = min(*curve.x, *curve.logged), max(*curve.x, *curve.logged)
    axis.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axis.plot(curve.x, curve.logged, "o-", color=COLOURS[0], linewidth=2, markersize=5)
    axis.set_xlabel("predicted", color=INK)
    axis.set_ylabel("logged", color=INK)
    axis.set_title(f"calibration: {curve.name}", loc="left", fontsize=10, color=INK)


def _draw_distribution(axis: Any, curve: Curve) -> None:
    axis.step(curve.x, curve.logged, where="post", color=INK, linewidth=1.8, label="logged")
    axis.step(curve.x, curve.simulated, where="post", color=COLOURS[1], linewidth=1.8, label="simulated")
    axis.set_ylabel("share", color=INK)
    axis.set_title(curve.name.replace("_", " "), loc="left", fontsize=10, color=INK)
    axis.legend(frameon=False, fontsize=8)
