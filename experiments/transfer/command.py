"""Take a saved policy to another world through the texts of the items, and say what it is worth there.

    recloop train worlds/films --agent sasrec --set items=text backbone=mean dim=384 --out policies/films
    recloop transfer policies/films worlds/books
    recloop transfer policies/films worlds/books --users 0 20 --episodes 200 --out policies/books
    recloop compare worlds/books --policies popularity policies/books --out runs/books

`--users 0` is zero-shot: nothing of the users of that world is read. The others go on learning from so many of its
train users, or from all; beside them stand the same model from scratch and popularity, on the same users.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from recloop.agents.policy import FitOptions
from recloop.agents.registry import load_policy, save_policy
from recloop.agents.transfer.transferred import few_users, transferred
from recloop.encoders.base.errors import RecloopError
from recloop.envs.world.world import World
from recloop.experiments.output import checked_out, replacing_output
from recloop.experiments.policy_table import cells, keep_policy_rows, print_rows
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.ranking.questions import Cuts, SplitName, ranking_task
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least, given_settings
from recloop.experiments.transfer.measure import Destination, rows_of, users_of


@dataclass(frozen=True)
class TransferConfig:
    """Take a policy to another world, and measure it there."""

    policy: tyro.conf.Positional[Path]
    """Policy folder whose items are their texts alone."""
    world: tyro.conf.Positional[Path]
    """World folder to take it to."""
    users: tuple[str, ...] = ("0", "5", "20", "80", "all")
    """Train users to go on learning from, drawn by the seed; 0 is zero-shot."""
    out: Path | None = None
    """Policy folder for what is transferred with the last of --users, of the first seed."""
    overwrite: bool = False
    """Replace a policy that was made with other settings."""
    k: int = 10
    """Length of the lists."""
    split: SplitName = "time"
    """What is asked of each evaluate user; see `recloop rank`."""
    held_out: float = 0.2
    """Share of a user's items, the newest, that is asked for."""
    episodes: int = 0
    """Episodes of each policy in the loop; 0 leaves the loop out."""
    simulator: str | None = None
    """Who answers in the loop; default the first judge, in a truth world the truth."""
    seeds: int = 3
    """Draws of users, and fits on them."""
    steps: int | None = None
    """Budget of the fits, in the policy's own unit."""
    set: tuple[str, ...] = ()
    """Settings of the fits, name=value, over the policy's own."""
    table: Path | None = None
    """CSV into which the rows are put."""
    trust: bool = False
    """Let the policy folder import a class of its own."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""

    def __post_init__(self) -> None:
        at_least(1, k=self.k, seeds=self.seeds, steps=self.steps, threads=self.threads)
        if self.episodes == 1 or self.episodes < 0:
            raise RecloopError(f"--episodes {self.episodes}; an interval needs at least 2, and 0 leaves the loop out")
        users_of(self.users)


def main(config: TransferConfig) -> list[dict[str, Any]]:
    """Transfer, measure, print; keep the policy and the rows where asked."""
    use_threads(config.threads)
    if config.out is not None:
        checked_out(config.out, "policy.json", "policy")
    source, world, users = (
        load_policy(config.policy, trust=config.trust),
        World.load(config.world),
        users_of(config.users),
    )
    for few in users:
        if few != 0:
            few_users(world, few)  # too many are refused before anything is fitted
    options = FitOptions(steps=config.steps, settings=given_settings(None, config.set))
    simulator = config.simulator or world.first_judge
    place = Destination(
        world,
        ranking_task(world, config.split, Cuts(config.held_out)),
        config.k,
        users,
        simulator if config.episodes else None,
        config.episodes,
    )
    rows = rows_of(place.values([source] * config.seeds, options))
    print_rows(f"{source.name} in {world.name}: 95 % over its evaluate users", rows)
    if config.out is not None:
        made_with = {"policy": config.policy, "users": config.users[-1], "steps": config.steps, "set": config.set}
        with replacing_output(
            config.out, "policy.json", "policy", {**made_with, "world": world.fingerprint}, config.overwrite
        ) as settings:
            save_policy(transferred(source, world, options, users[-1]), config.out, settings)
        wide_console().print(f"saved in {config.out}", soft_wrap=True)
    name = f"{source._serving().world.name} -> {world.name}"
    kept = cells(rows, digits=4, world=name, seeds=config.seeds, **made_by())
    keep_policy_rows(config.table, kept)
    return kept


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(TransferConfig, main)
