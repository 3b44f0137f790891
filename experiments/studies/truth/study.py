"""The truth study: how far fitted users rank, value and doubt policies as the truth does.

    python -m recloop.experiments.studies.truth.study --draws 3 --out runs/truth
    python -m recloop.experiments.studies.truth.study --worlds boredom --logs switching --draws 1 --out runs/truth
    python -m recloop.experiments.studies.truth.study --pool-only --out runs/truth

In each truth world and for each kind of log and draw (a unit): the truth writes a log, users are fitted on it, policies
are made in the fitted users, and every policy is valued in each member of the ensemble, in the judges and in the
truth, all from cold starts. A unit is one JSON file in OUT/units; finished ones are not run again, so that a killed
study goes on where it was. Fitted users lie in OUT/worlds, for both starts. Then the units are pooled, printed beside
their aims, and kept as a table. Values by user lie beside each unit, so that `--pool-only` follows a change of
`ClaimRules` or of the brackets' limits.
"""

import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.storage import read_json, read_tensors, write_json, write_tensors
from recloop.envs.truth import LOG_USERS, TRUTHS
from recloop.experiments.commands.agreement import agreement_of
from recloop.experiments.comparison.policy_values import PolicyValues
from recloop.experiments.comparison.workers import work_through
from recloop.experiments.output import writing
from recloop.experiments.provenance import command, commit
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least
from recloop.experiments.studies.sardine.users import VARIANTS
from recloop.experiments.studies.truth.pooling import POOLED, PooledRow, TruthUnit, pool, write_table
from recloop.experiments.studies.truth.unit import TruthUnitConfig, run_unit

QUICK: dict[str, int] = {
    "users": 160,
    "items": 40,
    "episodes": 20,
    "dim": 8,
    "state_epochs": 1,
    "user_epochs": 1,
    "sasrec_passes": 1,
    "rl_steps": 0,
}
"""Sizes of `--quick`: does it run, nothing more."""


@dataclass(frozen=True)
class StudyConfig:
    """Rank policies in fitted users and in the truth, over truth worlds, logs and draws."""

    out: Path
    """Folder for the units and their progress."""
    worlds: tuple[str, ...] = tuple(TRUTHS)
    """Truth worlds, and variants of SARDINE (`sardine-bored`, `sardine-topic`, `sardine-uncertain`)."""
    logs: tuple[str, ...] = tuple(LOG_USERS)
    """Kinds of log."""
    draws: int = 3
    """Draws of each world and log."""
    episodes: int = 300
    """Episodes of each policy in each kind of users."""
    rl_steps: int = 8192
    """Environment steps that the RL agent is trained for; 0 leaves it out."""
    jobs: int = 1
    """Units at a time, each on one thread."""
    quick: bool = False
    """Tiny sizes: does it run?"""
    pool_only: bool = False
    """Run nothing; pool the units that are finished, whatever their sizes."""
    start: Literal["cold", "history"] = "cold"
    """Whether policies are valued from cold starts, or, in SARDINE, from where the log left the users."""
    fresh: bool = False
    """Run finished units again, fits and all."""
    table: Path | None = None
    """CSV to write; default OUT/truth_agreement.csv."""

    def __post_init__(self) -> None:
        at_least(1, draws=self.draws, jobs=self.jobs)
        at_least(0, rl_steps=self.rl_steps)
        at_least(2, episodes=self.episodes)
        for world in self.worlds:
            if world not in (*TRUTHS, *VARIANTS):
                raise RecloopError(unknown_name("truth world", world, (*TRUTHS, *VARIANTS)))
        for log in self.logs:
            if log not in LOG_USERS:
                raise RecloopError(unknown_name("kind of log", log, LOG_USERS))

    @property
    def units(self) -> list[TruthUnitConfig]:
        """Every unit of the study, draw by draw, so that a study cut short is balanced over worlds and logs."""
        sizes = QUICK if self.quick else {"episodes": self.episodes, "rl_steps": self.rl_steps}
        return [
            TruthUnitConfig(world, log, draw, start=self.start, **sizes)
            for draw in range(self.draws)
            for world in self.worlds
            for log in self.logs
        ]

    @property
    def folder(self) -> Path:
        """Where the units lie."""
        return self.out / "units"


