"""Faults on purpose, and what became of them.

    python -m recloop.experiments.studies.faults --table experiments/results/faults.csv
    python -m recloop.experiments.studies.faults --damages 100 --kills 4 --stops 2 --minutes 3

Folders of every kind are damaged at random (flips, cuts, swaps, losses); build, train and compare are killed and
stopped at random, with and without `--jobs`, started twice in one folder, and run on disks that are full or cannot be
written.
Each fault is refused in one line (or the damaged thing is made anew), harmless (the result is the same, byte by byte),
or wrong: a traceback, another result without a word, something left behind, or a process that lives on.
"""

import csv
import importlib
import os
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from recloop.encoders.base.names import csv_text
from recloop.encoders.base.storage import replacing_file
from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world
from recloop.envs.world.world import World
from recloop.experiments import output
from recloop.experiments.provenance import command, commit, short_commit, use_threads
from recloop.experiments.settings import at_least
from recloop.experiments.studies.faults.damage import HARMLESS, REFUSED, WRONG, artifacts_in, damages, make_artifacts
from recloop.experiments.studies.faults.processes import (
    Tried,
    commands,
    finished,
    kills,
    on_disk,
    small_disk,
    stops,
    two_writers,
)

_NEEDED = (
    *(f"recloop.experiments.commands.{name}" for name in ("build", "train", "compare")),
    *("recloop.agents.learners.on_policy.a2c", "recloop.envs.users.fitted.ensemble", "recloop.envs.truth.clicks"),
    *("torch.utils.tensorboard.writer", "matplotlib.figure", "sklearn.cluster", "tyro", "pyarrow.parquet"),
)
COLUMNS = ("what", "tried", REFUSED, HARMLESS, WRONG, "command", "commit")
_SMALL = BoredomWorldConfig(
    users=32, topics=2, items=16, slate_size=3, max_steps=4, sessions=2, logged_slates=6, dim=4, state_epochs=1,
    user_epochs=1,
)  # fmt: skip


@dataclass(frozen=True)
class FaultsConfig:
    """Damage, kill, stop and crowd out, and count what comes of it."""

    damages: int = 2000
    """Damaged folders, over world, policy, ledger, stage and checkpoint."""
    kills: int = 60
    """Killed commands, over build, train, compare and compare --jobs; without any and without stops, folders alone."""
    stops: int = 20
    """Commands stopped by Ctrl-C or TERM."""
    jobs: int = 2
    """Of the comparison side by side; 1 leaves it out."""
    minutes: float = 30.0
    """Time for all; what is not reached is not counted as tried."""
    seed: int = 0
    """Of all that is random."""
    table: Path | None = None
    """CSV to write; rows of other runs in it stay."""

    def __post_init__(self) -> None:
        at_least(0, damages=self.damages, kills=self.kills, stops=self.stops, seed=self.seed)
        at_least(1, jobs=self.jobs)


def main(config: FaultsConfig) -> dict[str, Counter[str]]:
    """Try, print, and write the table."""
    use_threads(1)
    clock = _Budget(config.minutes * 60)
    for module in _NEEDED:  # once, rather than in every process that is forked from this one
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="recloop-faults-") as name:
        place = Path(name)
        _apart(lambda: _prepare(place))
        found = {**tried_processes(config, place, clock), **tried_damages(config, place, clock)}
    for what, counts in found.items():
        print(f"{what:<40} tried {counts.total():>5}", *(f"{kind} {counts[kind]:>5}" for kind in COLUMNS[2:5]))
    if config.table is not None:
        write_table(config.table, found)
    return found


