"""Compare policies in a world: every policy, every seed, the same lanes, training users and judges.

    recloop compare worlds/ml-100k --policies random popularity greedy sasrec ppo --seeds 3 --out runs/ml-100k
    recloop compare worlds/ml-100k --policies popularity my_module:MyPolicy policies/ppo --out runs/mine
    recloop compare worlds/shop --reward purchase*margin=1 leaving=-0.5 --rules rules.yaml --out runs/margin
    recloop compare worlds/ml-100k --users my_module:MyUsers --out runs/my-users
    recloop compare worlds/ml-100k --policies popularity recloop-ppo a2c --seeds 4 --jobs 2 --out runs/learners
    recloop compare worlds/ml-100k --policies popularity recloop-ppo --set recloop-ppo.rollout=16 --out runs/longer
    tensorboard --logdir runs/ml-100k/tensorboard

Writes `config.yaml`, `run.json`, `results.csv`, `claims.json`, `report.html`, `report.md`, `picture.png`,
`tensorboard/`, `policies/` and `finished/`; `segments.csv` too where the world has segments of users. Started again
with the same settings it keeps what is finished; a policy added later joins. A run of other settings is replaced with
`--overwrite` or `--fresh` alone.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tyro

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import facts_of, known_policies, make_policy, save_policy
from recloop.encoders.base.errors import RecloopError, UserSimulatorError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import read_json, replacing_file, write_json
from recloop.envs.evidence.gates import gated
from recloop.envs.simulation.core import checked_device
from recloop.envs.simulation.penalties import PenaltyConfig
from recloop.envs.users.checks import check_users
from recloop.envs.world.world import World
from recloop.experiments.asked import asked_world
from recloop.experiments.commands.user_commands.check_users import made_simulator
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.contenders import as_made, find_contenders, reference_of
from recloop.experiments.comparison.evaluate import Evaluator, Rollout
from recloop.experiments.comparison.result_store import (
    Finished,
    ResultStore,
    digest_of,
    digest_of_source,
    digest_of_world,
    file_safe,
)
from recloop.experiments.comparison.results import Comparison, Entry
from recloop.experiments.comparison.segments import segment_lines, segment_table, write_segments
from recloop.experiments.comparison.tracking import Run, write_evaluations
from recloop.experiments.comparison.verdict import verdict_of
from recloop.experiments.comparison.workers import work_through
from recloop.experiments.output import plain, refuse_others, writing
from recloop.experiments.provenance import provenance, use_threads
from recloop.experiments.report.pictures import picture
from recloop.experiments.report.report import write_report
from recloop.experiments.settings import at_least, given_settings, write_settings
from recloop.experiments.stopping import telling_what_is_kept

WRITTEN = (
    "finished",
    "policies",
    "tensorboard",
    "results.csv",
    "segments.csv",
    "claims.json",
    "report.html",
    "report.md",
    "picture.png",
)
"""What a comparison writes beside `config.yaml` and `run.json`."""


@dataclass(frozen=True)
class CompareConfig:
    """Train what needs training, evaluate every policy on the same lanes, write tables and a report."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    policies: tuple[str, ...] = ("random", "popularity", "encoder", "greedy", "sasrec", "ppo")
    """Names, groups (`recloop policies` lists both), dotted paths module:Class, or policy folders."""
    seeds: int = 3
    """Trainings of each policy that learns with randomness; at least 1."""
    out: Path = Path("runs/comparison")
    """Run folder; started again with the same settings it goes on."""
    set: tuple[str, ...] = ()
    """Settings of policies that train, policy.name=value, over their defaults, --steps and --config."""
    config: Path | None = None
    """YAML file of settings by policy."""
    steps: int = 50_000
    """Environment steps of each RL training."""
    penalties: tyro.conf.OmitArgPrefixes[PenaltyConfig] = field(default_factory=PenaltyConfig)
    """What an RL agent's training steps are charged and given on top of the reward."""
    episodes: int = 500
    """Episodes a policy is evaluated on, going round the evaluation users; at least 2."""
    reference: str | None = None
    """Policy that the others are compared to; default popularity, or the first."""
    reward: tuple[str, ...] = ()
    """What a step is worth, NAME=WEIGHT ..., or a dotted path module:function; default the world's reward."""
    rules: Path | None = None
    """YAML or JSON file of rules that every slate keeps, whoever picks it; default the world's."""
    users: tuple[str, ...] = ()
    """Further simulators to evaluate in: dotted paths module:MyUsers or installed entry points."""
    slate_size: int | None = None
    """Items a slate; default the world's."""
    evaluation_seed: int = 20_000
    """Seed of the evaluation users' luck."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    jobs: int = 1
    """Trainings side by side, in processes of one thread each; results are those of one after the other."""
    trust: bool = False
    """Let a policy folder import a class of its own."""
    fresh: bool = False
    """Forget what an earlier run of this folder finished."""
    overwrite: bool = False
    """Replace a run that was made with other settings."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(
            1, seeds=self.seeds, steps=self.steps, slate_size=self.slate_size, threads=self.threads, jobs=self.jobs
        )
        at_least(2, episodes=self.episodes)
        if not self.policies:
            raise RecloopError("no policies to compare; name some after --policies")


