"""The picture of a comparison for a README, and what all pictures share; the report draws with `charts`."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from recloop.encoders.base.names import visible
from recloop.experiments.comparison.intervals import Floats
from recloop.experiments.comparison.results import Comparison, Curve
from recloop.experiments.comparison.tracking import Tags
from recloop.experiments.report.tables import simulator_in_words

COLOURS = ("#2f6fb0", "#d9822b", "#3a8f5c", "#b8433f", "#7a5ca8", "#1f9aa5", "#a8682f", "#c2559a")
GREY = "#8a9099"
INK = "#1f2733"


def picture(comparison: Comparison) -> bytes:
    """The picture for a README: training curves beside the returns among users nobody trained on. PNG."""
    curves = trained(comparison)
    figure, axes = new_figure(2 if curves else 1, 3.6)
    if curves:
        _draw_training(axes[0], comparison)
        axes[0].set_title(f"Training in {comparison.world.name}", loc="left", fontsize=11, color=INK)
    simulator = comparison.simulators[-1]
    _draw_returns(axes[-1], comparison, simulator)
    words = simulator_in_words(comparison, simulator)
    axes[-1].set_title(f"Evaluation users, {words}", loc="left", fontsize=11, color=INK)
    return png_of(figure)


def _draw_returns(axis: Any, comparison: Comparison, simulator: str) -> None:
    for place, contender in enumerate(comparison.contenders):
        line = comparison.headline(contender.label, simulator)
        colour = GREY if contender.privileged else _colour(comparison, contender.label)
        low, high = line.value.low, line.value.high
        axis.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="round")
        axis.plot(line.value.mean, place, "o", color=colour, markersize=7)
        if contender.retrained and len(line.seeds) > 1:
            axis.plot(line.seeds, [place + 0.24] * len(line.seeds), ".", color=colour, markersize=5, alpha=0.7)
        if contender.privileged:
            axis.axvline(line.value.mean, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    middle = comparison.headline(comparison.reference, simulator).value.mean
    axis.axvline(middle, color=INK, linewidth=0.8, alpha=0.5)
    _name_rows(axis, list(comparison.labels))
    axis.set_xlabel("return an episode (95 % over users; small dots: seeds)", color=INK)


def _draw_training(axis: Any, comparison: Comparison) -> None:
    for label, curves in trained(comparison).items():
        colour = _colour(comparison, label)
        for curve in curves:
            axis.plot(*np.array(curve).T, color=colour, linewidth=0.8, alpha=0.4)
        steps, values = seed_curves(curves)
        axis.plot(steps, values.mean(0), color=colour, linewidth=2.2, label=label)
    axis.grid(True, axis="y", color="#e8ebef", linewidth=0.8)
    axis.xaxis.set_major_formatter(lambda step, place: f"{step:,.0f}")
    axis.set_xlabel("training step (thin: a seed)", color=INK)
    axis.set_ylabel("return an episode, training users", color=INK)
    axis.legend(frameon=False, loc="lower right", fontsize=9)


def trained(comparison: Comparison) -> dict[str, list[Curve]]:
    """Curves of the training return by policy."""
    found: dict[str, list[Curve]] = {}
    for label in comparison.labels:
        for seed in comparison.seeds:
            curve = comparison.curves.get((label, seed), {}).get(Tags.train_return, [])
            if len(curve) > 1:
                found.setdefault(label, []).append(list(curve))
    return found


def seed_curves(curves: Sequence[Curve]) -> tuple[Floats, Floats]:
    """Steps (n,) of the first curve, as far as all reach, and the values (S, n) of each curve there."""
    last = min(curve[-1][0] for curve in curves)
    steps = np.array([step for step, _ in curves[0] if step <= last], dtype=np.float64)
    return steps, np.array([np.interp(steps, *np.array(curve, dtype=np.float64).T) for curve in curves])


def _colour(comparison: Comparison, label: str) -> str:
    return COLOURS[comparison.labels.index(label) % len(COLOURS)]


def _name_rows(axis: Any, labels: Sequence[str]) -> None:
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)


def new_figure(panels: int, height: float, rows: int = 1) -> tuple[Any, list[Any]]:
    """A figure of `rows` x `panels` axes, in the style of all pictures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4 * panels if panels > 1 else 7.6, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, panels, i + 1) for i in range(rows * panels)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        for side in ("left", "bottom"):
            axis.spines[side].set_color("#c7ccd3")
        axis.tick_params(colors=INK, labelsize=9)
        axis.grid(True, axis="x", color="#e8ebef", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def png_of(figure: Any) -> bytes:
    """A figure as PNG; a name with dollars in it is no formula, the numbers of an axis may be one."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if text.get_text():  # what axes count by is written when the figure is drawn
            text.set_parse_math(False)
            text.set_text(visible(text.get_text(), keep="\n"))
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
