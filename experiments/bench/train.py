"""The benchmark of training: our PPO against Stable-Baselines3's in one environment.

Each agent trains from the same seeds, one after the other, seed by seed, and is tried on the same users with the same
luck. A return is reached where the mean of three validations in a row is as high, and SB3's final return is that of its
last three: one lucky validation wins nothing. On the CPU the clock is processor time, of which a neighbour takes
nothing; with one thread it is the wall clock of an idle machine. Validations are off the clock: what one costs is
measured after each training and taken off.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from recloop.agents.learners.loop import Training, learn
from recloop.agents.learners.on_policy.ppo import PPO, PPOConfig
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.sb3.configs import SB3Config
from recloop.agents.sb3.zoo import agent
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.progress import progress_bar
from recloop.envs.simulation.core import checked_device
from recloop.envs.simulation.retrieval import best_rows
from recloop.envs.world.world import World
from recloop.experiments.bench.bounds import Machine, cost, machine_paces
from recloop.experiments.bench.timing import Pace, Paced, Row, against, in_turn
from recloop.experiments.bench.worlds import bench_world
from recloop.experiments.provenance import use_threads
from recloop.experiments.settings import at_least

_RETURN_AIM, _EQUAL_AIM = 4.0, 1.2
_ITEMS, _SLATE = 10_000, 10
_VALIDATION_TAG = "validation/return"
_LAST = 3
"""Validations in a row whose mean counts as an agent's return."""
_LANES, _FREE = 64, 0.99
"""Where retrieval is measured: lanes at once, and the share of the catalogue that each may be shown."""
_SB3, _EQUAL, _OWN = "SB3's PPO", "our PPO, equal network, epochs and batch", "our PPO, own epochs and batch"


@dataclass(frozen=True)
class BenchTrainConfig:
    """Time training: our PPO against Stable-Baselines3's."""

    world: Path | None = None
    """World folder; default a truth world of 10,000 items, ten a slate."""
    steps: int = 30_000
    """Environment steps of every training."""
    seeds: int = 3
    """Trainings of each agent; medians count."""
    candidates: int = 200
    """Items to choose from."""
    validations: int = 16
    """How often the return is looked at."""
    validation_episodes: int = 64
    """Users it is looked at on."""
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
        at_least(1, validation_episodes=self.validation_episodes)
        at_least(_LAST, validations=self.validations)


@dataclass(frozen=True)
class TrainingBench:
    """One training.

    Args:
        curve: (seconds, validation return), rising in time; without what validations took.
        seconds: of the whole, likewise.
        steps: environment steps made.
    """

    curve: list[tuple[float, float]]
    seconds: float
    steps: int

    @property
    def final(self) -> float:
        """Mean of the last validations."""
        return self._means()[-1][1]

    def reaches(self, wanted: float) -> float:
        """Seconds until the mean of validations in a row is this return; infinite where it never is."""
        return next((seconds for seconds, value in self._means() if value >= wanted), math.inf)

    def _means(self) -> list[tuple[float, float]]:
        """Each validation with those just before it, and when it was."""
        width = min(_LAST, len(self.curve))
        rows = [self.curve[i : i + width] for i in range(len(self.curve) - width + 1)]
        return [(row[-1][0], float(np.mean([value for _, value in row]))) for row in rows]


def bench_train(config: BenchTrainConfig) -> list[Row]:
    """Measure.

    Raises:
        RecloopError: a device that is not there, more candidates than items.
    """
    checked_device(config.device)
    use_threads(config.threads)
    world = bench_world(_ITEMS, _SLATE, family="truth") if config.world is None else World.load(config.world)
    if config.candidates > len(world.catalogue):
        raise RecloopError(
            f"--candidates {config.candidates} is more than the {len(world.catalogue)} items of world '{world.name}'; "
            "choose fewer"
        )
    agents = _agents(config, world)
    found: dict[str, list[TrainingBench]] = {name: [] for name in agents}
    with progress_bar(
        total=config.seeds * len(agents), desc="bench train", unit="run", disable=not config.progress
    ) as bar:
        for seed in range(1, config.seeds + 1):  # 0 is what our own settings were chosen on
            for name, train in agents.items():
                bar.set_postfix_str(name)
                found[name].append(_timed(train, config, world, seed))
                bar.update()
    updates = [_update_row(config, world, settings, name) for name, settings in _settings(config)[1].items()]
    return [*_rows(found, config, world), *updates, _retrieval_row(config, world)]


def _settings(config: BenchTrainConfig) -> tuple[SB3Config, dict[str, PPOConfig]]:
    """SB3's, and ours by what a row calls them; our own were chosen on the curve of seed 0."""
    theirs = agent("ppo").config_class(
        candidates=config.candidates, validations=config.validations, validation_episodes=config.validation_episodes
    )
    own = PPOConfig(
        candidates=config.candidates,
        validations=config.validations,
        validation_episodes=config.validation_episodes,
        num_envs=64,
        rollout=4,
        batch_size=256,
        epochs=4,
        learning_rate=2e-3,
    )
    return theirs, {_EQUAL: PPOConfig.equal_to(theirs), _OWN: own}


