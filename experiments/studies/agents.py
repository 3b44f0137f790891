"""What agents learn in worlds whose best is known: the share of the gap from greedy to the planner that each closes.

    python -m recloop.experiments.studies.agents
    python -m recloop.experiments.studies.agents --agents slate-ppo recloop-ppo sac --seeds 2 --steps 50000
    python -m recloop.experiments.studies.agents --worlds boredom clickbait retention drift --agents slate-ppo --seeds 3
    python -m recloop.experiments.studies.agents --users tune --set slate-ppo.gamma=0.9 --keep /tmp/tuning.csv

In `demo`, agents train in the truth itself; in the other truth worlds in users fitted on the log that a switching
policy wrote, without a look at the truth. All are evaluated in the truth, in the same lanes with the same luck. The
planner knows the truth: in `demo` it is the optimum, elsewhere a good plan. Settings may be chosen on the `tune` users;
a table for others is of the `evaluate` users. Rows replace those of the same world and agent.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recloop.agents.learners.contract import Learner
from recloop.agents.learners.off_policy.proto import ProtoLearner
from recloop.agents.networks.proposals import ProposalPolicy
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import check_settings, facts_of, make_policy, names_of
from recloop.agents.sb3.training import SB3Agent
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.progress import progress_bar
from recloop.envs.build.pipeline import build_world
from recloop.envs.truth import TRUTHS, truth_log
from recloop.envs.truth.built_in import demo_world
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import by_user, ratio_interval, t_interval
from recloop.experiments.comparison.policy_values import cold_world
from recloop.experiments.comparison.tracking import Run, kept_start
from recloop.experiments.provenance import command, commit, short_commit, use_threads
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least, given_settings, settings_by_policy
from recloop.experiments.studies.truth.unit import TruthUnitConfig, as_the_truth, build_config, truth_of

COLUMNS = (
    "world", "agent", "action_mode", "steps", "seeds", "return_mean", "low", "high", "share_of_gap",
    "steps_per_second", "command", "commit",
)  # fmt: skip
"""Of `experiments/results/agents.csv`; the interval (95 %) is over users, of the mean over trainings."""
FLOOR, TOP = "greedy", "planner"
DEMO = "demo"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AgentsConfig:
    """Train agents in worlds whose best is known, and say how much of the way to it they come."""

    worlds: tuple[str, ...] = (DEMO,)
    """`demo`, or truth worlds by name."""
    agents: tuple[str, ...] = ()
    """Policies by name; default every one that learns in the loop or from the log, and what they are held against."""
    seeds: int = 5
    """Trainings of every policy that learns with randomness."""
    steps: int = 100_000
    """Environment steps of each training in the loop."""
    episodes: int = 600
    """Episodes a policy is evaluated on, going round the users."""
    users: Literal["evaluate", "tune"] = "evaluate"
    """Whom policies are evaluated on."""
    set: tuple[str, ...] = ()
    """Settings of agents, agent.name=value."""
    demo: Path | None = None
    """World folder of an earlier `recloop demo`, which is then not made anew."""
    keep: Path | None = Path("experiments/results/agents.csv")
    """CSV into which the rows are put."""
    logs: Path = Path("runs/agents")
    """Folder of the TensorBoard runs."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds, steps=self.steps)
        at_least(2, episodes=self.episodes)
        for name in self.worlds:
            if name != DEMO and name not in TRUTHS:
                raise RecloopError(unknown_name("world", name, (DEMO, *TRUTHS)))

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """By agent."""
        return settings_by_policy(given_settings(None, self.set), list(self.named))

    @property
    def named(self) -> tuple[str, ...]:
        """The policies in the order of the table, what they are held against first."""
        learning = [*names_of(trains="log"), *names_of(trains="loop")]
        asked = self.agents or ("random", "popularity", "encoder", *learning)
        return (FLOOR, TOP, *(name for name in asked if name not in (FLOOR, TOP)))