@dataclass
class _Clock:
    """Seconds since it was started."""

    start: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return round(time.monotonic() - self.start, 3)


def main(config: CompareConfig) -> Comparison:
    """Load the world, compare, print the table, where the report is, and the verdict."""
    from recloop.experiments.report.tables import print_comparison, wide_console

    use_threads(1 if config.jobs > 1 else config.threads)
    world = World.load(config.world)
    comparison = compare(world, config, world_folder=config.world)
    claims = claims_of(comparison)
    print_comparison(comparison, claims, config.out)
    segments = segment_lines(comparison)
    for simulator in comparison.simulators if segments else ():
        wide_console().print(segment_table(comparison, segments, simulator))
    wide_console().print(verdict_of(comparison, claims), soft_wrap=True)
    return comparison


def compare(world: World, config: CompareConfig, world_folder: Path | None = None) -> Comparison:
    """Run a comparison and write its folder.

    Args:
        world: where to compare.
        config: what; its `world` is only recorded, and `jobs` count where there is a `world_folder`.
        world_folder: the world's folder, so that a changed world is noticed on resuming.

    Raises:
        RecloopError: before anything is written, where the settings do not fit the world.
        KeyboardInterrupt: with a sentence on what was kept.
    """
    checked_device(config.device)
    world.spec(config.slate_size)
    world = asked_world(world, config.reward, config.rules, config.slate_size)
    contenders = find_contenders(config.policies, world, given_settings(config.config, config.set), config.trust)
    reference = reference_of(config.reference, contenders)
    world, simulators = _simulators(world, config)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {**provenance(config.device), "seeds": list(range(config.seeds)), "started": started}
    facts["settings"] = {c.label: dict(c.settings) for c in contenders if c.settings}
    facts["made_with"] = _made_with(world, config, world_folder, contenders)
    with writing(config.out):
        _make_way(config, facts["made_with"])
        return _compare(world, config, world_folder, contenders, reference, simulators, facts)


def _compare(
    world: World,
    config: CompareConfig,
    world_folder: Path | None,
    contenders: tuple[Entry, ...],
    reference: str,
    simulators: tuple[str, ...],
    facts: dict[str, Any],
) -> Comparison:
    clock = _Clock()
    config.out.mkdir(parents=True, exist_ok=True)
    write_settings(config.out / "config.yaml", asdict(config))
    write_json(config.out / "run.json", {**facts, "state": "running"})
    finished: dict[tuple[str, int], Finished] = {}
    with telling_what_is_kept(lambda: _kept(config, contenders, finished)):
        if config.jobs > 1 and world_folder is not None:
            _work_side_by_side(config, world_folder, contenders)
            config = replace(config, fresh=False)  # what is finished now is as fresh as can be
        runner = _ComparisonRunner(world, config, simulators, world_folder)
        jobs = [(c, seed) for c in contenders for seed in range(config.seeds)]
        bar = progress_bar(jobs, desc="compare", unit="training", disable=not config.progress)
        for contender, seed in bar:
            bar.set_postfix_str(f"{contender.label} seed {seed}")
            same = seed > 0 and facts_of(contender.source).deterministic
            finished[contender.label, seed] = finished[contender.label, 0] if same else runner.result(contender, seed)
    if not world.is_truth:
        judged = [name for name in simulators if name != "truth"]
        world = gated(world, judged, seed=config.evaluation_seed, device=config.device)
    comparison = Comparison(
        world=world,
        contenders=tuple(as_made(c, finished, world, config.seeds, config.steps) for c in contenders),
        seeds=tuple(range(config.seeds)),
        simulators=simulators,
        reference=reference,
        rollouts={
            (label, seed, name): result.rollouts[name]
            for (label, seed), result in finished.items()
            for name in simulators
        },
        curves={place: result.curves for place, result in finished.items()},
    )
    times = {
        f"{label}-seed{seed}": {"fit": r.fit_seconds, "evaluate": r.evaluate_seconds}
        for (label, seed), r in finished.items()
        if seed == 0 or r is not finished[label, 0]
    }
    facts = {**facts, "state": "finished", "seconds": clock.seconds(), "seconds_by_policy": times}
    comparison.write_csv(config.out / "results.csv")
    segments = segment_lines(comparison)
    if segments:
        write_segments(config.out / "segments.csv", comparison, segments)
    claims = claims_of(comparison)
    write_evaluations(comparison, claims, config.out / "tensorboard")
    write_json(config.out / "claims.json", [claim.as_dict() for claim in claims])
    write_report(config.out / "report.html", comparison, claims, facts)
    with replacing_file(config.out / "picture.png") as part:
        part.write_bytes(picture(comparison))
    write_json(config.out / "run.json", facts)
    return comparison