def tried_processes(config: FaultsConfig, place: Path, clock: "_Budget") -> dict[str, Counter[str]]:
    """Kills, stops, second writers and bad disks, by what was tried."""
    luck, found = random.Random(config.seed), dict[str, Counter[str]]()
    if not config.kills and not config.stops:
        return found
    tried = commands(place / "log.csv", place / "made" / "world", config.jobs)
    for number, one in enumerate(tried):
        sound, seconds = finished(one, place / "sound" / str(number))
        share = len(range(number, config.kills, len(tried)))
        made = kills(one, sound, seconds, place / "kills" / str(number), luck)
        found[f"killed {one.name}"] = clock.counted(made, share, 0.4 / len(tried))
        share = len(range(number, config.stops, len(tried)))
        made = stops(one, seconds, place / "stops" / str(number), luck)
        found[f"stopped {one.name}"] = clock.counted(made, share, 0.2 / len(tried))
        found[f"second {one.name}"] = Counter([two_writers(one, sound, place / "second" / str(number))])
        found |= _tried_disks(one, place / "disks" / str(number), luck)
    return found


def tried_damages(config: FaultsConfig, place: Path, clock: "_Budget") -> dict[str, Counter[str]]:
    """Damaged folders by kind."""
    artifacts, luck, found = artifacts_in(place / "made"), random.Random(config.seed), dict[str, Counter[str]]()
    for number, one in enumerate(artifacts):
        share = len(range(number, config.damages, len(artifacts)))
        made = damages(one, place / "damaged", luck)
        found[f"damaged {one.name}"] = clock.counted(made, share, 0.3 / len(artifacts))
    return found


def write_table(path: Path, found: dict[str, Counter[str]]) -> None:
    """What was tried, a row each; rows of what was not tried now stay as they were."""
    rows: dict[str, dict[str, object]] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = {row["what"]: {**row} for row in csv.DictReader(file)}
    for what, counts in found.items():
        told = {"what": what, "tried": counts.total(), **{kind: counts[kind] for kind in COLUMNS[2:5]}}
        rows[what] = {**told, "command": command(), "commit": short_commit(commit())}
    lines = [COLUMNS, *([row[column] for column in COLUMNS] for row in rows.values())]
    with replacing_file(path) as part:
        part.write_text(csv_text(lines), encoding="utf-8")


def _tried_disks(tried: Tried, place: Path, luck: random.Random) -> dict[str, Counter[str]]:
    full, late, fixed = Counter[str](), Counter[str](), Counter[str]()
    with small_disk(place / "full", 1024) as mounted:
        full.update([on_disk(tried, place / "full")] if mounted else [])
    with small_disk(place / "fixed", None) as mounted:
        fixed.update([on_disk(tried, place / "fixed")] if mounted else [])
    (place / "late").mkdir()
    late.update([on_disk(tried, place / "late", lambda: _no_room(luck.randrange(1 << 9, 1 << 13)))])
    return {
        f"full disk, {tried.name}": full,
        f"disk that fills up, {tried.name}": late,
        f"read-only disk, {tried.name}": fixed,
    }


def _no_room(size: int) -> None:
    """From now on no file grows beyond so many bytes, and nobody looked beforehand."""
    output._ROOM = 0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class _Budget:
    """Seconds for everything, of which each trial gets a share."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def counted(self, outcomes: Iterable[str], most: int, share: float) -> Counter[str]:
        """At most so many outcomes, until the share of the time has passed."""
        limit, counts = time.monotonic() + share * self.seconds, Counter[str]()
        for outcome in islice(outcomes, most):
            counts[outcome] += 1
            if time.monotonic() > limit:
                break
        return counts


def _prepare(place: Path) -> None:
    world = boredom_world(_SMALL)
    make_artifacts(world, place / "made")
    _write_log(world, place / "log.csv")


def _write_log(world: World, path: Path) -> None:
    """The world's behaviour as a CSV of clicks."""
    log = world.sequences
    users = [user for user, length in enumerate(log.lengths) for _ in range(length)]
    items = [world.catalogue.ids[item] for item in log.items]
    rows = [(user, item, time, 1) for time, (user, item) in enumerate(zip(users, items, strict=True))]
    path.write_text(csv_text([("user", "item", "time", "click"), *rows]), encoding="utf-8")


def _apart(work: Callable[[], None]) -> None:
    """In a process of its own: torch's threads of a fit would not survive the forks that follow."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the folders to damage could not be made")


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(FaultsConfig, main)
