"""Compare policies in a world: every policy, every seed, the same lanes, training users and judges.

    recloop compare worlds/ml-100k --policies random popularity greedy sasrec ppo --seeds 3 --out runs/ml-100k
    recloop compare worlds/ml-100k --policies popularity my_module:MyPolicy policies/ppo --out runs/mine
    recloop compare worlds/shop --reward purchase*margin=1 leaving=-0.5 --rules rules.yaml --out runs/margin
    recloop compare worlds/ml-100k --users my_module:MyUsers --out runs/my-users
    recloop compare worlds/ml-100k --policies popularity recloop-ppo a2c --seeds 4 --jobs 2 --out runs/learners
    recloop compare worlds/ml-100k --policies popularity recloop-ppo a2c --seeds 4 --out runs/learners --join
    recloop compare worlds/ml-100k --policies popularity recloop-ppo a2c --seeds 3:10 --budget 2h --out runs/decided
    recloop compare worlds/ml-100k --policies popularity recloop-ppo --set recloop-ppo.rollout=16 --out runs/longer
    tensorboard --logdir runs/ml-100k/tensorboard

Writes `config.yaml`, `run.json`, `results.csv`, `claims.json`, `report.html`, `report.md`, `picture.png`,
`tensorboard/`, `policies/` and `finished/`; `segments.csv` too where the world has segments of users. Started again
with the same settings it keeps what is finished; a policy added later joins. A run of other settings is replaced with
`--overwrite` or `--fresh` alone. With `--join` the same command, in another terminal or on another machine that shares
the folder, takes over trainings that nobody has begun; the run itself gathers them, and makes what a helper that died
left undone.

`--seeds 3:10` trains three seeds of each policy and goes on, to five, eight and ten, while more may decide a pair;
choose the range before the first result is seen. `--budget 30m` ends trainings and evaluation after so long: what is
finished is compared, what is not is named, and the same command goes on.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recloop.agents.registry import facts_of
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import read_json, replacing_file, write_json
from recloop.envs.evidence.gates import gated
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.world import World
from recloop.experiments.asked import asked_world
from recloop.experiments.comparison.claims import Claim, claims_of
from recloop.experiments.comparison.config import CompareConfig
from recloop.experiments.comparison.contenders import as_made, find_contenders, reference_of
from recloop.experiments.comparison.result_store import (
    Finished,
    ResultStore,
    digest_of_source,
    digest_of_world,
)
from recloop.experiments.comparison.results import Comparison, Entry
from recloop.experiments.comparison.segments import segment_lines, segment_table, write_segments
from recloop.experiments.comparison.trainings import (
    CIRCUMSTANCES,
    Clock,
    Trainings,
    places,
    simulators_of,
    work_side_by_side,
)
from recloop.experiments.comparison.verdict import verdict_of
from recloop.experiments.output import plain, refuse_others, writing
from recloop.experiments.provenance import provenance, use_threads
from recloop.experiments.report.pictures import picture
from recloop.experiments.report.report import write_report
from recloop.experiments.report.tensorboard import (
    TensorBoardWriter,
    made_writer,
    write_curves,
    write_runs,
)
from recloop.experiments.settings import given_settings, write_settings
from recloop.experiments.stopping import TimeLimit, seconds_of, telling_what_is_kept

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


def main(config: CompareConfig) -> Comparison | None:
    """Load the world, compare, print the table, where the report is, and the verdict; or help another process to."""
    from recloop.experiments.report.tables import print_comparison, wide_console

    use_threads(1 if config.jobs > 1 else config.threads)
    world = World.load(config.world)
    if config.join:
        done = join(world, config, config.world)
        print(f"{done} training(s) of {config.out} done here; the run itself gathers them")
        return None
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
    world, contenders, simulators = _asked(world, config)
    reference_of(config.reference, contenders)
    writers = [made_writer(path) for path in config.writer]
    started = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {**provenance(config.device), "started": started}
    facts["settings"] = {c.label: dict(c.settings) for c in contenders if c.settings}
    facts["made_with"] = _made_with(world, config, world_folder, contenders)
    with writing(config.out):
        _make_way(config, facts["made_with"])
        comparison, claims = _compare(world, config, world_folder, contenders, simulators, facts)
    for writer in writers:
        write_curves(writer, comparison)
        write_runs(writer, comparison, claims)
    return comparison


def _compare(
    world: World,
    config: CompareConfig,
    world_folder: Path | None,
    contenders: tuple[Entry, ...],
    simulators: tuple[str, ...],
    facts: dict[str, Any],
) -> tuple[Comparison, tuple[Claim, ...]]:
    clock, limit = Clock(), TimeLimit(seconds_of(config.budget))
    config.out.mkdir(parents=True, exist_ok=True)
    write_settings(config.out / "config.yaml", asdict(config))
    runner = Trainings(world, config, simulators, world_folder)
    finished: dict[tuple[str, int], Finished] = {}
    stage = 0
    with limit, telling_what_is_kept(lambda: _kept(config, contenders, finished, stage)):
        for stage in config.stages:
            facts["seeds"] = list(range(stage))
            write_json(config.out / "run.json", {**facts, "state": "running"})
            _fill(runner, contenders, stage, finished, limit)
            if not world.is_truth:
                judged = [name for name in simulators if name != "truth"]
                world = gated(world, judged, seed=config.evaluation_seed, device=config.device)
            found = _found(world, config, contenders, simulators, finished, stage)
            if found.unreached or not any(claim.waits for claim in claims_of(found)):
                break
    for contender, seed in places(contenders, range(stage)):  # what processes of --jobs finished before time was up
        known = finished.get((contender.label, seed)) or runner.known(contender, seed)
        if known is not None:
            finished[contender.label, seed] = known
    comparison = _found(world, config, contenders, simulators, finished, stage)
    times = {
        f"{label}-seed{seed}": {"fit": r.fit_seconds, "evaluate": r.evaluate_seconds}
        for (label, seed), r in finished.items()
    }
    facts |= {"seeds": list(comparison.seeds), "seconds": clock.seconds(), "seconds_by_policy": times}
    facts["state"] = "out of time" if comparison.unreached else "finished"
    comparison.write_csv(config.out / "results.csv")
    segments = segment_lines(comparison)
    if segments:
        write_segments(config.out / "segments.csv", comparison, segments)
    claims = claims_of(comparison)
    write_runs(TensorBoardWriter(config.out / "tensorboard"), comparison, claims)
    write_json(config.out / "claims.json", [claim.as_dict() for claim in claims])
    write_report(config.out / "report.html", comparison, claims, facts)
    with replacing_file(config.out / "picture.png") as part:
        part.write_bytes(picture(comparison))
    write_json(config.out / "run.json", facts)
    return comparison, claims


def join(world: World, config: CompareConfig, world_folder: Path) -> int:
    """Make trainings of a run that another process has started, those it would come to last first; how many it was.

    Raises:
        RecloopError: nobody has started the run, or with other settings, or where things are unlike here: results of
            unlike circumstances are never mixed.
    """
    world, contenders, simulators = _asked(world, config)
    run = config.out / "run.json"
    if not run.exists():
        raise RecloopError(f"{config.out} holds no run to join; start the same command without --join first")
    there, here = read_json(run), plain(provenance(config.device))
    refuse_others(config.out, "run", there.get("made_with", {}), _made_with(world, config, world_folder, contenders))
    for name in CIRCUMSTANCES:
        if there.get(name) != here[name]:
            raise RecloopError(
                f"{config.out} is made with {name} {there.get(name)}, here it is {here[name]}: the run would not use "
                "such results; join with the same"
            )
    runner, done = Trainings(world, config, simulators, world_folder), 0
    seeds = there.get("seeds", range(config.stages[0]))  # that the run has come to
    with TimeLimit(seconds_of(config.budget)) as limit:
        for contender, seed in reversed([*places(contenders, seeds)]):
            if limit.is_up:
                break
            if runner.known(contender, seed) is None and runner.result(contender, seed) is not None:
                done += 1
    return done


def _asked(world: World, config: CompareConfig) -> tuple[World, tuple[Entry, ...], tuple[str, ...]]:
    """The world as it is asked for, the policies, and the simulators to evaluate in."""
    world = asked_world(world, config.reward, config.rules, config.slate_size)
    contenders = find_contenders(config.policies, world, given_settings(config.config, config.set), config.trust)
    world, simulators = simulators_of(world, config)
    return world, contenders, simulators


def _fill(
    runner: Trainings,
    contenders: Sequence[Entry],
    stage: int,
    finished: dict[tuple[str, int], Finished],
    limit: TimeLimit,
) -> None:
    """Put the results of `stage` seeds into `finished` where they are not there yet, while there is time."""
    config, seeds = runner.config, [seed for seed in range(stage) if not _has_all(contenders, seed, finished)]
    if config.jobs > 1 and runner.world_folder is not None:
        work_side_by_side(config, runner.world_folder, contenders, seeds)
    total = len([*places(contenders, seeds)])
    with progress_bar(total=total, desc="compare", unit="training", disable=not config.progress) as bar:
        for contender, seed, result in runner.gathered(contenders, seeds, limit):
            finished[contender.label, seed] = result
            bar.set_postfix_str(", ".join(part for part in (f"{contender.label} seed {seed}", str(limit)) if part))
            bar.update()


def _has_all(contenders: Sequence[Entry], seed: int, finished: Mapping[tuple[str, int], Finished]) -> bool:
    return all((contender.label, of) in finished for contender, of in places(contenders, [seed]))


def _found(
    world: World,
    config: CompareConfig,
    contenders: Sequence[Entry],
    simulators: tuple[str, ...],
    finished: Mapping[tuple[str, int], Finished],
    stage: int,
) -> Comparison:
    """What is finished, as a comparison over the seeds that all its policies have, and what of `stage` seeds is not."""
    results = dict(finished)
    for contender in contenders:
        if facts_of(contender.source).deterministic and (contender.label, 0) in finished:
            results |= {(contender.label, seed): finished[contender.label, 0] for seed in range(stage)}
    missing = {c.label: tuple(seed for seed in range(stage) if (c.label, seed) not in results) for c in contenders}
    there = [contender for contender in contenders if 0 not in missing[contender.label]]
    if not there:
        raise RecloopError(f"--budget {config.budget} was over before anything was finished; give more time")
    seeds = min(min(missing[contender.label], default=stage) for contender in there)
    seeds = max((look for look in config.looks if look <= seeds), default=seeds)
    wanted = config.reference if config.reference in {c.label for c in there} else None
    return Comparison(
        world=world,
        contenders=tuple(as_made(c, results, world, seeds, config.steps) for c in there),
        seeds=tuple(range(seeds)),
        simulators=simulators,
        reference=reference_of(wanted, there),
        rollouts={
            (c.label, seed, name): results[c.label, seed].rollouts[name]
            for c in there
            for seed in range(seeds)
            for name in simulators
        },
        curves={(c.label, seed): results[c.label, seed].curves for c in there for seed in range(seeds)},
        looks=config.looks,
        unreached={label: seeds for label, seeds in missing.items() if seeds},
    )


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
    """Refuse a run folder of other settings, or clear it where it is to be overwritten; forget results if asked to."""
    run = config.out / "run.json"
    if config.fresh:
        shutil.rmtree(config.out / "finished", ignore_errors=True)
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


def _kept(
    config: CompareConfig, contenders: Sequence[Entry], finished: Mapping[tuple[str, int], Finished], stage: int
) -> str:
    store, wanted = ResultStore(config.out / "finished"), [*places(contenders, range(stage))]
    kept = sum((c.label, seed) in finished or store.has(c.label, seed) for c, seed in wanted)
    return f"{kept} of {len(wanted)} results are kept in {config.out}, the same command goes on from there"


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(CompareConfig, main)
