"""The trainings of a comparison: each made, evaluated and kept once, by whichever process comes to it first."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recloop.agents.configs import AgentConfig
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import facts_of, known_policies, make_policy, save_policy
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.base.locks import FolderInUse, one_writer
from recloop.envs.users.checks import check_users
from recloop.envs.world.world import World
from recloop.experiments.asked import asked_world, made_simulator
from recloop.experiments.comparison.config import CompareConfig
from recloop.experiments.comparison.evaluate import Evaluator, Rollout
from recloop.experiments.comparison.result_store import (
    Finished,
    ResultStore,
    digest_of,
    digest_of_source,
    digest_of_world,
    file_safe,
)
from recloop.experiments.comparison.results import Entry
from recloop.experiments.comparison.tracking import Run, Tags, training_run, training_watch
from recloop.experiments.comparison.workers import work_through
from recloop.experiments.provenance import provenance
from recloop.experiments.stopping import TimeLimit

CIRCUMSTANCES = ("commit", "versions", "device", "threads")
"""What results depend on besides what is asked for, by its name in `run.json`."""


@dataclass
class Clock:
    """Seconds since it was started."""

    start: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """To the millisecond."""
        return round(time.monotonic() - self.start, 3)


def simulators_of(world: World, config: CompareConfig) -> tuple[World, tuple[str, ...]]:
    """The world with a person's own simulators beside, and the names to evaluate in."""
    names = list(world.evaluation_simulators)
    for path in config.users:
        simulator = made_simulator(path)
        name = file_safe(path.rpartition(":")[2])
        if name in world.simulators:
            raise UserSimulatorError(f"--users {path}: the world already has users called '{name}'; rename the class")
        check_users(simulator, world, slate_size=config.slate_size, device=config.device)
        world = world.with_simulators(**{name: simulator})
        names.append(name)
    return world, tuple(dict.fromkeys([world.training_simulator, *names]))


@dataclass(frozen=True)
class _Job:
    """One policy and seed, for a process of its own."""

    config: CompareConfig
    world_folder: Path
    contender: Entry
    seed: int

    @property
    def name(self) -> str:
        return f"{self.contender.label} seed {self.seed}"


def work_side_by_side(
    config: CompareConfig, world_folder: Path, contenders: Sequence[Entry], seeds: Sequence[int]
) -> None:
    """Put the results of what is trained into the ledger, `jobs` at a time; what is there already is only read."""
    alone = replace(config, progress=False, threads=1)
    jobs = [_Job(alone, world_folder, c, seed) for seed in seeds for c in contenders if c.retrained]
    if jobs:
        work_through(jobs, _work, min(config.jobs, len(jobs)), "train", config.progress)


def _work(job: _Job) -> None:
    """`Trainings.result` in a process that has nothing yet."""
    config = job.config
    world = asked_world(World.load(job.world_folder), config.reward, config.rules, config.slate_size)
    world, simulators = simulators_of(world, config)
    Trainings(world, job.config, simulators, job.world_folder).result(job.contender, job.seed)


def places(contenders: Sequence[Entry], seeds: Sequence[int]) -> Iterator[tuple[Entry, int]]:
    """Every policy and seed that is worked out, seed by seed; what does not depend on the seed is, with the first."""
    for seed in seeds:
        for contender in contenders:
            if seed == 0 or not facts_of(contender.source).deterministic:
                yield contender, seed


