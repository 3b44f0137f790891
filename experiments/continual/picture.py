"""The picture of update rules over days: share of the oracle's return, success on an early day, and cost."""

from collections.abc import Sequence

import numpy as np

from recloop.experiments.comparison.intervals import LEVEL, Floats
from recloop.experiments.continual.course import Course
from recloop.experiments.report.pictures import COLOURS, GREY, INK, new_figure, png_of

_SMOOTH = 5
"""Days of which a point of the first panel is the mean."""


def picture(found: Sequence[Course], world: str, jumps: Sequence[int]) -> bytes:
    """Three panels side by side, all contenders in each; bands are 95 % over visits of all seeds. PNG.

    Args:
        found: all contenders of all seeds.
        world: its name, for the title.
        jumps: days of a sudden change, drawn as lines.
    """
    from scipy import stats

    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    figure, (share, early, cost) = new_figure(3, 4.4)
    for place, rule in enumerate(dict.fromkeys(course.rule for course in found)):
        mine, colour = [course for course in found if course.rule == rule], COLOURS[place % len(COLOURS)]
        days = np.array(mine[0].days)
        mean, half = _shares(mine)
        share.plot(days, mean, color=colour, linewidth=1.8, label=rule, linestyle="--" if "+" in rule else "-")
        share.fill_between(days, mean - z * half, mean + z * half, color=colour, alpha=0.12, linewidth=0)
        when = sorted(mine[0].early)
        met = [np.concatenate([course.early[day] for course in mine]) for day in when]
        middle = np.array([values.mean() for values in met])
        error = np.array([values.std(ddof=1) / np.sqrt(len(values)) for values in met])
        if "+" not in rule:  # the early day is met without the series, which knows today
            early.plot(when, middle, "o-", color=colour, linewidth=1.8, markersize=3, label=rule)
            early.fill_between(when, middle - z * error, middle + z * error, color=colour, alpha=0.12, linewidth=0)
            cost.plot(days, np.mean([course.seconds for course in mine], axis=0), color=colour, linewidth=1.8)
    for axis, title, said in (
        (share, f"{world}: return a visit / the oracle's", f"mean of {_SMOOTH} days"),
        (early, "Users set back to the first update's day", "return a visit, without exploring"),
        (cost, "Cost of the updates so far", "CPU seconds, mean of seeds"),
    ):
        axis.set_title(title, loc="left", fontsize=11, color=INK)
        axis.set_ylabel(said, color=INK)
        axis.set_xlabel("simulated day", color=INK)
        axis.grid(True, axis="y", color="#e8ebef", linewidth=0.8)
        for day in jumps:
            axis.axvline(day, color=GREY, linewidth=1, linestyle=(0, (2, 3)))
    share.legend(frameon=False, fontsize=8, ncols=2)
    return png_of(figure)


def _shares(courses: Sequence[Course]) -> tuple[Floats, Floats]:
    """The mean share of the oracle's return around each day, and its standard error over visits; (D,) each."""
    count = len(courses[0].days)
    mean, error = np.zeros(count), np.zeros(count)
    for day in range(count):
        near = slice(max(0, day - _SMOOTH // 2), day + _SMOOTH // 2 + 1)
        earned = np.concatenate([v.earned for course in courses for v in course.visits[near]])
        best = np.concatenate([v.best for course in courses for v in course.visits[near]])
        mean[day] = earned.mean() / best.mean()
        error[day] = (earned - mean[day] * best).std(ddof=1) / best.mean() / np.sqrt(len(earned))
    return mean, error
