"""Search the settings of an agent that earn most in front of the validation users, with early stopping.

    recloop tune worlds/ml-100k --agent recloop-ppo --trials 30 --steps 50000 --out runs/tuned
    recloop tune worlds/ml-100k --agent sasrec --space dim=32,64,128 learning_rate=1e-3..1e-2 --out runs/tuned-sasrec
    recloop tune worlds/ml-100k --agent recloop-ppo --trials 60 --jobs 2 --budget 1h --out runs/tuned
    recloop train worlds/ml-100k --agent recloop-ppo --config runs/tuned/best.yaml --steps 50000 --out policies/tuned

Every trial is the training that `recloop train` would make with its settings and seed, and is ranked by the mean
return that `train` prints: the same tune users, with the same luck, in the validation simulator. The first trial are
the agent's defaults. Where a training is validated as it goes, the worse two thirds are stopped at a ninth and at a
third of it.

Writes `tune.json`, `study.log` (Optuna's journal), `trials.csv` and `best.yaml`. The same command goes on where it was,
and further with more --trials; in another terminal, or on another machine that shares the folder, it helps meanwhile.
Needs Optuna: `pip install 'recloop[tune]'`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.table import Table

from recloop.agents.registry import check_settings, facts_of
from recloop.agents.settings import settings_of
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.encoders.base.names import csv_text
from recloop.encoders.base.storage import replacing_file
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.world import World
from recloop.experiments.asked import asked_world
from recloop.experiments.comparison.intervals import t_interval
from recloop.experiments.comparison.workers import work_through
from recloop.experiments.output import checked_out, writing
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import interval_text, number_text, wide_console
from recloop.experiments.settings import at_least, given_settings, write_settings
from recloop.experiments.stopping import TimeLimit, seconds_of, telling_what_is_kept
from recloop.experiments.tuning.search import MARKER, Search, Unit, begin, done, optuna_here, study_of, try_once
from recloop.experiments.tuning.space import searched

SHOWN = 5
"""Trials that are printed, the best ones."""


@dataclass(frozen=True)
class TuneConfig:
    """Search settings of one policy in front of the validation users."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    out: Path
    """Folder of the search; the same command goes on there."""
    agent: str = "recloop-ppo"
    """A registered name, sb3:NAME of Stable-Baselines3, or a dotted path module:Class."""
    space: tuple[str, ...] = ()
    """What to search, name=low..high or name=a,b,c; default learning rates, discounts and the like of the agent."""
    set: tuple[str, ...] = ()
    """Settings that stay as they are, name=value."""
    config: Path | None = None
    """YAML file of settings that stay as they are."""
    trials: int = 20
    """Trials that the search comes to, those stopped early too."""
    steps: int | None = None
    """Environment steps of a training (passes over the log for sasrec and dnn); default the agent's own."""
    seed: int = 0
    """Of each training, and of what is proposed."""
    episodes: int = 200
    """Episodes of the validation that trials are ranked by; at least 2."""
    early: bool = True
    """Stop trials early that do worse than others did by then."""
    reward: tuple[str, ...] = ()
    """What a step is worth, NAME=WEIGHT ..., or a dotted path module:function; default the world's reward."""
    rules: Path | None = None
    """YAML or JSON file of rules that every slate keeps; default the world's."""
    jobs: int = 1
    """Trials side by side, in processes of one thread each."""
    budget: str | None = None
    """Time for the search, 90s, 30m or 1h30m; trials that are finished by then count."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(1, trials=self.trials, steps=self.steps, jobs=self.jobs, threads=self.threads)
        at_least(0, seed=self.seed)
        at_least(2, episodes=self.episodes)
        seconds_of(self.budget)


def main(config: TuneConfig) -> dict[str, str]:
    """Search, write, print the best trials and the settings; the settings found."""
    use_threads(1 if config.jobs > 1 else config.threads)
    optuna_here()
    facts = facts_of(config.agent)
    if facts.trains == "no" or facts.privileged:
        raise PolicyError(f"'{config.agent}' does not train: there is nothing to search; see recloop policies")
    fixed = given_settings(config.config, config.set)
    if fixed:
        check_settings(config.agent, fixed)
    space = searched(config.agent, config.space, fixed)
    checked_device(config.device)
    checked_out(config.out, MARKER, "search")
    world = asked_world(World.load(config.world), config.reward, config.rules)
    task = Search(
        config.world, config.out, config.agent, space, fixed, config.steps, config.seed, config.episodes,
        config.trials, config.early, config.reward, config.rules, config.device,
    )  # fmt: skip
    config.out.mkdir(parents=True, exist_ok=True)
    assert facts.config_class is not None
    begin(task, world, {one.name: one.default for one in settings_of(facts.config_class())})
    search(task, config)
    return tell(task, config)


def search(task: Search, config: TuneConfig) -> None:
    """Trials until there are enough, or until time is up."""
    missing = max(task.trials - len(done(study_of(task))), 0)
    units = [Unit(task, number) for number in range(missing)]
    with (
        TimeLimit(seconds_of(config.budget)),
        telling_what_is_kept(lambda: f"what was tried is kept in {config.out}, the same command goes on from there"),
    ):
        if units:
            work_through(units, try_once, min(config.jobs, len(units)), "tune", config.progress)


def tell(task: Search, config: TuneConfig) -> dict[str, str]:
    """Write `trials.csv` and `best.yaml`, and print what was found."""
    study, console = study_of(task), wide_console()
    trials = done(study)
    complete = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: -t.value)
    with writing(config.out / "trials"), replacing_file(config.out / "trials.csv") as part:
        part.write_text(csv_text(_rows(task, trials)), encoding="utf-8")
    if not complete:
        why = next((t.user_attrs["why"] for t in trials if "why" in t.user_attrs), "give more time or --trials")
        raise RecloopError(f"no trial of {config.out} was trained to its end; {why}")
    best = complete[0]
    settings = {**task.fixed, **best.user_attrs["settings"]}
    write_settings(config.out / "best.yaml", settings)
    console.print(_table(task, complete))
    stopped = sum(t.state.name == "PRUNED" for t in trials)
    refused = [t for t in trials if "why" in t.user_attrs]
    console.print(
        f"{len(trials)} of {task.trials} trials: {len(complete)} trained to the end, {stopped} stopped early"
        + (f", {len(refused)} failed ({refused[0].user_attrs['why']})" if refused else "")
        + ("" if len(trials) >= task.trials else "; the same command goes on from here"),
        soft_wrap=True,
    )
    console.print(_gain(best, complete), soft_wrap=True)
    line = " ".join(f"{name}={value}" for name, value in settings.items())
    console.print(f"best settings  --set {line}", soft_wrap=True)
    told = ["recloop train", config.world, "--agent", config.agent, "--config", config.out / "best.yaml"]
    told += [] if task.steps is None else ["--steps", task.steps]
    told += ["--reward", *task.reward] if task.reward else []
    told += [] if task.rules is None else ["--rules", task.rules]
    console.print(
        "train with     " + " ".join(map(str, [*told, "--seed", task.seed, "--out policies/tuned"])), soft_wrap=True
    )
    return {name: str(value) for name, value in settings.items()}


def _gain(best: Any, complete: Sequence[Any]) -> str:
    """What the best settings earn above the defaults, and how far that is to be believed."""
    default = next((t for t in complete if t.user_attrs.get("defaults")), None)
    if default is None:
        return "the defaults were not tried to the end: nothing to hold the best settings against"
    if default.number == best.number:
        return "nothing better than the defaults was found"
    gain = t_interval(np.array(best.user_attrs["returns"]) - np.array(default.user_attrs["returns"]))
    return (
        f"minus the defaults {interval_text(gain, signed=True)} on the users they were chosen by: expect less of "
        "others; recloop compare tells, with seeds and judges"
    )


def _rows(task: Search, trials: Sequence[Any]) -> list[list[str]]:
    """`trials.csv`: a row a trial; `value` is empty where it was stopped early or failed."""
    names = [one.name for one in task.space]
    rows = [["trial", "state", "value", "seconds", *names]]
    for trial in trials:
        value = "" if trial.value is None or trial.state.name != "COMPLETE" else f"{trial.value:.6f}"
        settings = trial.user_attrs.get("settings", {})
        state = {"COMPLETE": "trained", "PRUNED": "stopped early"}.get(trial.state.name, "failed")
        seconds = str(trial.user_attrs.get("seconds", ""))
        rows.append([str(trial.number), state, value, seconds, *(settings.get(name, "") for name in names)])
    return rows


def _table(task: Search, complete: Sequence[Any]) -> Table:
    table = Table(title=f"{task.agent}: return an episode, {task.episodes} episodes of the validation users",
                  title_justify="left")  # fmt: skip
    for name in ("trial", "return", "seconds", *(one.name for one in task.space)):
        table.add_column(name, justify="right")
    for trial in complete[:SHOWN]:
        number = f"{trial.number} (defaults)" if trial.user_attrs.get("defaults") else str(trial.number)
        settings = trial.user_attrs["settings"]
        seconds = number_text(trial.user_attrs["seconds"], ".0f")
        interval = interval_text(t_interval(np.array(trial.user_attrs["returns"])))
        table.add_row(number, interval, seconds, *(settings[one.name] for one in task.space))
    return table


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(TuneConfig, main)
