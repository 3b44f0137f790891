"""What a comparison of update rules says: returns, regret, forgetting, forward transfer and cost, with intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recloop.experiments.comparison.intervals import Floats, Interval, by_user, t_interval
from recloop.experiments.continual.course import Course
from recloop.experiments.continual.days import Visits
from recloop.experiments.policy_table import cells

DAY_COLUMNS = ("policy", "seed", "day", "visitors", "return", "low", "high", "oracle", "regret", "early", "cpu_seconds")
_APART = 1_000_000
"""Users of different seeds are different people."""


def summary(found: Sequence[Course], jumps: Sequence[int], against: str | None) -> list[dict[str, Any]]:
    """Rows of `what`, `policy`, `seeds`, `mean`, `low`, `high`; 95 % intervals over users of all seeds.

    | what | of |
    |---|---|
    | return, last third | rewards a visit, with exploration |
    | regret, last third | what the oracle earns from the same visitors besides, with the same luck |
    | share of oracle, first and last third | return over the oracle's, an interval over users' differences |
    | minus `against`, last third | return less that of another contender, paired by user and day |
    | forgetting | what recommenders earned right after each update, less what the last one earns from the same users |
    | forward transfer | return, and share of the oracle's, on days of a sudden change, before any update |
    | cpu seconds | of all updates, fits of Fisher information included; over seeds |
    | series error, forecast and mean | root mean square error of log-odds; over seeds |

    Args:
        found: all contenders of all seeds.
        jumps: days of sudden changes.
        against: a contender that others are paired with; None for none.
    """
    rules = list(dict.fromkeys(course.rule for course in found))
    rows = []
    for rule in rules:
        mine = [course for course in found if course.rule == rule]
        first, last = _thirds(mine[0])
        told = {
            "return, last third": _over_users(mine, last, lambda v: v.earned),
            "regret, last third": _over_users(mine, last, lambda v: v.best - v.earned),
            "share of oracle, first third": _share(mine, first),
            "share of oracle, last third": _share(mine, last),
            "forgetting": _forgetting(mine),
            "cpu seconds": _over_seeds([course.seconds[-1] for course in mine]),
        }
        if jumps:
            told["forward transfer, return"] = _over_users(mine, jumps, lambda v: v.earned)
            told["forward transfer, share of oracle"] = _share(mine, jumps)
        if against is not None and rule != against:
            theirs = {
                (c.seed, day): v for c in found if c.rule == against for day, v in zip(c.days, c.visits, strict=True)
            }
            told[f"minus {against}, last third"] = _paired(mine, last, theirs)
        errors = np.array([np.mean(course.series, axis=0) for course in mine if course.series])
        if len(errors):
            told["series error, forecast"] = _over_seeds(errors[:, 0])
            told["series error, mean"] = _over_seeds(errors[:, 1])
        rows += cells([(what, rule, value) for what, value in told.items()], 4, seeds=len(mine))
    return rows


def day_rows(found: Sequence[Course]) -> list[dict[str, Any]]:
    """A row a contender, seed and day, of `DAY_COLUMNS`; intervals over the day's visitors."""
    rows = []
    for course in found:
        for day, visits, seconds in zip(course.days, course.visits, course.seconds, strict=True):
            interval = t_interval(visits.earned)
            early = course.early.get(day)
            rows.append(
                {
                    "policy": course.rule,
                    "seed": course.seed,
                    "day": day,
                    "visitors": len(visits.users),
                    "return": f"{interval.mean:.4f}",
                    "low": f"{interval.low:.4f}",
                    "high": f"{interval.high:.4f}",
                    "oracle": f"{visits.best.mean():.4f}",
                    "regret": f"{(visits.best - visits.earned).mean():.4f}",
                    "early": "" if early is None else f"{early.mean():.4f}",
                    "cpu_seconds": f"{seconds:.2f}",
                }
            )
    return rows


def _thirds(course: Course) -> tuple[list[int], list[int]]:
    """The first and the last third of the days after the shared period."""
    days = [day for day in course.days if day >= min(course.early) + 1]
    third = max(1, len(days) // 3)
    return days[:third], days[-third:]


def _chosen(courses: Sequence[Course], days: Sequence[int]) -> list[tuple[Course, int, Visits]]:
    wanted = set(days)
    return [(c, day, v) for c in courses for day, v in zip(c.days, c.visits, strict=True) if day in wanted]


def _over_users(courses: Sequence[Course], days: Sequence[int], value: Callable[[Visits], Floats]) -> Interval:
    """The mean over users of all seeds of each user's mean over visits."""
    found = _chosen(courses, days)
    users = np.concatenate([v.users + c.seed * _APART for c, _, v in found])
    return _known(by_user(np.concatenate([value(v) for _, _, v in found]), users))


def _share(courses: Sequence[Course], days: Sequence[int]) -> Interval:
    """Return over the oracle's: the ratio of means, its interval that of return - ratio x oracle, by user (delta)."""
    best = _over_users(courses, days, lambda v: v.best).mean
    ratio = _over_users(courses, days, lambda v: v.earned).mean / best if best else float("nan")
    spread = _over_users(courses, days, lambda v: v.earned - ratio * v.best)
    return Interval(ratio, ratio - spread.half / best, ratio + spread.half / best)


def _paired(courses: Sequence[Course], days: Sequence[int], theirs: dict[tuple[int, int], Visits]) -> Interval:
    found = [(c, v, theirs[c.seed, day]) for c, day, v in _chosen(courses, days)]
    users = np.concatenate([v.users + c.seed * _APART for c, v, _ in found])
    return _known(by_user(np.concatenate([v.earned - other.earned for _, v, other in found]), users))


def _forgetting(courses: Sequence[Course]) -> Interval:
    """Over visits of all updates and seeds."""
    return _known(np.concatenate([course.then - course.now for course in courses]))


def _known(values: Floats) -> Interval:
    return t_interval(values) if np.isfinite(values).all() else Interval(float("nan"), float("nan"), float("nan"))


def _over_seeds(values: Sequence[float] | Floats) -> Interval:
    """Mean, least and most of a few seeds."""
    return Interval(float(np.mean(values)), float(np.min(values)), float(np.max(values)))