class Trainings:
    """Makes the result of one policy and seed, or finds it finished."""

    def __init__(
        self, world: World, config: CompareConfig, simulators: tuple[str, ...], world_folder: Path | None
    ) -> None:
        self.world, self.config, self.simulators, self.world_folder = world, config, simulators, world_folder
        self.ledger = ResultStore(config.out / "finished")
        self.arenas: dict[str, Evaluator] = {}
        self.validation: PolicyValidation | None = None
        self.watch = training_watch(
            world,
            episodes=config.episodes,
            seed=config.evaluation_seed,
            slate_size=config.slate_size,
            device=config.device,
        )
        facts = provenance(config.device)
        self.circumstances: dict[str, Any] = {
            "world": digest_of_world(world, world_folder),
            "simulators": simulators,
            "reward": [world.reward.as_dict(), *(digest_of_source(path) for path in config.reward)],
            "rules": world.rules.as_dict(),
            "users": [digest_of_source(path) for path in config.users],
            "episodes": config.episodes,
            "slate_size": config.slate_size,
            "evaluation_seed": config.evaluation_seed,
            **{name: facts[name] for name in CIRCUMSTANCES},
        }

    def known(self, contender: Entry, seed: int) -> Finished | None:
        """A result that is there and fits; None where it is still to be made."""
        return self.ledger.get(contender.label, seed, self._digest(contender, seed))

    def result(self, contender: Entry, seed: int) -> Finished | None:
        """Found, or made under a lock of its own; None while another process is at it."""
        found = self.known(contender, seed)
        if found is not None:
            return found
        with ExitStack() as held:
            try:
                held.enter_context(one_writer(self.ledger.folder / f"{contender.label}-seed{seed}"))
            except FolderInUse:
                return None
            return self.known(contender, seed) or self._made(contender, seed)

    def gathered(
        self, contenders: Sequence[Entry], seeds: Sequence[int], limit: TimeLimit
    ) -> Iterator[tuple[Entry, int, Finished]]:
        """Every result, as they come, while there is time: those that another process is at are waited for, or made
        once it has died."""
        waiting, put_off = deque(places(contenders, seeds)), 0
        while waiting and not limit.is_up:
            contender, seed = waiting.popleft()
            result = self.result(contender, seed)
            if result is None:
                waiting.append((contender, seed))
                put_off += 1
                if put_off >= len(waiting):  # nothing is left but what others are at
                    time.sleep(1)
                continue
            put_off = 0
            yield contender, seed, result

    def _made(self, contender: Entry, seed: int) -> Finished:
        clock = Clock()
        with Run(self.config.out / "tensorboard" / training_run(contender, seed)) as run:
            policy = self._policy(contender, seed, run)
            if Tags.validation_return not in run.curves:  # what learners log as they train, for everybody else
                run.curves[Tags.validation_return] = [(run.last_step, self._validated(policy))]
        fit = clock.seconds()
        self._save(contender, seed, policy)
        clock = Clock()
        rollouts = {name: self._rollout(name, policy, seed) for name in self.simulators}
        result = Finished(rollouts, run.curves, fit, clock.seconds(), policy.privileged, policy.plans)
        self.ledger.put(contender.label, seed, self._digest(contender, seed), result)
        return result

    def _digest(self, contender: Entry, seed: int) -> str:
        config = self.config
        return digest_of(
            {
                **self.circumstances,
                "policy": contender.source,
                "code": digest_of_source(contender.source),
                "seed": seed,
                "steps": config.steps if contender.retrained else None,
                "penalties": asdict(config.penalties) if contender.retrained else None,
                "settings": contender.settings,
            }
        )

    def _policy(self, contender: Entry, seed: int, run: Run) -> Policy:
        config = self.config
        counted = facts_of(contender.source).trains == "loop"
        options = FitOptions(
            seed=seed,
            steps=config.steps if counted else None,
            device=config.device,
            progress=config.progress,
            penalties=config.penalties,
            log=run.log,
            watch=self.watch,
            settings=contender.settings,
        )
        return make_policy(contender.source, self.world, options, trust=config.trust)

    def _validated(self, policy: Policy) -> float:
        """Mean return on the users and the luck that agents are tried on as they train."""
        if self.validation is None:
            self.validation = PolicyValidation(self.world, AgentConfig.validation_episodes, self.config.device)
        return self.validation.mean_return(policy)

    def _rollout(self, simulator: str, policy: Policy, seed: int) -> Rollout:
        if simulator not in self.arenas:
            self.arenas[simulator] = Evaluator(
                self.world,
                simulator,
                episodes=self.config.episodes,
                seed=self.config.evaluation_seed,
                slate_size=self.config.slate_size,
                device=self.config.device,
            )
        return self.arenas[simulator].run(policy, seed)

    def _save(self, contender: Entry, seed: int, policy: Policy) -> None:
        """Keep what can be kept: a planner and a class without `tensors` cannot, and are made again instead."""
        if (
            policy.privileged
            or not policy.savable
            or (Path(contender.source).exists() and contender.source not in known_policies())
        ):
            return
        label = f"{contender.label}-seed{seed}" if contender.retrained else contender.label
        folder = self.config.out / "policies" / label
        if contender.retrained or seed == 0:
            save_policy(policy, folder)
