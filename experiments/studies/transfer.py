"""Recommenders taken to other worlds through text alone: the table `experiments/results/transfer.csv`.

    python -m recloop.experiments.studies.transfer --films worlds/ml-100k
    python -m recloop.experiments.studies.transfer --pairs clips:more-clips recipes:clips

Truth worlds of clips, of clips of other topics (two of six are shared) and of recipes, each with the log that its mixed
logging policies wrote, beside ml-100k. The source is trained once a seed; so many users of the target are drawn a seed.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.truth.catalogue import CLIPS, RECIPES, Theme
from recloop.envs.truth.logs import lived_world
from recloop.envs.truth.worlds import truth_world
from recloop.envs.world.world import World
from recloop.experiments.policy_table import cells, keep_policy_rows, print_rows
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.ranking.questions import ranking_task
from recloop.experiments.settings import at_least, given_settings
from recloop.experiments.transfer.measure import Destination, rows_of, users_of

FILMS = "ml-100k"
THEMES: dict[str, Theme] = {
    "clips": replace(CLIPS, topics=CLIPS.topics[:6]),
    "more-clips": replace(CLIPS, topics=CLIPS.topics[4:]),
    "recipes": RECIPES,
}
"""Truth worlds by what they are about; each has six topics."""


@dataclass(frozen=True)
class TransferStudyConfig:
    """Take recommenders from world to world."""

    pairs: tuple[str, ...] = ("clips:more-clips", "more-clips:clips", "ml-100k:recipes", "recipes:ml-100k")
    """Source and target."""
    films: Path = Path("worlds/ml-100k")
    """Folder of the world ml-100k."""
    set: tuple[str, ...] = ("items=text", "backbone=mean", "dim=384", "learning_rate=1e-3", "epochs=10")
    """Settings of `sasrec`, in the source and in the target."""
    users: tuple[str, ...] = ("0", "5", "20", "80", "all")
    """Train users of the target to learn from."""
    k: int = 10
    """Length of the lists."""
    seeds: int = 3
    """Trainings in the source, and draws of users in the target."""
    episodes: int = 300
    """Episodes of each policy in front of the truth, or of the first judge of ml-100k; 0 leaves the loop out."""
    keep: Path | None = Path("experiments/results/transfer.csv")
    """CSV into which the rows are put."""

    def __post_init__(self) -> None:
        at_least(1, k=self.k, seeds=self.seeds)
        users_of(self.users)
        for name in {part for pair in self.pairs for part in pair.split(":")} - {*THEMES, FILMS}:
            raise RecloopError(f"{unknown_name('world of the study', name, (*THEMES, FILMS))}; write source:target")


def main(config: TransferStudyConfig) -> list[dict[str, Any]]:
    """Train, transfer, print and keep the rows of each pair as soon as they are known."""
    use_threads(1)
    made: dict[str, Any] = {"seeds": config.seeds, **made_by()}
    options, rows = FitOptions(settings=given_settings(None, config.set)), []
    for pair in config.pairs:
        source, target = (world_of_study(name, config.films) for name in pair.split(":"))
        learned = [make_policy("sasrec", source, replace(options, seed=seed)) for seed in range(config.seeds)]
        simulator = target.first_judge if config.episodes else None
        task = ranking_task(target, "time")
        place = Destination(target, task, config.k, users_of(config.users), simulator, config.episodes)
        found = rows_of(place.values(learned, options))
        name = pair.replace(":", " -> ")
        print_rows(f"{name}: 95 % over its evaluate users", found)
        kept = cells(found, digits=4, world=name, **made)
        keep_policy_rows(config.keep, kept)
        rows += kept
    return rows


@cache
def world_of_study(name: str, films: Path) -> World:
    """A world by its name in the study."""
    if name == FILMS:
        return World.load(films)
    number = list(THEMES).index(name)
    world = truth_world("clicks", users=1000, items=300, seed=number, theme=THEMES[name])
    return lived_world(replace(world, name=name, consumes_twice=False), seed=number)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(TransferStudyConfig, main)
