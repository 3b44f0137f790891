"""Faults on purpose, and what became of them.

    python -m recloop.experiments.studies.faults --table experiments/results/faults.csv
    python -m recloop.experiments.studies.faults --damages 100 --kills 4 --stops 4 --texts 20 --minutes 5

Folders of every kind are damaged at random (flips, cuts, swaps, losses); build, train and compare are killed and
stopped at random, with and without `--jobs`, started twice in one folder, and run on disks that are full or cannot be
written; texts made to harm stand everywhere in a world that is shown. Linux; disks of a size need the right to mount.
Each fault is refused in one line (or the damaged thing is made anew), harmless (the result is the same, byte by byte),
or wrong: a traceback, another result without a word, something left behind, or a process that lives on. A line says
why.
"""

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recloop.encoders.base.names import csv_text
from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world
from recloop.envs.world.world import World
from recloop.experiments.provenance import use_threads
from recloop.experiments.settings import at_least
from recloop.experiments.studies.faults.damage import artifacts_in, damages, make_artifacts
from recloop.experiments.studies.faults.outcomes import Trial, counted, write_table
from recloop.experiments.studies.faults.processes import (
    commands,
    kills,
    on_disk,
    on_filling_disk,
    stops,
    two_writers,
    undisturbed,
)
from recloop.experiments.studies.faults.texts import compared, texts

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
    """Killed commands, over build, train, compare and compare --jobs."""
    stops: int = 20
    """Commands stopped by Ctrl-C or TERM, over the same."""
    crowded: int = 3
    """Times that each command meets a second writer, a full disk, one that fills up, and one that cannot be written."""
    commands: tuple[str, ...] = ("build", "train", "compare", "compare --jobs 2")
    """Which to kill, stop and crowd out."""
    texts: int = 200
    """Texts made to harm."""
    minutes: float = 60.0
    """Time for all; what is not reached is not counted as tried."""
    seed: int = 0
    """Of all that is random."""
    table: Path | None = None
    """CSV to write; rows of other runs in it stay."""

    def __post_init__(self) -> None:
        at_least(
            0, damages=self.damages, kills=self.kills, stops=self.stops, crowded=self.crowded, texts=self.texts,
            seed=self.seed,
        )  # fmt: skip


def main(config: FaultsConfig) -> dict[str, Counter[str]]:
    """Try, print, and write the table."""
    use_threads(1)
    with tempfile.TemporaryDirectory(prefix="recloop-faults-") as name:
        place, world = Path(name), boredom_world(_SMALL)
        make_artifacts(world, place / "made")
        write_log(world, place / "log.csv")
        trials = [*of_processes(config, place), *of_damages(config, place), *of_texts(config, world, place)]
        found = counted(trials, config.minutes * 60)
    if config.table is not None:
        write_table(config.table, found)
    return found


def of_processes(config: FaultsConfig, place: Path) -> Iterator[Trial]:
    """Kills, stops, second writers and bad disks."""
    luck, tried = random.Random(config.seed), commands(place / "log.csv", place / "made" / "world", config.commands)
    for number, one in enumerate(tried):
        killed, stopped = (len(range(number, most, len(tried))) for most in (config.kills, config.stops))
        if not killed + stopped + config.crowded:
            continue
        here = place / f"{number}"
        sound = undisturbed(one, here / "sound")
        full, fixed = on_disk(one, here / "full", 1024), on_disk(one, here / "fixed", None)
        late = on_filling_disk(one, sound, here / "late", luck)
        yield Trial(f"killed {one.name}", kills(one, sound, here / "kills", luck), killed, 2 * sound.seconds + 2)
        yield Trial(f"stopped {one.name}", stops(one, sound, here / "stops", luck), stopped, 2 * sound.seconds)
        yield Trial(f"second {one.name}", two_writers(one, sound, here / "two"), config.crowded, 1.5 * sound.seconds)
        yield Trial(f"full disk, {one.name}", full, config.crowded, sound.seconds)
        yield Trial(f"read-only disk, {one.name}", fixed, config.crowded, sound.seconds)
        yield Trial(f"disk that fills up, {one.name}", late, config.crowded, 2 * sound.seconds)


def of_damages(config: FaultsConfig, place: Path) -> Iterator[Trial]:
    """Damaged folders by kind."""
    artifacts, luck = artifacts_in(place / "made"), random.Random(config.seed)
    for number, one in enumerate(artifacts):
        most = len(range(number, config.damages, len(artifacts)))
        yield Trial(f"damaged {one.name}", damages(one, place / "damaged", luck), most, 0.2)


def of_texts(config: FaultsConfig, world: World, place: Path) -> Iterator[Trial]:
    """Texts made to harm, each at every border."""
    if config.texts:
        outcomes = texts(compared(world, place / "run"), place / "texts", random.Random(config.seed))
        yield Trial("hostile texts", outcomes, config.texts, 0.4)


def write_log(world: World, path: Path) -> None:
    """The world's behaviour as a CSV of clicks."""
    log = world.sequences
    users = [user for user, length in enumerate(log.lengths) for _ in range(length)]
    items = [world.catalogue.ids[item] for item in log.items]
    rows = [(user, item, time, 1) for time, (user, item) in enumerate(zip(users, items, strict=True))]
    path.write_text(csv_text([("user", "item", "time", "click"), *rows]), encoding="utf-8")


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(FaultsConfig, main)
