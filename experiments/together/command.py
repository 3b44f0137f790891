"""Policies before groups of users: who is served, how evenly, and what becomes of the long tail and small segments.

    recloop groups clicks --sizes 2 5 8 --policies content --learners recloop-ppo --seeds 3
    recloop groups worlds/ml-100k --formation similar --policies encoder sasrec user-model --out groups.csv

Groups are formed of the users of a world and their evaluate part is what policies meet: the same groups with the same
luck for all. Single-user policies are asked for every member and put together by each aggregator; learners are trained
in the world of groups, once for each reward. In a truth world the aggregators are also given what members truly want.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
import tyro
from rich.table import Table

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import facts_of, make_policy
from recloop.agents.together.aggregation import AGGREGATORS, aggregator
from recloop.agents.together.policy import USER_MODEL, TrueTastesPolicy, for_groups, put_together
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.names import csv_text
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import replacing_file
from recloop.envs.users.together.forming import grouped, members_of
from recloop.envs.users.together.rewards import group_reward
from recloop.envs.world.world import World
from recloop.experiments.asked import named_world
from recloop.experiments.comparison.evaluate import Evaluator, Floats, Rollout
from recloop.experiments.comparison.intervals import Interval, t_interval
from recloop.experiments.comparison.segments import FEWEST_USERS
from recloop.experiments.policy_table import COLUMNS
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least
from recloop.experiments.together.measures import MEASURES, by_group, segment_figures, segments_of

NOTE = (
    "95 % over groups, for these trained policies, each interval for itself. mean: items a member takes; least misery: "
    "items that the member takes who takes least, slate by slate; fair: mean log(1 + items); worst off: items of the "
    "member who got least of the episode; jain: 1 where all get alike. fair apart: from {reference}, group by group. "
    "tail: share shown outside the most popular fifth."
)

COMPARED = ("mean", "least-misery", "fair")
"""Measures whose paired differences to the reference stand in the CSV file."""

Job = tuple[str, int, Policy]
"""Label, seed and policy."""


@dataclass(frozen=True)
class GroupsConfig:
    """Form groups of a world's users and hold policies and aggregators against each other."""

    world: tyro.conf.Positional[str]
    """World folder, or the name of a truth world."""
    sizes: tuple[int, ...] = (2, 5, 8)
    """Members a group."""
    formation: Literal["random", "similar", "family"] = "random"
    """Who sits together."""
    plain: tuple[str, ...] = ("random", "popularity")
    """Policies that act on the group as it is."""
    policies: tuple[str, ...] = ("content",)
    """Single-user policies that score items, or user-model; each is asked for every member."""
    aggregators: tuple[str, ...] = tuple(AGGREGATORS)
    """How the members' wishes are put together."""
    learners: tuple[str, ...] = ()
    """Policies trained in the world of groups, such as recloop-ppo."""
    rewards: tuple[str, ...] = ("mean", "least-misery", "fair")
    """What learners are trained for, each for itself."""
    steps: int = 20_000
    """Environment steps of each training in the loop."""
    seeds: int = 3
    """Trainings of each policy that learns with randomness."""
    episodes: int | None = None
    """Episodes a policy is evaluated on, going round the groups; default one a group, twenty at least."""
    simulator: str | None = None
    """Simulator to evaluate in; default the first judge, or the truth."""
    reference: str | None = None
    """Policy that the others are compared to, group by group; default the first single-user one by the first
    aggregator."""
    users: int = 3000
    """Users of a truth world."""
    seed: int = 0
    """Of who sits together, and of the users' luck."""
    out: Path | None = None
    """CSV file of all figures; nothing is written without one."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds, steps=self.steps, threads=self.threads, users=self.users)
        at_least(2, episodes=self.episodes)
        for size in self.sizes:
            at_least(1, sizes=size)
        for name in ("sizes", "policies", "aggregators"):
            if not getattr(self, name):
                raise RecloopError(f"nothing to compare: name something after --{name}")
        for how in self.aggregators:
            aggregator(how)
        for reward in self.rewards:
            group_reward(reward)
        if self.out is not None and self.out.is_dir():
            raise RecloopError(f"--out {self.out} is a folder; name a CSV file")

    @property
    def against(self) -> str:
        """The label of the reference."""
        return self.reference or f"{self.policies[0]}/{self.aggregators[0]}"

    def check_reference(self, truth: bool) -> None:
        """`RecloopError` where the reference is none of the policies, before anything is made."""
        names = (*self.policies, "true-tastes") if truth else self.policies
        labels = [*self.plain, *(f"{name}/{how}" for name in names for how in self.aggregators)]
        labels += [f"{name} for {reward}" for name in self.learners for reward in self.rewards]
        if self.against not in labels:
            raise RecloopError(unknown_name("reference policy", self.against, labels))


def main(config: GroupsConfig) -> pd.DataFrame:
    """Form groups of every size, let every policy act, print two tables a size, write the CSV file; all figures."""
    use_threads(config.threads)
    single = named_world(config.world, users=config.users)
    config.check_reference(single.is_truth)
    there = len(single.users.rows("evaluate"))
    if 2 * max(config.sizes) > there:
        raise RecloopError(
            f"--sizes {max(config.sizes)}: groups are formed of the {there} evaluate users of world '{single.name}', "
            f"and an interval needs two groups; choose sizes up to {there // 2}"
        )
    worlds = {size: grouped(single, size, config.formation, "least-misery", config.seed) for size in config.sizes}
    scorers = [(name, seed, policy) for name in config.policies for seed, policy in _fitted(name, single, config)]
    console, rows = wide_console(), []
    for size, world in worlds.items():
        simulator = config.simulator or next(iter(world.judges), world.training_simulator)
        groups = len(world.users.rows("evaluate"))
        arena = Evaluator(world, simulator, episodes=config.episodes or max(groups, 20), seed=config.seed)
        found: dict[str, list[Rollout]] = {}
        for label, seed, policy in progress_bar(
            _jobs(world, config, scorers), desc=f"groups of {size}", unit="policy", disable=not config.progress
        ):
            found.setdefault(label, []).append(arena.run(policy, policy_seed=seed))
        told = _Told(f"{config.formation} groups of {size}", single, world, simulator, found, config.against)
        for table in (told.measures(), told.segments()):
            console.print(table)
        rows += told.rows()
    made = made_by()
    frame = pd.DataFrame([(*row, *made.values()) for row in rows], columns=list(COLUMNS))
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(config.out) as part:
            part.write_text(csv_text([COLUMNS, *frame.itertuples(index=False)]), encoding="utf-8")
        console.print(f"written to {config.out}", soft_wrap=True)
    return frame


def _seeds(name: str, config: GroupsConfig) -> range:
    return range(1 if name == USER_MODEL or facts_of(name).deterministic else config.seeds)


def _fitted(name: str, single: World, config: GroupsConfig) -> Iterator[tuple[int, Policy | None]]:
    """A single-user policy, once a seed; None for the user model, which the world holds."""
    for seed in _seeds(name, config):
        steps = config.steps if name != USER_MODEL and facts_of(name).trains == "loop" else None
        yield seed, None if name == USER_MODEL else make_policy(name, single, FitOptions(seed=seed, steps=steps))


def _jobs(world: World, config: GroupsConfig, scorers: list[tuple[str, int, Policy | None]]) -> Iterator[Job]:
    """Every policy for the groups of one world, made when it is its turn."""
    for name in config.plain:
        for seed in _seeds(name, config):
            yield name, seed, make_policy(name, world, FitOptions(seed=seed))
    for how in config.aggregators:
        for name, seed, scorer in scorers:
            policy = for_groups(world, USER_MODEL, how) if scorer is None else put_together(world, scorer, how)
            yield f"{name}/{how}", seed, policy
        if world.is_truth:
            yield f"true-tastes/{how}", 0, TrueTastesPolicy(how)
    for name in config.learners:
        for reward in config.rewards:
            asked = replace(world, reward=group_reward(reward))
            for seed in range(config.seeds):
                yield f"{name} for {reward}", seed, make_policy(name, asked, FitOptions(seed=seed, steps=config.steps))


class _Told:
    """What is said of all policies before the groups of one world."""

    def __init__(
        self, groups: str, single: World, world: World, simulator: str, found: dict[str, list[Rollout]], reference: str
    ) -> None:
        members = members_of(world)
        self.groups, self.found, self.reference, self.single = groups, found, reference, single
        self.title = f"{single.name}, {simulator}: {len(found[reference][0].users)} episodes of {groups}"
        self.values = {label: by_group(rollouts, members.shape[1]) for label, rollouts in found.items()}
        segments = segments_of(single)
        self.figures = {label: segment_figures(rollouts, members, segments) for label, rollouts in found.items()}

    def measures(self) -> Table:
        """Policies in rows, measures in columns."""
        table = self._table(
            self.title,
            NOTE.format(reference=self.reference),
            ("policy", "seeds", *(name.replace("-", " ") for name in MEASURES), "fair apart", "tail", "cover"),
        )
        for label in self.found:
            apart = "-" if label == self.reference else _cell(self._apart(label, "fair"), "+")
            sure = [_cell(t_interval(self.values[label][name])) for name in MEASURES]
            tail, coverage = self._population(label)
            seeds = len(self.found[label])
            table.add_row(label, str(seeds), *sure, apart, f"{tail:.0%}", f"{coverage:.0%}")
        return table

    def segments(self) -> Table:
        """Policies in rows, segments and how many users each has in columns."""
        names = [f"{one.segment} ({one.users:,})" for one in self.figures[self.reference]]
        note = f"Items a member takes, 95 % over groups; segments of fewer than {FEWEST_USERS} users have means alone."
        table = self._table(f"{self.title}: by segment", note, ("policy", *names))
        for label, figures in self.figures.items():
            table.add_row(label, *(f"{f.mean:.2f}" if f.value is None else _cell(f.value) for f in figures))
        return table

    def rows(self) -> list[tuple[object, ...]]:
        """For the CSV file, without command and commit; `what` names the groups and the measure or segment."""
        found: list[tuple[object, ...]] = []
        for label in self.found:
            row = partial(self._row, label)
            for name in MEASURES:
                sure = t_interval(self.values[label][name])
                found.append(row(name, sure.mean, sure))
                if name in COMPARED and label != self.reference:
                    apart = self._apart(label, name)
                    found.append(row(f"{name} minus {self.reference}", apart.mean, apart))
            for name, value in zip(("tail", "coverage"), self._population(label), strict=True):
                found.append(row(name, value, None))
            for one in self.figures[label]:
                found.append(row(f"items of members: {one.segment} ({one.users} users)", one.mean, one.value))
        return found

    def _table(self, title: str, caption: str, names: Sequence[str]) -> Table:
        table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
        for name in names:
            table.add_column(name, justify="left" if name == "policy" else "right", overflow="fold")
        table.columns[0].no_wrap = True
        return table

    def _row(self, label: str, what: str, mean: float, sure: Interval | None) -> tuple[object, ...]:
        ends = ("", "") if sure is None else (f"{sure.low:.4f}", f"{sure.high:.4f}")
        return f"{self.groups}: {what}", self.single.name, label, len(self.found[label]), f"{mean:.4f}", *ends

    def _apart(self, label: str, measure: str) -> Interval:
        apart: Floats = self.values[label][measure] - self.values[self.reference][measure]
        return t_interval(apart)

    def _population(self, label: str) -> tuple[float, float]:
        """Long-tail share and coverage, mean over seeds."""
        rollouts, popularity = self.found[label], self.single.catalogue.popularity
        tail = sum(rollout.tail(popularity) for rollout in rollouts) / len(rollouts)
        return tail, sum(rollout.coverage for rollout in rollouts) / len(rollouts)


def _cell(sure: Interval, sign: str = "") -> str:
    digits = 1 if abs(sure.mean) >= 10 else 2
    return f"{sure.mean:{sign}.{digits}f}±{sure.half:.{digits}f}"


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(GroupsConfig, main)
