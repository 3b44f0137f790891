"""Compare policies in a world: every policy, every seed, the same lanes, training users and judges.

    recloop compare worlds/ml-100k --policies random popularity greedy sasrec ppo --seeds 3 --out runs/ml-100k
    recloop compare worlds/ml-100k --policies popularity my_module:MyPolicy policies/ppo --out runs/mine
    recloop compare worlds/shop --reward purchase*margin=1 leaving=-0.5 --rules rules.yaml --out runs/margin
    recloop compare worlds/ml-100k --users my_module:MyUsers --out runs/my-users
    recloop compare worlds/ml-100k --policies popularity recloop-ppo a2c --seeds 4 --jobs 2 --out runs/learners
    recloop compare worlds/ml-100k --policies popularity recloop-ppo a2c --seeds 4 --out runs/learners --join
    recloop compare worlds/ml-100k --policies popularity recloop-ppo --set recloop-ppo.rollout=16 --out runs/longer
    tensorboard --logdir runs/ml-100k/tensorboard

Writes `config.yaml`, `run.json`, `results.csv`, `claims.json`, `report.html`, `report.md`, `picture.png`,
`tensorboard/`, `policies/` and `finished/`; `segments.csv` too where the world has segments of users. Started again
with the same settings it keeps what is finished; a policy added later joins. A run of other settings is replaced with
`--overwrite` or `--fresh` alone. With `--join` the same command, in another terminal or on another machine that shares
the folder, takes over trainings that nobody has begun; the run itself gathers them, and makes what a helper that died
left undone.
"""

import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
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
from recloop.experiments.comparison.trainings import CIRCUMSTANCES, Clock, Trainings, simulators_of, work_side_by_side
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
    reference = reference_of(config.reference, contenders)
    writers = [made_writer(path) for path in config.writer]
    started = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {**provenance(config.device), "seeds": list(range(config.seeds)), "started": started}
    facts["settings"] = {c.label: dict(c.settings) for c in contenders if c.settings}
    facts["made_with"] = _made_with(world, config, world_folder, contenders)
    with writing(config.out):
        _make_way(config, facts["made_with"])
        comparison, claims = _compare(world, config, world_folder, contenders, reference, simulators, facts)
    for writer in writers:
        write_curves(writer, comparison)
        write_runs(writer, comparison, claims)
    return comparison


def _compare(
    world: World,
    config: CompareConfig,
    world_folder: Path | None,
    contenders: tuple[Entry, ...],
    reference: str,
    simulators: tuple[str, ...],
    facts: dict[str, Any],
) -> tuple[Comparison, tuple[Claim, ...]]:
    clock = Clock()
    config.out.mkdir(parents=True, exist_ok=True)
    write_settings(config.out / "config.yaml", asdict(config))
    write_json(config.out / "run.json", {**facts, "state": "running"})
    finished: dict[tuple[str, int], Finished] = {}
    with telling_what_is_kept(lambda: _kept(config, contenders, finished)):
        if config.jobs > 1 and world_folder is not None:
            work_side_by_side(config, world_folder, contenders)
            config = replace(config, fresh=False)  # what is finished now is as fresh as can be
        runner = Trainings(world, config, simulators, world_folder)
        with progress_bar(total=len(contenders) * config.seeds, desc="compare", unit="training",
                          disable=not config.progress) as bar:  # fmt: skip
            for contender, seed, result in _gathered(runner, contenders, config.seeds):
                bar.set_postfix_str(f"{contender.label} seed {seed}")
                finished[contender.label, seed] = result
                bar.update()
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
    runner, done = Trainings(world, replace(config, fresh=False), simulators, world_folder), 0
    for contender, seed in reversed([*_places(contenders, config.seeds)]):
        if runner.known(contender, seed) is None and runner.result(contender, seed) is not None:
            done += 1
    return done


def _asked(world: World, config: CompareConfig) -> tuple[World, tuple[Entry, ...], tuple[str, ...]]:
    """The world as it is asked for, the policies, and the simulators to evaluate in."""
    world = asked_world(world, config.reward, config.rules, config.slate_size)
    contenders = find_contenders(config.policies, world, given_settings(config.config, config.set), config.trust)
    world, simulators = simulators_of(world, config)
    return world, contenders, simulators


def _places(contenders: Sequence[Entry], seeds: int) -> Iterator[tuple[Entry, int]]:
    """Every policy and seed that is worked out; what does not depend on the seed is, once."""
    for contender in contenders:
        for seed in range(1 if facts_of(contender.source).deterministic else seeds):
            yield contender, seed


def _gathered(runner: Trainings, contenders: Sequence[Entry], seeds: int) -> Iterator[tuple[Entry, int, Finished]]:
    """Every result, as they come: those that another process is at are waited for, or made once it has died."""
    waiting, put_off = deque(_places(contenders, seeds)), 0
    while waiting:
        contender, seed = waiting.popleft()
        result = runner.result(contender, seed)
        if result is None:
            waiting.append((contender, seed))
            put_off += 1
            if put_off >= len(waiting):  # nothing is left but what others are at
                time.sleep(1)
            continue
        put_off = 0
        yield contender, seed, result
        if facts_of(contender.source).deterministic:
            yield from ((contender, other, result) for other in range(1, seeds))


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


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(CompareConfig, main)
