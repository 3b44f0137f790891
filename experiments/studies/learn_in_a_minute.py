"""What our PPO has learned after a minute on one core, beside every supervised baseline.

    python -m recloop.experiments.studies.learn_in_a_minute
    python -m recloop.experiments.studies.learn_in_a_minute --keep experiments/results/speed.csv
    python -m recloop.experiments.studies.learn_in_a_minute --world runs/demo/world --seeds 5

The world is the built-in truth world of `recloop demo`, where the best policy is known. Baselines are fitted on its log
with their own budgets, PPO trains with its own settings. Those were chosen on `tune` users with other luck; here all
meet the `evaluate` users, the same lanes with the same luck, and are compared in pairs. The clock is processor time, of
which a neighbour takes nothing; validations are on it, making the world is not.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import facts_of, make_policy
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.progress import progress_bar
from recloop.envs.truth.built_in import demo_world
from recloop.envs.world.world import World
from recloop.experiments.bench.timing import Row, keep
from recloop.experiments.comparison.evaluate import Evaluator, Rollout
from recloop.experiments.comparison.intervals import Interval, t_interval
from recloop.experiments.comparison.results import Comparison, Entry
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import interval_text, wide_console
from recloop.experiments.settings import at_least

LEARNER = "recloop-ppo"
BASELINES = ("random", "popularity", "content", "last-item", "dnn", "sasrec", "greedy", "diversified-greedy")
MINUTE = 60.0


@dataclass(frozen=True)
class MinuteConfig:
    """Train our PPO for a minute and hold it against every supervised baseline."""

    world: Path | None = None
    """World folder of a truth world with a log; default the world of `recloop demo`, which is made first."""
    steps: int = 250_000
    """Environment steps of each training; choose as many as the machine makes in the minute."""
    seeds: int = 3
    """Trainings of every policy that learns with randomness."""
    episodes: int = 900
    """Episodes a policy is evaluated on, going round the evaluation users."""
    evaluation_seed: int = 20_000
    """Of the evaluation users' luck."""
    keep: Path | None = None
    """CSV into which the row is put, such as experiments/results/speed.csv."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, seeds=self.seeds)
        at_least(2, episodes=self.episodes)


@dataclass(frozen=True)
class Minute:
    """What came out.

    Args:
        comparison: everybody's lanes; the reference is our PPO.
        seconds: of processor time, a training of our PPO each.
    """

    comparison: Comparison
    seconds: tuple[float, ...]

    def margin(self, baseline: str, seed: int | None = None) -> Interval:
        """Our PPO's return less a baseline's, paired by user; over all seeds unless one is named."""
        return t_interval(self.comparison.difference(LEARNER, baseline, self.comparison.base, seed))

    @property
    def nearest(self) -> str:
        """The baseline by which our PPO is least surely ahead."""
        return min(BASELINES, key=lambda name: self.margin(name).low)


def main(config: MinuteConfig) -> Minute:
    """Train, evaluate, print; put the row where `--keep` says."""
    use_threads(1)
    world = demo_world(progress=config.progress) if config.world is None else World.load(config.world)
    found = learn_in_a_minute(world, config)
    console = wide_console()
    console.print(minute_table(found))
    console.print(
        f"{LEARNER}: {config.steps:,} steps in {', '.join(f'{s:.1f}' for s in found.seconds)} s of one core"
        + (f"; more than {MINUTE:.0f} s, lower --steps" if max(found.seconds) > MINUTE else ""),
        highlight=False,
    )
    if config.keep is not None:
        keep([minute_row(found)], config.keep)
    return found


def learn_in_a_minute(world: World, config: MinuteConfig) -> Minute:
    """Make every policy, seed by seed, and let it act in the same lanes.

    Raises:
        RecloopError: a world without a fitted user model, which `greedy` plans on.
    """
    if world.user_model is None:
        raise RecloopError(f"world '{world.name}' has no user model for greedy to plan on; choose another --world")
    contenders = tuple(Entry(name, name, facts_of(name).trains != "no") for name in (*BASELINES, LEARNER))
    simulator = world.training_simulator
    arena = Evaluator(world, simulator, episodes=config.episodes, seed=config.evaluation_seed)
    rollouts: dict[tuple[str, int, str], Rollout] = {}
    seconds = []
    jobs = [(one, seed) for one in contenders for seed in range(config.seeds)]
    for one, seed in progress_bar(jobs, desc="learn in a minute", unit="policy", disable=not config.progress):
        begin = time.process_time()
        policy = _made(one, world, seed, config.steps)
        if one.label == LEARNER:
            seconds.append(time.process_time() - begin)
        rollouts[one.label, seed, simulator] = arena.run(policy, seed)
    comparison = Comparison(world, contenders, tuple(range(config.seeds)), (simulator,), LEARNER, rollouts)
    return Minute(comparison, tuple(seconds))


def minute_table(found: Minute) -> Table:
    """A row a policy: its return, and by how much our PPO's is above it."""
    comparison = found.comparison
    users = len(comparison.values(LEARNER, comparison.base))
    table = Table(title=f"{comparison.world.name}: return an episode, {users} users", title_justify="left")
    for name in ("policy", "return", f"{LEARNER} is above it by", "seed by seed"):
        table.add_column(name)
    for one in comparison.headlines:
        of_seeds = ", ".join(f"{value:.2f}" for value in one.seeds)
        above = "" if one.policy == LEARNER else interval_text(found.margin(one.policy), signed=True)
        table.add_row(one.policy, interval_text(one.value), above, of_seeds)
    return table


def minute_row(found: Minute) -> Row:
    """The low end of the least sure margin, which has to be above zero."""
    comparison, baseline = found.comparison, found.nearest
    ours, theirs = (comparison.headline(name, comparison.base).value.mean for name in (LEARNER, baseline))
    spent = float(np.median(found.seconds))
    return Row(
        what=f"{LEARNER} after a minute on one core, above the nearest of {len(BASELINES)} baselines: low end (95 %)",
        batch=0,
        items=len(comparison.world.catalogue),
        slate=comparison.world.slate_size,
        device="cpu",
        threads=1,
        value=found.margin(baseline).low,
        unit="return",
        reference=f"{ours:.2f} in {spent:.0f} s ({len(found.seconds)} trainings) against {baseline}: {theirs:.2f}",
        ratio=ours / theirs,
        aim=1.0,
    )


def _made(one: Entry, world: World, seed: int, steps: int) -> Policy:
    return make_policy(one.source, world, FitOptions(seed=seed, steps=steps if one.label == LEARNER else None))


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(MinuteConfig, main)