def _agents(config: BenchTrainConfig, world: World) -> dict[str, Callable[[FitOptions], Policy]]:
    theirs, ours = _settings(config)
    agents: dict[str, Callable[[FitOptions], Policy]] = {_SB3: lambda options: agent("ppo").fit(world, options, theirs)}
    for name, settings in ours.items():
        agents[name] = partial(_learned, world, settings)
    return agents


def _learned(world: World, settings: PPOConfig, options: FitOptions) -> Policy:
    return learn(PPO, world, options, settings)


def _timed(train: Callable[[FitOptions], Policy], config: BenchTrainConfig, world: World, seed: int) -> TrainingBench:
    clock = time.process_time if config.device == "cpu" and config.threads == 1 else time.perf_counter
    curve: list[tuple[float, float]] = []
    begin = clock()

    def log(tag: str, value: float, step: int) -> None:
        if tag == _VALIDATION_TAG:
            curve.append((clock() - begin, value))

    policy = train(FitOptions(seed=seed, steps=config.steps, device=config.device, log=log, compile=config.compiled))
    spent = clock() - begin
    price = _price_of_validation(policy, config, world, clock)
    paid = [(seconds - price * (place + 1), value) for place, (seconds, value) in enumerate(curve)]
    return TrainingBench(paid, spent - price * len(curve), config.steps)


def _price_of_validation(policy: Policy, config: BenchTrainConfig, world: World, clock: Callable[[], float]) -> float:
    """Median seconds that trying the policy takes."""
    validation = PolicyValidation(world, config.validation_episodes, config.device)
    seconds = []
    for _ in range(_LAST):
        begin = clock()
        validation.mean_return(policy)
        seconds.append(clock() - begin)
    return float(np.median(seconds))


def _update_row(config: BenchTrainConfig, world: World, learner: PPOConfig, what: str) -> Row:
    """How near an update comes to what products and compulsory bytes allow, whichever takes longer, in turn with both.

    Any implementation must read the rollout once an epoch, and parameters and both moments of Adam once a gradient
    step, and write those; gradients and activations may stay in caches.
    """
    options = FitOptions(device=config.device, compile=config.compiled)
    run = Training(PPO, world, options, learner)
    run._collect(run._observed())
    ppo = run.learner
    assert isinstance(ppo, PPO)
    count = learner.num_envs * learner.rollout

    def update() -> object:
        return ppo.update(1.0)  # a learning rate of zero: the same work every time

    steps = learner.epochs * (count // min(learner.batch_size, count))
    parameters = sum(value.nbytes for value in ppo.networks.parameters())
    kept = sum(value.nbytes for value in ppo.rollout.buffers.values())
    needed = cost(update, count, (learner.epochs * kept + steps * 6 * parameters) / count)
    rates = in_turn((Paced("update", count, update, config.device), *machine_paces(config.device)), Pace())
    bounds = np.array([needed.bound(Machine(flops, bandwidth)) for _, flops, bandwidth in rates])
    shares = [needed.flops / np.median(rates[:, 1]), needed.compulsory / np.median(rates[:, 2])]
    return Row(
        what=f"{what}: its update",
        batch=min(learner.batch_size, count),
        items=len(world.catalogue),
        slate=world.slate_size,
        device=config.device,
        threads=config.threads,
        value=float(np.median(rates[:, 0])),
        unit="transitions/s",
        reference=(
            f"bound {np.median(bounds):,.0f}; alone, products {np.median(rates[:, 0]) * shares[0]:.0%} of the time, "
            f"compulsory bytes {np.median(rates[:, 0]) * shares[1]:.0%}; {needed.kernels} kernels"
        ),
        ratio=float(np.median(rates[:, 0] / bounds)),
    )


def _retrieval_row(config: BenchTrainConfig, world: World) -> Row:
    """The best items by the state encoder, in turn with torch's `topk` of all scores, which leaves ties open."""
    encoder = world.state_encoder.to(config.device)
    table, bias = encoder.out_items[:-1], encoder.popularity
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(_LANES, table.shape[1], generator=draw).tanh().to(config.device)
    mask = (torch.rand(_LANES, len(table), generator=draw) < _FREE).to(config.device)

    def plain() -> object:
        return (states @ table.T + bias).masked_fill_(~mask, -math.inf).topk(config.candidates)

    def ours() -> object:
        return best_rows(states, table, config.candidates, bias=bias, mask=mask)

    with torch.no_grad():
        sides = (Paced("retrieval", _LANES, ours, config.device), Paced("topk", _LANES, plain, config.device))
        mine, theirs, ratio = against(*sides, Pace())
    what, reference = f"retrieval of {config.candidates}", f"torch's topk of all scores: {theirs:,.0f}"
    sizes = _LANES, len(table), world.slate_size, config.device, config.threads
    return Row(what, *sizes, mine, "lanes/s", reference, ratio)


def _rows(found: dict[str, list[TrainingBench]], config: BenchTrainConfig, world: World) -> list[Row]:
    """Steps a second of each agent, and ours against SB3's time to its own final return."""
    theirs = found[_SB3]
    lanes = agent("ppo").config_class().num_envs
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
