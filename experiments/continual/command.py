"""Recommenders over simulated days, updated by different rules.

recloop continual clicks --out runs/continual                 a truth world, made on the spot
recloop continual worlds/ml-100k --rules frozen full replay --days 30 --out runs/drift
recloop continual clicks --drift.shared 0 --drift.jump 2 --rules frozen full ewc --out runs/jumps
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro

from recloop.agents.registry import check_settings, facts_of
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.names import csv_text
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import replacing_file
from recloop.envs.users.drifting import Drift, DriftingUsers
from recloop.envs.world.world import World
from recloop.experiments.asked import named_world
from recloop.experiments.continual.course import Course, courses
from recloop.experiments.continual.days import Days
from recloop.experiments.continual.measures import DAY_COLUMNS, day_rows, summary
from recloop.experiments.continual.picture import picture
from recloop.experiments.continual.rules import RULES, SERIES, Learning, checked_rules
from recloop.experiments.output import replacing_output
from recloop.experiments.policy_table import COLUMNS, keep_policy_rows
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least, given_settings

_MARKER = "summary.csv"
_SHOWN = ("return, last third", "share of oracle, last third", "forgetting", "cpu seconds")


@dataclass(frozen=True)
class ContinualConfig:
    """Let users drift for some days, and compare how recommenders keep up."""

    world: tyro.conf.Positional[str]
    """World folder, or the name of a truth world, which is then made."""
    out: Path
    """Folder for summary.csv, days.csv and continual.png."""
    overwrite: bool = False
    """Replace a run that was made with other settings."""
    rules: tuple[str, ...] = (*RULES, f"frozen{SERIES}", f"replay{SERIES}")
    """Update rules to compare: frozen, full, fine-tuned, replay, ewc; with +series behind one, the forecast of the
    items' own series takes the place of the levels it learned."""
    policy: str = "gru4rec"
    """The recommender: a registered name of a supervised one."""
    set: tuple[str, ...] = ()
    """Settings of the recommender, name=value."""
    days: int = 60
    """Simulated days."""
    every: int = 5
    """Days between updates; the first period of this length shows random items."""
    visitors: int = 60
    """Users who come a day, once each."""
    slates: int = 6
    """Slates of a visit at most."""
    epsilon: float = 0.2
    """Chance that a place explores."""
    seeds: int = 1
    """How often all of it is repeated: other luck, other drift, other fits."""
    drift: Drift = field(default_factory=Drift)
    """What changes with the days."""
    strength: float = 1.0
    """Times all movements of the drift; 0 switches it off."""
    simulator: str | None = None
    """Who answers; default whom agents train in."""
    passes: int | None = None
    """Over the log where a recommender is fitted anew; default its own."""
    update_passes: int = 5
    """Over the window where it is fitted on."""
    replay: float = 1.0
    """Older visits that rule replay learns from, for each one of the window."""
    ewc: float = 10.0
    """How hard rule ewc holds weights that mattered."""
    users: int = 200
    """Of a truth world made on the spot."""
    items: int = 200
    """Of a truth world made on the spot."""
    table: Path | None = None
    """A CSV file that the summary's rows are put into besides, in place of those of the same world."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, days=self.days, every=self.every, slates=self.slates, seeds=self.seeds, passes=self.passes)
        at_least(1, update_passes=self.update_passes, threads=self.threads)
        at_least(2, visitors=self.visitors, users=self.users, items=self.items)
        if self.days <= self.every:
            raise RecloopError(f"--days {self.days} end before the first update; give more than --every {self.every}")
        if not 0 <= self.epsilon < 1:
            raise RecloopError(f"--epsilon {self.epsilon:g} is no chance to explore; give one in [0, 1)")
        for name in ("replay", "ewc"):
            if not getattr(self, name) >= 0:
                raise RecloopError(f"--{name} {getattr(self, name):g} must be at least 0")

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what comes out."""
        beside = ("out", "overwrite", "table", "threads", "progress")
        return {name: value for name, value in asdict(self).items() if name not in beside}


def main(config: ContinualConfig) -> list[dict[str, Any]]:
    """Run, write, and say what came out."""
    use_threads(config.threads)
    checked_rules(config.rules, config.policy)
    settings = given_settings(None, config.set)
    if settings:
        check_settings(config.policy, settings)
    if facts_of(config.policy).trains != "log":
        raise RecloopError(f"policy '{config.policy}' does not learn from a log; take a supervised one, gru4rec say")
    with replacing_output(config.out, _MARKER, "continual run", config.decisive, config.overwrite):
        found = [course for seed in progress_bar(range(config.seeds), desc="seeds", disable=not config.progress)
                 for course in _seed(config, settings, seed)]  # fmt: skip
        return _written(config, found)


def drifting_world(config: ContinualConfig, seed: int) -> tuple[World, DriftingUsers]:
    """The world of a seed, and its users on day 0; users are there and items released as the drift says.

    Raises:
        RecloopError: neither a folder nor a truth world, or a drift that leaves nothing on one of the days.
    """
    world = named_world(config.world, users=config.users, items=config.items, seed=seed)
    drift = replace(config.drift, seed=config.drift.seed + seed, days=max(config.days, config.drift.days))
    drift = drift.scaled(config.strength) if config.strength != 1 else drift
    for day in range(config.days):
        drift.lift(day, len(world.catalogue))
    return world, DriftingUsers(world.simulator(config.simulator or world.training_simulator), drift)


def _seed(config: ContinualConfig, settings: dict[str, Any], seed: int) -> Sequence[Course]:
    world, users = drifting_world(config, seed)
    days = Days(users, config.visitors, config.slates, config.epsilon, seed)
    learning = Learning(config.policy, settings, config.passes, config.update_passes, config.replay, config.ewc, seed)
    return courses(world, days, learning, config.rules, config.days, config.every, wide_console().print)


def _written(config: ContinualConfig, found: Sequence[Course]) -> list[dict[str, Any]]:
    """Put figures and picture into the folder, and the headline on the screen."""
    drift = config.drift.scaled(config.strength)
    jumps = replace(drift, days=max(config.days, drift.days)).jumps
    jumps = tuple(day for day in jumps if config.every <= day < config.days)
    against = "full" if "full" in config.rules else None
    name = Path(config.world).name
    made = {"world": name, **made_by()}
    rows = [{**made, **row} for row in summary(found, jumps, against)]
    config.out.mkdir(parents=True, exist_ok=True)
    for file, columns, lines in ((_MARKER, COLUMNS, rows), ("days.csv", DAY_COLUMNS, day_rows(found))):
        with replacing_file(config.out / file) as part:
            text = csv_text([columns, *([row.get(column, "") for column in columns] for row in lines)])
            part.write_text(text, encoding="utf-8")
    with replacing_file(config.out / "continual.png") as part:
        part.write_bytes(picture(found, name, jumps))
    keep_policy_rows(config.table, rows)
    console = wide_console()
    for note in dict.fromkeys(note for course in found for note in course.notes):
        console.print(note, soft_wrap=True)
    for rule in config.rules:
        mine = {row["what"]: row for row in rows if row["policy"] == rule}
        told = (f"{what} {mine[what]['mean']} [{mine[what]['low']}, {mine[what]['high']}]" for what in _SHOWN)
        console.print(f"{rule}: {'; '.join(told)}", soft_wrap=True)
    console.print(f"written to {config.out}", soft_wrap=True)
    return rows


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(ContinualConfig, main)