def main(config: StudyConfig) -> list[PooledRow]:
    """Run what is missing, pool, print, write the table."""
    if not config.pool_only:
        run_missing(config)
    units = finished_units(config)
    if not units:
        raise RecloopError(f"{config.folder} holds no finished unit of these worlds and logs; run without --pool-only")
    rows = pool(units)
    path = config.table or config.out / "truth_agreement.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    commits = sorted({unit.commit or "unknown" for unit in units})
    write_table(rows, path, command(), f"units {' '.join(commits)}; pooled {commit() or 'unknown'}")
    print_rows(rows, len(units))
    wide_console().print(f"table  {path}", soft_wrap=True)
    return rows


def run_missing(config: StudyConfig) -> None:
    """Run the units that are not finished with these very sizes, `jobs` at a time."""
    with writing(config.out):
        config.folder.mkdir(parents=True, exist_ok=True)
        if config.fresh:
            shutil.rmtree(config.out / "worlds", ignore_errors=True)
        missing = [unit for unit in config.units if config.fresh or not _finished(config, unit)]
        work_through(missing, partial(_keep, config.out), config.jobs, "truth study", progress=True)


def finished_units(config: StudyConfig) -> list[TruthUnit]:
    """The finished units of the worlds and logs asked for; of the sizes asked for unless only pooling."""
    found = []
    for path in sorted(config.folder.glob("*.json")):
        facts = read_json(path)
        if facts["world"] in config.worlds and facts["log"] in config.logs:
            wanted = config.pool_only or facts["config"] in [asdict(unit) for unit in config.units]
            found += [_with_agreement(facts, path.with_suffix(".safetensors"))] if wanted else []
    places = [(config.worlds.index(f["world"]), config.logs.index(f["log"]), f["draw"]) for f in found]
    return [TruthUnit.of(facts) for _, facts in sorted(zip(places, found, strict=True), key=lambda pair: pair[0])]


def _with_agreement(facts: dict[str, Any], values: Path) -> dict[str, Any]:
    """Claims, flags and taus worked out anew, so that they follow the constants without running the unit again."""
    found = PolicyValues.of(read_tensors(values), facts["agreement"])
    return {**facts, "agreement": agreement_of(found, seed=facts["draw"]).as_dict()}


def print_rows(rows: list[PooledRow], units: int) -> None:
    """The pooled measures beside their aims, a column a log; what falls short is marked."""
    pooled = [row for row in rows if row.world == POOLED]
    logs = list(dict.fromkeys(row.log for row in pooled))
    table = Table(title=f"pooled over {units} units, 95 % clustered by (world, draw)", title_justify="left")
    table.add_column("measure")
    for log in logs:
        table.add_column(log, justify="right")
    for measure in dict.fromkeys(row.measure for row in pooled):
        cells = {row.log: _cell(row) for row in pooled if row.measure == measure}
        table.add_row(measure, *(cells.get(log, "") for log in logs))
    wide_console().print(table)


def _cell(row: PooledRow) -> str:
    value = "not known" if row.value != row.value else f"{row.value:.3f}"
    interval = "" if row.low != row.low else f" [{row.low:.2f}, {row.high:.2f}]"
    met = {True: f" ({row.aim})", False: f" ({row.aim}: NO)", None: ""}[row.met]
    return f"{value}{interval}{met}"


def _finished(config: StudyConfig, unit: TruthUnitConfig) -> bool:
    path = config.folder / f"{unit.name}.json"
    return path.exists() and read_json(path)["config"] == asdict(unit)


def _keep(out: Path, unit: TruthUnitConfig) -> None:
    facts, values = run_unit(unit, out / "worlds")
    folder = out / "units"
    write_tensors(folder / f"{unit.name}.safetensors", values.tensors())
    write_json(folder / f"{unit.name}.json", facts)  # last: a unit is finished where this lies


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(StudyConfig, main)