def _made_with(
    world: World, config: CompareConfig, world_folder: Path | None, contenders: tuple[Entry, ...]
) -> dict[str, Any]:
    """What all results of a run share; policies and seeds may join later."""
    names = ("episodes", "slate_size", "evaluation_seed", "device", "steps")
    facts = {
        "world": digest_of_world(world, world_folder),
        "reward": [world.reward.as_dict(), *(digest_of_source(path) for path in config.reward)],
        "rules": world.rules.as_dict(),
        "users": [digest_of_source(path) for path in config.users],
        "penalties": asdict(config.penalties),
        "policies": {c.label: c.source for c in contenders},
        "settings": {c.label: sorted(map(list, c.settings.items())) for c in contenders},
    }
    made_with: dict[str, Any] = plain({**facts, **{name: getattr(config, name) for name in names}})
    return made_with


def _make_way(config: CompareConfig, made_with: Mapping[str, Any]) -> None:
    """Refuse a run folder of other settings, or clear it where it is to be overwritten."""
    run = config.out / "run.json"
    if not run.exists():
        return
    try:
        refuse_others(config.out, "run", read_json(run).get("made_with", {}), made_with)
    except RecloopError:
        if not (config.overwrite or config.fresh):
            raise
        for name in WRITTEN:
            path = config.out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _kept(config: CompareConfig, contenders: tuple[Entry, ...], finished: Mapping[tuple[str, int], Finished]) -> str:
    store, places = ResultStore(config.out / "finished"), [(c, s) for c in contenders for s in range(config.seeds)]
    kept = sum(
        (c.label, seed) in finished or store.has(c.label, 0 if facts_of(c.source).deterministic else seed)
        for c, seed in places
    )
    return f"{kept} of {len(places)} results are kept in {config.out}, the same command goes on from there"


def _simulators(world: World, config: CompareConfig) -> tuple[World, tuple[str, ...]]:
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


def _work_side_by_side(config: CompareConfig, world_folder: Path, contenders: tuple[Entry, ...]) -> None:
    """Put the results of what is trained into the ledger, `jobs` at a time; what is there already is only read."""
    alone = replace(config, progress=False, threads=1)
    jobs = [_Job(alone, world_folder, c, seed) for c in contenders if c.retrained for seed in range(config.seeds)]
    if jobs:
        work_through(jobs, _work, min(config.jobs, len(jobs)), "train", config.progress)


def _work(job: _Job) -> None:
    """`_ComparisonRunner.result` in a process that has nothing yet."""
    config = job.config
    world = asked_world(World.load(job.world_folder), config.reward, config.rules, config.slate_size)
    world, simulators = _simulators(world, config)
    _ComparisonRunner(world, job.config, simulators, job.world_folder).result(job.contender, job.seed)


class _ComparisonRunner:
    """Makes the result of one policy and seed, or finds it finished."""

    def __init__(
        self, world: World, config: CompareConfig, simulators: tuple[str, ...], world_folder: Path | None
    ) -> None:
        self.world, self.config, self.simulators = world, config, simulators
        self.ledger = ResultStore(config.out / "finished")
        self.arenas: dict[str, Evaluator] = {}
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
            **{name: facts[name] for name in ("commit", "versions", "device", "threads")},
        }

    def result(self, contender: Entry, seed: int) -> Finished:
        config = self.config
        digest = digest_of(
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
        known = None if config.fresh else self.ledger.get(contender.label, seed, digest)
        if known is not None:
            return known
        clock = _Clock()
        with Run(config.out / "tensorboard" / f"{contender.label}-seed{seed}") as run:
            policy = self._policy(contender, seed, run)
        fit = clock.seconds()
        self._save(contender, seed, policy)
        clock = _Clock()
        rollouts = {name: self._rollout(name, policy, seed) for name in self.simulators}
        result = Finished(rollouts, run.curves, fit, clock.seconds(), policy.privileged, policy.plans)
        self.ledger.put(contender.label, seed, digest, result)
        return result

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
            settings=contender.settings,
        )
        return make_policy(contender.source, self.world, options, trust=config.trust)

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
        if policy.privileged or (Path(contender.source).exists() and contender.source not in known_policies()):
            return
        label = f"{contender.label}-seed{seed}" if contender.retrained else contender.label
        folder = self.config.out / "policies" / label
        if contender.retrained or seed == 0:
            save_policy(policy, folder)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(CompareConfig, main)
