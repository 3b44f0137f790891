"""Supervised and language-model recommenders in the loop: what each earns, beside greedy, popularity and PPO.

    python -m recloop.experiments.studies.loop worlds/ml-100k
    python -m recloop.experiments.studies.loop boredom clicks --policies popularity sasrec supervised --seeds 1
    python -m recloop.experiments.studies.loop worlds/ml-100k --policies sasrec grpo --set grpo.steps=30000

A world's folder is evaluated in front of its training users and its judges; a truth world by name in front of the
truth, with users fitted on the log that its switching policy wrote. Every policy meets the same lanes with the same
luck, and is compared with SASRec in pairs, over users, of the means over trainings.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from recloop.agents.acting import picked_by
from recloop.agents.groups import expanded
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import check_settings, facts_of, make_policy
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.progress import progress_bar
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import Picked, rollout
from recloop.envs.truth import TRUTHS
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import EVALUATION_KEYS, Evaluator, Rollout
from recloop.experiments.comparison.intervals import by_user, t_interval
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.settings import at_least, given_settings, settings_by_policy
from recloop.experiments.studies.agents import Place

COLUMNS = (
    "world", "simulator", "policy", "seeds", "return_mean", "low", "high", "difference_to_sasrec", "low_difference",
    "high_difference", "coverage", "slates_per_second", "command", "commit",
)  # fmt: skip
"""Of `experiments/results/loop.csv`; intervals (95 %) are over users, of the mean over trainings."""
REFERENCE = "sasrec"
LANES, TIMED = 256, 5
"""Users at once, and their slates, when the speed of a policy is measured on one core."""


@dataclass(frozen=True)
class LoopConfig:
    """Put policies into the loop of worlds, and hold each against SASRec."""

    worlds: tyro.conf.Positional[tuple[str, ...]]
    """World folders, or truth worlds by name."""
    policies: tuple[str, ...] = ("popularity", "greedy", "encoder", "recloop-ppo", "grpo", "supervised", "lm")
    """Names, or groups."""
    seeds: int = 3
    """Trainings of every policy that learns with randomness."""
    steps: int = 50_000
    """Environment steps of each training in the loop."""
    episodes: int = 500
    """Episodes a policy is evaluated on, going round the users."""
    set: tuple[str, ...] = ()
    """Settings of policies, policy.name=value."""
    keep: Path | None = Path("experiments/results/loop.csv")
    """CSV into which the rows are put."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds, steps=self.steps)
        at_least(2, episodes=self.episodes)
        for world in self.worlds:
            if not Path(world).is_dir() and world not in TRUTHS:
                raise RecloopError(f"{unknown_name('truth world', world, TRUTHS)}, and no world folder either")


@dataclass(frozen=True)
class _Measured:
    """A policy in front of some users: of every training the episodes, and its speed."""

    rollouts: list[Rollout]
    speed: float

    @property
    def returns(self) -> Any:
        """Mean return (U,) of every user, over trainings."""
        return np.mean([by_user(one.value, one.users) for one in self.rollouts], axis=0)


def main(config: LoopConfig) -> list[dict[str, Any]]:
    """Train, evaluate, print and keep every row as soon as it is known."""
    use_threads(1)
    source = made_by()
    return [row for world in config.worlds for row in study(world, config, source)]


def study(name: str, config: LoopConfig, source: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of one world; `source` says where they come from."""
    world, arenas = arenas_of(name, config)
    names = expanded((REFERENCE, *(p for p in config.policies if p != REFERENCE)), world)
    given = settings_by_policy(given_settings(None, config.set), names)
    for policy, settings in given.items():
        check_settings(policy, settings)
    reference: dict[str, Any] = {}
    rows = []
    for policy in progress_bar(names, desc=world.name, unit="contender", disable=not config.progress):
        made = list(trained(policy, world, config, given.get(policy, {})))
        speed = float(np.median([slates_per_second(one, world) for one in made]))
        for simulator, arena in arenas.items():
            found = _Measured([arena.run(one, seed) for seed, one in enumerate(made)], speed)
            reference.setdefault(simulator, found.returns)  # SASRec comes first
            value, difference = t_interval(found.returns), t_interval(found.returns - reference[simulator])
            row = {
                "world": world.name,
                "simulator": simulator,
                "policy": policy,
                "seeds": len(made),
                "return_mean": f"{value.mean:.2f}",
                "low": f"{value.low:.2f}",
                "high": f"{value.high:.2f}",
                "difference_to_sasrec": f"{difference.mean:.2f}" if policy != REFERENCE else "",
                "low_difference": f"{difference.low:.2f}" if policy != REFERENCE else "",
                "high_difference": f"{difference.high:.2f}" if policy != REFERENCE else "",
                "coverage": f"{np.mean([one.coverage for one in found.rollouts]):.3f}",
                "slates_per_second": f"{found.speed:.0f}",
                **source,
            }
            print(
                f"{world.name} {simulator} {policy}: {value}, to {REFERENCE} {difference}, {found.speed:.0f} slates/s"
            )
            rows.append(row)
        if config.keep is not None:
            replace_rows(config.keep, COLUMNS, ("world", "simulator", "policy"), rows[-len(arenas) :])
    return rows


def arenas_of(name: str, config: LoopConfig) -> tuple[World, dict[str, Evaluator]]:
    """Where policies are trained, and whom they are evaluated with, by simulator."""
    if Path(name).is_dir():
        world = World.load(Path(name))
        return world, {simulator: _arena(world, simulator, config) for simulator in world.evaluation_simulators}
    place = Place.of(name, progress=config.progress)
    return place.world, {"truth": _arena(place.world, place.users, config)}


def _arena(world: World, users: Any, config: LoopConfig) -> Evaluator:
    rows = world.users.rows("evaluate").tolist()
    return Evaluator(world, users, episodes=config.episodes, users=rows, seed=Place.seed)


def trained(name: str, world: World, config: LoopConfig, settings: Any) -> Iterator[Policy]:
    """A policy of every seed; one alone where the seed makes no difference."""
    facts = facts_of(name)
    for seed in range(1 if facts.deterministic else config.seeds):
        steps = config.steps if facts.trains == "loop" and "steps" not in settings else None
        yield make_policy(name, world, FitOptions(seed=seed, steps=steps, settings=settings))


@torch.no_grad()
def slates_per_second(policy: Policy, world: World) -> float:
    """Slates that a policy picks a CPU second for `LANES` users at once, as their histories grow."""
    core = Core(world, batch=LANES, users="evaluate", seed=0, keys=EVALUATION_KEYS)
    seconds: list[float] = []

    def act(core: Core, carry: Any) -> Picked:
        begin = time.process_time()
        picked = picked_by(policy, core, carry, seed=0)
        seconds.append(time.process_time() - begin)
        return picked

    for _ in islice(rollout(core, act), TIMED + 1):
        pass
    return LANES * len(seconds[1:]) / max(sum(seconds[1:]), 1e-9)  # the first one warms up


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(LoopConfig, main)
