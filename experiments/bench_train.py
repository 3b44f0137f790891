"""The benchmark of training: our PPO against Stable-Baselines3's in one environment.

Each agent trains from the same seeds, one after the other, seed by seed. On the CPU the clock is processor time, of
which a neighbour takes nothing; with one thread it is the wall clock of an idle machine. Validations are on the clock
of all.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recloop.agents.learners.loop import learn
from recloop.agents.learners.ppo import PPO, PPOConfig
from recloop.agents.policy import FitOptions
from recloop.agents.sb3.configs import SlatePPOConfig
from recloop.agents.sb3.training import train_sb3
from recloop.encoders.errors import RecloopError
from recloop.envs.built_in import built_in_world
from recloop.envs.core import checked_device
from recloop.envs.world import World
from recloop.experiments.bench_timing import Row
from recloop.experiments.provenance import use_threads
from recloop.experiments.settings import at_least

_RETURN_AIM, _EQUAL_AIM = 4.0, 1.2
_VALIDATION_TAG = "validation/return"
_LAST = 3
"""Validations whose mean is an agent's final return."""
_SB3, _EQUAL, _OWN = "SB3's PPO", "our PPO, equal network, epochs and batch", "our PPO, own epochs and batch"


@dataclass(frozen=True)
class BenchTrainConfig:
    """Time training: our PPO against Stable-Baselines3's."""

    world: Path | None = None
    """World folder; default the built-in truth world."""
    steps: int = 40_000
    """Environment steps of every training."""
    seeds: int = 3
    """Trainings of each agent; medians count."""
    candidates: int = 200
    """Items to choose from."""
    validations: int = 20
    """How often the return is looked at."""
    compiled: bool = False
    """Whether our PPO compiles its update."""
    threads: int = 1
    """Torch threads."""
    device: str = "cpu"
    """Torch device."""
    out: Path | None = None
    """Folder for bench.json and bench.csv."""
    keep: Path | None = None
    """CSV into which the rows are put, such as experiments/results/speed.csv."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, seeds=self.seeds, candidates=self.candidates, threads=self.threads)
        at_least(_LAST, validations=self.validations)


@dataclass(frozen=True)
class Training:
    """One training.

    Args:
        curve: (seconds, validation return), rising in time.
        seconds: of the whole.
        steps: environment steps made.
    """

    curve: list[tuple[float, float]]
    seconds: float
    steps: int

    @property
    def final(self) -> float:
        """Mean of the last validations."""
        return float(np.mean([value for _, value in self.curve[-_LAST:]]))

    def reaches(self, wanted: float) -> float:
        """Seconds until a validation has this return; infinite where none does."""
        return next((seconds for seconds, value in self.curve if value >= wanted), math.inf)


def bench_train(config: BenchTrainConfig) -> list[Row]:
    """Measure.

    Raises:
        RecloopError: a device that is not there, more candidates than items.
    """
    checked_device(config.device)
    use_threads(config.threads)
    world = built_in_world() if config.world is None else World.load(config.world)
    if config.candidates > len(world.catalogue):
        raise RecloopError(
            f"--candidates {config.candidates} is more than the {len(world.catalogue)} items of world '{world.name}'; "
            "choose fewer"
        )
    agents = _agents(config, world)
    found: dict[str, list[Training]] = {name: [] for name in agents}
    with tqdm(total=config.seeds * len(agents), desc="bench train", unit="run", disable=not config.progress) as bar:
        for seed in range(config.seeds):
            for name, train in agents.items():
                bar.set_postfix_str(name)
                found[name].append(_timed(train, config, seed))
                bar.update()
    return _rows(found, config, world)


def _agents(config: BenchTrainConfig, world: World) -> dict[str, Callable[[FitOptions], object]]:
    theirs = SlatePPOConfig(candidates=config.candidates, validations=config.validations)
    equal = PPOConfig.equal_to(theirs)
    own = PPOConfig(candidates=config.candidates, validations=config.validations)
    return {
        _SB3: lambda options: train_sb3("ppo", world, options, theirs),
        _EQUAL: lambda options: learn(PPO, world, options, equal),
        _OWN: lambda options: learn(PPO, world, options, own),
    }


def _timed(train: Callable[[FitOptions], object], config: BenchTrainConfig, seed: int) -> Training:
    clock = time.process_time if config.device == "cpu" and config.threads == 1 else time.perf_counter
    curve: list[tuple[float, float]] = []
    begin = clock()

    def log(tag: str, value: float, step: int) -> None:
        if tag == _VALIDATION_TAG:
            curve.append((clock() - begin, value))

    train(FitOptions(seed=seed, steps=config.steps, device=config.device, log=log, compile=config.compiled))
    return Training(curve, clock() - begin, config.steps)


def _rows(found: dict[str, list[Training]], config: BenchTrainConfig, world: World) -> list[Row]:
    """Steps a second of each agent, and ours against SB3's time to its own final return."""
    theirs = found[_SB3]
    lanes = SlatePPOConfig().lanes
    blank = Row("", lanes, len(world.catalogue), world.slate_size, config.device, config.threads, 0.0, "steps/s")
    base = np.array([t.steps / t.seconds for t in theirs])
    goals = [t.final for t in theirs]
    needed = np.array([t.reaches(goal) for t, goal in zip(theirs, goals, strict=True)])
    rows = [replace(blank, what=_SB3, value=float(np.median(base)))]
    for name, trainings in found.items():
        if name == _SB3:
            continue
        rates = np.array([t.steps / t.seconds for t in trainings])
        finals = f"returns {np.mean([t.final for t in trainings]):.2f} and {np.mean(goals):.2f}"
        reference = f"{_SB3} ({finals}): {np.median(base):,.0f}"
        ratio = float(np.median(rates / base))
        rows.append(replace(blank, what=name, value=float(np.median(rates)), reference=reference, ratio=ratio))
        ours = np.array([t.reaches(goal) for t, goal in zip(trainings, goals, strict=True)])
        quicker = np.where(np.isfinite(ours), needed / ours, 0.0)  # 0: it never got there, and took all its time
        spent = np.minimum(ours, [t.seconds for t in trainings])
        rows.append(
            replace(
                blank,
                what=f"{name}: time to SB3's final return",
                value=float(np.median(spent)),
                unit="s",
                reference=f"{_SB3} ({finals}): {np.median(needed):.1f}",
                ratio=float(np.median(quicker)),
                aim=_EQUAL_AIM if name == _EQUAL else _RETURN_AIM,
            )
        )
    return rows
