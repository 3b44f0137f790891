"""The course of one seed: a first period that all share, then every contender by itself on the same days."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recloop.agents.baselines.planner import PlannerPolicy
from recloop.agents.baselines.random_items import RandomPolicy
from recloop.agents.policy import Policy
from recloop.envs.logs.schema import LoggedBehavior
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.comparison.intervals import Floats
from recloop.experiments.continual.days import Days, Visits
from recloop.experiments.continual.rules import SERIES, Learning, Recommender, everybody_teaches
from recloop.experiments.continual.series import ItemSeries, SeriesContext


@dataclass
class Course:
    """What one contender did, day by day.

    Args:
        rule: as it was asked for.
        seed: of everything.
        days: the number of each day.
        visits: of each day.
        seconds: CPU seconds of all updates up to and with each day.
        early: float64 (B,) what the recommender of each update earns from the visitors of the first update's day, by
            day of the update; the first entry is of the first fit.
        then, now: float64 (V,) what the recommenders of all updates but the last earned right after them, and what the
            last one earns from the same users on the same days.
        series: root mean square error of each day's forecast of the items' series, and of their plain means.
        notes: what was not done, and why.
    """

    rule: str
    seed: int
    days: list[int] = field(default_factory=list)
    visits: list[Visits] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    early: dict[int, Floats] = field(default_factory=dict)
    then: Floats = field(default_factory=lambda: np.zeros(0))
    now: Floats = field(default_factory=lambda: np.zeros(0))
    series: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Morning:
    """Where a day begins: the world with all that happened, the logs so far, and the items' series."""

    world: World
    logs: tuple[LoggedBehavior, ...]

    def after(self, visits: Visits) -> "_Morning":
        """The next morning."""
        if visits.log is None or not len(visits.log.interactions):
            return self
        return _Morning(self.world.extended(visits.log), (*self.logs, visits.log))


def courses(
    world: World,
    days: Days,
    learning: Learning,
    rules: Sequence[str],
    length: int,
    every: int,
    told: Callable[[str], Any] = lambda line: None,
) -> list[Course]:
    """One seed of all contenders.

    Days 0 to `every` - 1 show random items; on the evening of the last of them everybody gets the same first
    recommender. From then on each contender lives with its own log, and is updated on the evening of every `every`-th
    day. A day's return is that of the recommender as it was in the morning.

    Args:
        world: in whose rows the users are; its log, if any, is learned from too.
        days: who comes.
        learning: how recommenders are fitted.
        rules: the contenders.
        length: days in all.
        every: days between updates.
        told: gets a line a contender.
    """
    oracle = _oracle(days)
    start = _Morning(everybody_teaches(world), ())
    shared = Course("", days.seed)
    for day in range(every):
        visits = days.lived(start.world, RandomPolicy(), day, oracle)
        shared.days.append(day)
        shared.visits.append(visits)
        start = start.after(visits)
    first = learning.anew(start.world)
    found = []
    for rule in rules:
        course = Course(rule, days.seed, list(shared.days), list(shared.visits), [0.0] * every)
        _run(course, start, days, learning, first, length, every, oracle)
        found.append(course)
        told(f"seed {days.seed}, {rule}: {np.mean([v.earned.mean() for v in course.visits[every:]]):.3f} a visit")
    return found


def _run(
    course: Course,
    start: _Morning,
    days: Days,
    learning: Learning,
    first: Policy,
    length: int,
    every: int,
    oracle: Policy | None,
) -> None:
    """Days `every` to `length` - 1 of one contender."""
    one, morning = Recommender(course.rule.removesuffix(SERIES), learning, first, start.world), start
    series = ItemSeries(days.users.drift.released(len(start.world.catalogue)))
    for log in start.logs:
        series.add(start.world, log)
    window: list[LoggedBehavior] = []
    arenas = [(every - 1, start.world, days.met(start.world, first, every - 1))]
    course.early[every - 1] = arenas[0][2]
    for day in range(every, length):
        series.fit()
        acting = one.policy
        if course.rule.endswith(SERIES) and series.ready:
            acting = SeriesContext(acting, morning.world, series.forecast())
        visits = days.lived(morning.world, acting, day, oracle)
        morning = morning.after(visits)
        if visits.log is not None:
            window.append(visits.log)
            series.add(start.world, visits.log)
            course.series.append(series.errors())
        if (day + 1) % every == 0:
            before = morning.logs[: len(morning.logs) - len(window)]
            note = one.update(morning.world, before, window, day)
            course.notes += [note] if note else []
            window = []
            course.early[day] = days.met(start.world, one.policy, every - 1)
            arenas.append((day, morning.world, days.met(morning.world, one.policy, day)))
        course.days.append(day)
        course.visits.append(visits)
        course.seconds.append(one.seconds)
    past = arenas[:-1] or arenas
    course.then = np.concatenate([value for _, _, value in past])
    course.now = np.concatenate([days.met(world, one.policy, day) for day, world, _ in past])


def _oracle(days: Days) -> Policy | None:
    """Greedy on the truth, the best wherever what is shown changes nobody; None where users tell no utility."""
    return None if type(days.users.users).utility is UserSimulator.utility else PlannerPolicy(farsighted=False)
