"""What policies do to their users, and what a floor costs.

recloop guidance worlds/ml-100k --policies popularity greedy sasrec recloop-ppo
recloop guidance retention clickbait --policies popularity greedy recloop-ppo slate-ppo --seeds 3
recloop guidance clickbait --floor-of liking --floors 0.4 0.5 0.6 --out runs/guided

A row a policy and a column an effect: how wide users consume, whether they narrow, how they like it early and late, how
they are as they leave. Effects describe simulated users and are no verdict. With `--floors` `recloop-ppo` (or
`--constrained`) is trained once more for each floor, by a Lagrangian, and a picture shows what is earned against what
is given: the frontier. In a truth world agents train in the truth, and `greedy` shows what earns most in this slate by
the users' true state, which no agent sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.table import Table

from recloop.agents.baselines.planner import PlannerPolicy
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import check_settings, facts_of, make_policy
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.progress import progress_bar
from recloop.envs.interaction.floors import Floor, FloorOf
from recloop.envs.simulation.penalties import PenaltyConfig
from recloop.envs.world.world import World
from recloop.experiments.asked import named_world
from recloop.experiments.comparison.evaluate import Floats
from recloop.experiments.comparison.intervals import Interval, t_interval
from recloop.experiments.guidance.effects import EFFECTS, effects, known
from recloop.experiments.guidance.picture import save_frontier
from recloop.experiments.policy_table import cells, keep_policy_rows
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least, given_settings, settings_by_policy

GREEDY = "greedy"


@dataclass(frozen=True)
class GuidanceConfig:
    """Measure what policies do to their users."""

    worlds: tyro.conf.Positional[tuple[str, ...]]
    """World folders, or truth worlds by name."""
    policies: tuple[str, ...] = ("random", "popularity", GREEDY, "recloop-ppo")
    """Policies by name."""
    constrained: str = "recloop-ppo"
    """The agent that is trained under floors."""
    floor_of: FloorOf = "liking"
    """What a floor is of."""
    floors: tuple[float, ...] = ()
    """Floors that it is trained under, once each."""
    seeds: int = 3
    """Trainings of every policy that learns with randomness."""
    steps: int = 50_000
    """Environment steps of each training in the loop."""
    episodes: int = 300
    """Episodes a policy and training, going round the users."""
    simulator: str | None = None
    """Who answers; default the first judge, in a truth world the truth."""
    set: tuple[str, ...] = ()
    """Settings of policies, policy.name=value."""
    out: Path | None = None
    """Folder for the table and the pictures."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds, steps=self.steps)
        at_least(2, episodes=self.episodes)
        if not self.worlds:
            raise RecloopError("name a world folder or a truth world, such as clickbait")
        if self.floors and self.floor_of == "nothing":
            raise RecloopError("--floors are given of nothing; say of what with --floor-of liking or diversity")
        if self.floors and facts_of(self.constrained).trains != "loop":
            raise RecloopError(f"--constrained {self.constrained} does not train in the loop, where floors are held")


@dataclass(frozen=True)
class _Entry:
    """A row: a policy, and the floor that it is trained under."""

    source: str
    floor: Floor | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.source if self.floor is None else f"{self.source}, {self.floor.of} >= {self.floor.least:g}"


def main(config: GuidanceConfig) -> list[dict[str, Any]]:
    """Measure, print, keep, and draw."""
    use_threads(1)
    given = settings_by_policy(given_settings(None, config.set), [*config.policies, config.constrained])
    for name, settings in given.items():
        check_settings(name, settings)
    source = made_by()
    return [row for name in config.worlds for row in study(named_world(name), config, source)]


def study(world: World, config: GuidanceConfig, source: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of one world, printed and kept; `source` says where they come from."""
    given = settings_by_policy(given_settings(None, config.set), [*config.policies, config.constrained])
    entries = [_Entry(policy) for policy in config.policies]
    entries += [_Entry(config.constrained, Floor(config.floor_of, least)) for least in config.floors]
    bar = progress_bar(entries, desc=world.name, unit="policy", disable=not config.progress)
    measured = {entry.label: measure(entry, world, config, given.get(entry.source, {})) for entry in bar}
    _print(world.name, measured)
    figures = [
        (what, policy, value)
        for policy, found in measured.items()
        for what, value in _intervals(found, measured.get(GREEDY))
    ]
    rows = cells(figures, world=world.name, seeds=config.seeds, **source)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        keep_policy_rows(config.out / "guidance.csv", rows)
        given_by = "diversity" if config.floor_of == "diversity" or len(world.signals) < 2 else "liking"
        points = {
            label: (t_interval(known(found[given_by])), t_interval(known(found["return"])))
            for label, found in measured.items()
        }
        save_frontier(config.out / f"frontier-{world.name}.png", world.name, given_by, points)
    return rows


def measure(entry: _Entry, world: World, config: GuidanceConfig, settings: dict[str, Any]) -> dict[str, Floats]:
    """The effects of a policy on each user, the mean over its trainings."""
    simulator = config.simulator or world.first_judge
    users = world.users.rows("evaluate").tolist()
    found = [
        effects(policy, world, simulator, episodes=config.episodes, users=users, seed=seed)
        for seed, policy in enumerate(_made(entry, world, config, settings))
    ]
    return {name: np.asarray(np.mean([one[name] for one in found], axis=0)) for name in found[0]}


def _made(entry: _Entry, world: World, config: GuidanceConfig, settings: dict[str, Any]) -> Iterator[Policy]:
    """The trainings of a policy."""
    if entry.source == GREEDY and world.is_truth:
        policy: Policy = PlannerPolicy(farsighted=False)
        yield from [policy] * config.seeds
        return
    held = entry.floor
    steps = config.steps if facts_of(entry.source).trains == "loop" else None
    for seed in range(config.seeds):
        penalties = PenaltyConfig() if held is None else PenaltyConfig(floor_of=held.of, floor=held.least)
        yield make_policy(entry.source, world, FitOptions(seed, steps, penalties=penalties, settings=settings))


def _intervals(found: dict[str, Floats], greedy: dict[str, Floats] | None) -> Iterator[tuple[str, Interval]]:
    """Of every effect, and of the difference of the return to greedy's."""
    for name, values in found.items():
        if len(known(values)) > 1:
            yield name, t_interval(known(values))
    if greedy is not None and found is not greedy:
        yield "return, to greedy", t_interval(found["return"] - greedy["return"])


def _print(name: str, measured: dict[str, dict[str, Floats]]) -> None:
    there = [effect for effect in EFFECTS if any(effect in found for found in measured.values())]
    table = Table(title=f"{name}: what policies do to their users, means over users", title_justify="left")
    table.add_column("policy")
    for effect in there:
        table.add_column(effect, justify="right")
    for policy, found in measured.items():
        table.add_row(policy, *(f"{known(found[e]).mean():.2f}" if len(known(found[e])) else "-" for e in there))
    console = wide_console()
    console.print(table)
    for effect in there:
        console.print(f"{effect}: {EFFECTS[effect]}", style="dim")
