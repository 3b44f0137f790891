"""A search in a folder that several processes share: Optuna's study beside what it was made with.

Trials are proposed by TPE (Bergstra et al. 2011) and stopped early by asynchronous successive halving (Li et al. 2020)
on the best validation so far. Optuna's journal is a file that processes append to in turn, on one machine or on several
that share the folder: nothing else is needed for several processes, so that there is no Ray here.
"""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from recloop.agents.policy import VALIDATION_TAG, FitOptions
from recloop.agents.registry import facts_of, make_policy
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.encoders.base.locks import FolderInUse, one_writer
from recloop.encoders.base.storage import read_json, write_json
from recloop.envs.world.world import World
from recloop.experiments.asked import asked_world
from recloop.experiments.commands.train import VALIDATION_SEED
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import by_user
from recloop.experiments.output import plain, refuse_others
from recloop.experiments.tuning.space import Searched

MARKER = "tune.json"
"""What a search was made with, and that a folder is one."""

_REDUCTION = 3
"""One trial in so many goes on beyond each rung."""


@dataclass(frozen=True)
class Search:
    """What every trial of a search shares.

    Args:
        world: folder.
        folder: of the search.
        agent: whose settings.
        space: which of them.
        fixed: settings beside.
        steps: of a training; None for the agent's own.
        seed: of each training, and of what is proposed.
        episodes: of the validation that trials are ranked by.
        trials: finished ones after which the search ends.
        early: whether to stop trials early.
        reward, rules, device: as for `train`.
    """

    world: Path
    folder: Path
    agent: str
    space: tuple[Searched, ...]
    fixed: Mapping[str, Any]
    steps: int | None
    seed: int
    episodes: int
    trials: int
    early: bool
    reward: tuple[str, ...] = ()
    rules: Path | None = None
    device: str = "cpu"

    def made_with(self, world: World) -> dict[str, Any]:
        """What may not change between two runs of a search: all but how long it is."""
        names = ("agent", "steps", "seed", "episodes", "early", "device", "reward", "rules")
        told = {name: getattr(self, name) for name in names}
        space, fixed = sorted(map(str, self.space)), sorted(map(list, self.fixed.items()))
        found: dict[str, Any] = plain({**told, "space": space, "fixed": fixed, "world": world.fingerprint})
        return found


@dataclass(frozen=True)
class Unit:
    """One trial more of a search, for a process of its own."""

    task: Search
    number: int

    @property
    def name(self) -> str:
        """For the progress bar."""
        return f"{self.task.agent}, trial {self.number}"