@dataclass(frozen=True)
class Place:
    """Where agents train, and in front of whom they are evaluated.

    Args:
        name: of the world.
        world: to train in.
        truth: who is written down, with nothing learned.
        users: who answer in the evaluation.
        seed: of the evaluation users' luck.
    """

    name: str
    world: World
    truth: World
    users: UserSimulator
    seed: int = 20_000

    @classmethod
    def of(cls, name: str, demo: Path | None = None, progress: bool = False, warm: bool = False) -> "Place":
        """The demo's world, or a truth world with users fitted on the log that its switching policy wrote.

        Users start cold there, so that agents have all to find out; `warm` leaves everybody their logged history.
        """
        if name == DEMO:
            world = demo_world(progress=progress) if demo is None else World.load(demo)
            return cls(name, world, world, world.simulators["truth"])
        config = TruthUnitConfig(name, "switching", 0)
        truth = truth_of(config)
        fitted = build_world(truth_log(truth, config.log, seed=config.draw), build_config(config, truth))
        world = as_the_truth(fitted, truth)
        return cls(name, world if warm else cold_world(world), truth, truth.simulators["truth"])

    def returns(self, policy: Policy, config: AgentsConfig, seed: int) -> Floats:
        """Mean return (U,) of every user."""
        world = self.truth if policy.privileged else self.world
        rows = self.world.users.rows(config.users).tolist()
        arena = Evaluator(world, self.users, episodes=config.episodes, users=rows, seed=self.seed)
        found = arena.run(policy, seed)
        return by_user(found.value, found.users)


def main(config: AgentsConfig) -> list[dict[str, Any]]:
    """Train, evaluate, print and keep every row as soon as it is known."""
    use_threads(1)
    for name in config.named:
        if config.settings.get(name):
            check_settings(name, config.settings[name])
    rows = []
    for world in config.worlds:
        place = Place.of(world, config.demo, config.progress)
        rows += study(place, config)
    return rows


def study(place: Place, config: AgentsConfig) -> list[dict[str, Any]]:
    """A row a policy in one world."""
    console, source = wide_console(), {"command": command(), "commit": short_commit(commit())}
    known: dict[str, Floats] = {}
    rows = []
    for name in progress_bar(config.named, desc=place.name, unit="agent", disable=not config.progress):
        facts = facts_of(name)
        seeds = 1 if facts.deterministic else config.seeds
        trained = [_trained(place, name, seed, config) for seed in range(seeds)]
        known[name] = np.mean([returns for returns, _, _ in trained], axis=0)
        value, share = t_interval(known[name]), ""
        if TOP in known and name not in (FLOOR, TOP):
            floor = known[FLOOR]
            share = f"{ratio_interval(known[name] - floor, known[TOP] - floor).mean:.2f}"
        steps = int(config.settings.get(name, {}).get("steps", config.steps)) if facts.trains == "loop" else 0
        row = {
            "world": place.name,
            "agent": name,
            "action_mode": _mode(facts) if facts.trains == "loop" else "",
            "steps": steps or "",
            "seeds": seeds,
            "return_mean": f"{value.mean:.2f}",
            "low": f"{value.low:.2f}",
            "high": f"{value.high:.2f}",
            "share_of_gap": share,
            "steps_per_second": f"{steps / np.median([s for _, s, _ in trained]):.0f}" if steps else "",
            **source,
        }
        each = ", ".join(f"{returns.mean():.2f}" for returns, _, _ in trained)
        idle = sum(kept for _, _, kept in trained)
        told = f"{place.name} {name}: {value} (trainings {each}), share of the gap {share or '-'}"
        console.print(told + (f"; {idle} KEPT THEIR START" if idle else ""), soft_wrap=True)
        if config.keep is not None:
            replace_rows(config.keep, COLUMNS, ("world", "agent"), [row])
        rows.append(row)
    return rows


def _trained(place: Place, name: str, seed: int, config: AgentsConfig) -> tuple[Floats, float, bool]:
    """Returns by user, CPU seconds of the training, and whether it kept its start."""
    facts, begin = facts_of(name), time.process_time()
    world = place.truth if facts.privileged else place.world
    with Run(config.logs / place.name / f"{name}-seed{seed}") as run:
        options = FitOptions(seed=seed, log=run.log, settings=config.settings.get(name, {}))
        if facts.trains == "loop" and "steps" not in options.settings:
            options = replace(options, steps=config.steps)
        policy = make_policy(name, world, options)
    seconds = time.process_time() - begin
    return place.returns(policy, config, seed), seconds, kept_start(run.curves)


def _mode(facts: type[Any]) -> str:
    """What an action of an agent is."""
    if issubclass(facts, SB3Agent):
        return facts.head
    if getattr(facts, "policy_class", None) is ProposalPolicy:
        return "proposals"
    return "proto" if issubclass(facts, ProtoLearner) else "candidates" if issubclass(facts, Learner) else "slate"


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(AgentsConfig, main)