def optuna_here() -> Any:
    """The module, quiet.

    Raises:
        RecloopError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise RecloopError("recloop tune searches with Optuna; pip install 'recloop[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def begin(task: Search, world: World, defaults: Mapping[str, Any]) -> None:
    """Make the folder of a search, whose first trial are the agent's defaults; or find the same search there.

    Raises:
        RecloopError: another search is there.
    """
    with _waiting(task.folder / "asking"):
        marker = task.folder / MARKER
        if marker.exists():
            refuse_others(task.folder, "search", read_json(marker), task.made_with(world))
            return
        first = {one.name: one.given(defaults[one.name]) for one in task.space}
        study = study_of(task)
        if None not in first.values() and not study.trials:
            study.enqueue_trial(first, user_attrs={"defaults": True})
        write_json(marker, task.made_with(world))


def study_of(task: Search) -> Any:
    """Optuna's study in the folder of a search."""
    optuna = optuna_here()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    pruner = optuna.pruners.NopPruner()
    if task.early:
        steps = task.steps or _default_steps(task.agent)
        pruner = optuna.pruners.SuccessiveHalvingPruner(max(steps // _REDUCTION**2, 1), _REDUCTION)
    storage = JournalStorage(JournalFileBackend(str(task.folder / "study.log")))
    return optuna.create_study(
        study_name="recloop", storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
    )


def done(study: Any) -> list[Any]:
    """Trials that came to an end: trained, stopped early, or refused with a reason."""
    return [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED") or "why" in t.user_attrs]


def try_once(unit: Unit) -> None:
    """One trial, where the search has not enough: propose settings, train, validate, and tell the study."""
    task, optuna = unit.task, optuna_here()
    study = study_of(task)
    with ExitStack() as held:
        with _waiting(task.folder / "asking"):
            running = _running(study, task.folder)
            if len(done(study)) + running >= task.trials:
                return
            seed = np.random.SeedSequence([task.seed, len(study.trials)]).generate_state(1)
            study.sampler = optuna.samplers.TPESampler(seed=int(seed[0]))
            trial = study.ask()
            held.enter_context(one_writer(_lock_of(task.folder, trial.number)))
        state, value = optuna.trial.TrialState.FAIL, None
        try:
            settings = {one.name: one.drawn(trial) for one in task.space}
            trial.set_user_attr("settings", settings)
            value, state = _tried(task, trial, settings), optuna.trial.TrialState.COMPLETE
        except optuna.TrialPruned:
            state = optuna.trial.TrialState.PRUNED
        except PolicyError as error:
            trial.set_user_attr("why", " ".join(str(error).split()))
        finally:
            study.tell(trial, value, state)


def _tried(task: Search, trial: Any, settings: Mapping[str, str]) -> float:
    """Mean return on the validation users of a policy trained with these settings."""
    optuna, started = optuna_here(), time.monotonic()
    world = _world(task)
    best = -np.inf

    def log(tag: str, value: float, step: int) -> None:
        nonlocal best
        if tag == VALIDATION_TAG and step > 0:
            best = max(best, value)
            trial.report(best, step)
            if trial.should_prune():
                raise optuna.TrialPruned

    options = FitOptions(
        seed=task.seed, steps=task.steps, device=task.device, log=log, settings={**task.fixed, **settings}
    )
    rollout = _arena(task).run(make_policy(task.agent, world, options))
    returns = by_user(rollout.value, rollout.users)
    if not np.isfinite(returns).all():
        raise PolicyError("returns are not all numbers; look at the reward")
    trial.set_user_attr("returns", [round(float(value), 6) for value in returns])
    trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
    return float(returns.mean())


@cache
def _loaded(folder: Path, reward: tuple[str, ...], rules: Path | None) -> World:
    return asked_world(World.load(folder), reward, rules)


def _world(task: Search) -> World:
    return _loaded(task.world, task.reward, task.rules)


_ARENAS: dict[tuple[int, int, str], Evaluator] = {}


def _arena(task: Search) -> Evaluator:
    """The validation that `recloop train` ends with: the same users with the same luck for every trial."""
    world = _world(task)
    place = (id(world), task.episodes, task.device)
    if place not in _ARENAS:
        simulator = "validation" if "validation" in world.simulators else world.training_simulator
        _ARENAS[place] = Evaluator(
            world, simulator, episodes=task.episodes, users="tune", seed=VALIDATION_SEED, device=task.device
        )
    return _ARENAS[place]


def _default_steps(agent: str) -> int:
    config_class = facts_of(agent).config_class
    return int(getattr(config_class() if config_class else None, "steps", 0) or 1)


def _lock_of(folder: Path, number: int) -> Path:
    return folder / "running" / f"trial-{number}"


def _running(study: Any, folder: Path) -> int:
    """Trials that a living process is at; those of dead ones are given up, to be made good by others."""
    alive = 0
    for trial in study.trials:
        if trial.state.name == "RUNNING":
            try:
                with one_writer(_lock_of(folder, trial.number)):
                    pass
            except FolderInUse:
                alive += 1
            else:
                with suppress(ValueError):  # told meanwhile
                    study.tell(trial.number, state=optuna_here().trial.TrialState.FAIL)
    return alive


@contextmanager
def _waiting(place: Path) -> Iterator[None]:
    """Be the one process that asks, once others have."""
    while True:
        with ExitStack() as held:
            try:
                held.enter_context(one_writer(place))
            except FolderInUse:
                time.sleep(0.05)
                continue
            yield
            return
