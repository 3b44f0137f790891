"""What is each part of the encoder worth? Next items predicted part by part, also of cold users and about cold items.

    python -m recloop.experiments.studies.ablation.study ml-100k --data ../shared/data --seeds 3 --out runs/ablation
    python -m recloop.experiments.studies.ablation.study ml-1m --data ../shared/data --seeds 3 --out runs/ablation
    python -m recloop.experiments.studies.ablation.study ml-100k --data ../shared/data --pool-only --out runs/ablation

Every encoder is fitted twice a seed (`splits.py`). On all but each user's last item; then the
last one is predicted (`all`). And without 15 % of the users and 10 % of the items; then it is asked what a cold user
consumes after at most 5 known items (`cold users`), and which cold item a known user consumes, ranked among the cold
items alone (`cold items`) and in the whole catalogue (`cold items, all ranked`). What a user consumed before is never
ranked, and a user's several questions are averaged before users are.

A unit (data, arm, encoder, seed) is kept in OUT/units; finished ones are not run again, so that a killed study goes on
where it was. Then all are pooled, printed, and kept in `results/encoder_ablation.csv`; rows of other data stay there.
"""

import shlex
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.storage import read_json, read_tensors, write_json, write_tensors
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.text.encoder import default_cache
from recloop.encoders.text.models import DEFAULT_MODEL
from recloop.envs.build.encoders import EncoderConfig, Workshop, graph_knowledge, text_vectors
from recloop.envs.build.stages import StageCache
from recloop.envs.build.text import history_reader
from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Sequences
from recloop.experiments.comparison.workers import work_through
from recloop.experiments.output import writing
from recloop.experiments.provenance import commit, short_commit
from recloop.experiments.settings import at_least
from recloop.experiments.studies.ablation.scorers import ENCODERS, QUICK, Content, scorer
from recloop.experiments.studies.ablation.splits import SPLITS, Arm, Limits, answer, experiment
from recloop.experiments.studies.ablation.table import AblationLine, AblationUnit, pool, print_lines, write_lines

LARGE = 300_000
"""Consumptions of a log from which on not all users are asked about by default."""


@dataclass(frozen=True)
class AblationConfig:
    """Fit the encoder part by part and predict next items."""

    log: tyro.conf.Positional[str]
    """Folder of the log within --data: ml-100k, ml-1m, or another."""
    out: Path
    """Folder for the units and what is fitted once."""
    data: Path = Path("data")
    """Folder where logs lie."""
    seeds: int = 3
    """Trainings of each encoder; the seed also draws cold users and items."""
    arms: tuple[Arm, ...] = ("standard", "cold")
    """Trainings to run: on all but the last items, and without cold users and items."""
    encoders: tuple[str, ...] = QUICK
    """Rows of the table to run; default all but the one in which a language model reads whole histories."""
    read_every: int = 50
    """Items after which that one reads a history anew in fitting."""
    text: str = DEFAULT_MODEL
    """Model of the items' text: a name, a folder, or hashed (words, no model)."""
    epochs: int = 12
    """Most passes of a fit."""
    visits: int = 1_300_000
    """Most items looked at in a fit; three passes at least."""
    batch_users: int = 16
    """Users a batch of a fit."""
    users: int | None = None
    """Most users asked about, a split and seed; default all, and 2,000 from 300,000 consumptions on."""
    targets: int = 10
    """Most cold items asked about of one user."""
    history: int = 200
    """Newest items that an encoder sees when asked."""
    jobs: int = 1
    """Units at a time, each on one thread."""
    pool_only: bool = False
    """Run nothing; pool the units that are finished."""
    fresh: bool = False
    """Run finished units again."""
    table: Path = Path(__file__).parent / "results" / "encoder_ablation.csv"
    """Table to write."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds, epochs=self.epochs, visits=self.visits, batch_users=self.batch_users)
        at_least(
            1, read_every=self.read_every, users=self.users, targets=self.targets, history=self.history, jobs=self.jobs
        )
        for name in self.encoders:
            if name not in ENCODERS:
                raise RecloopError(unknown_name("encoder", name, ENCODERS))

    def units(self, large: bool) -> list["AblationUnitConfig"]:
        """Every unit, seed by seed, so that a study cut short is balanced over encoders."""
        return [
            AblationUnitConfig(
                str(self.data / self.log), self.log, arm, encoder, seed, self.text,
                self.epochs,
                self.visits,
                self.batch_users,
                self.users or (2_000 if large else None),
                self.targets,
                self.history,
                self.read_every,
            )
            for seed in range(self.seeds)
            for arm in self.arms
            for encoder in self.encoders
        ]  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the units lie."""
        return self.out / "units"


@dataclass(frozen=True)
class AblationUnitConfig:
    """One training of one encoder, and how much is asked of it."""

    folder: str
    data: str
    arm: Arm
    encoder: str
    seed: int
    text: str
    epochs: int
    visits: int
    batch_users: int
    users: int | None
    targets: int
    history: int
    read_every: int

    @property
    def name(self) -> str:
        """File name of the unit."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.encoder.replace("+", " plus ")).split()
        return f"{self.data}-{self.arm}-{'_'.join(words)}-{self.seed}"

    @property
    def fitting(self) -> NextItemConfig:
        """How its encoder is fitted."""
        return NextItemConfig(epochs=self.epochs, visits=self.visits, batch_users=self.batch_users)


def main(config: AblationConfig) -> list[AblationLine]:
    """Run what is missing; pool, print and write all that is finished with these settings, whichever call ran it."""
    sequences = _log(str(config.data / config.log))[1]
    large = len(sequences.items) >= LARGE
    if not config.pool_only:
        run_missing(config, config.units(large))
    units = replace(config, encoders=ENCODERS, arms=tuple(SPLITS)).units(large)
    finished = [unit for unit in units if _finished(config.folder, unit)]
    if not finished:
        raise RecloopError(f"{config.folder} holds no finished unit of these settings; run without --pool-only")
    lines = pool([_read(config.folder, unit) for unit in finished])
    commits = sorted({short_commit(read_json(config.folder / f"{unit.name}.json")["commit"]) for unit in finished})
    write_lines(config.table, config.log, lines, _stated(config, units[0]), " ".join(commits))
    print_lines(config.log, lines)
    print(f"table  {config.table}")
    return lines


def run_missing(config: AblationConfig, units: list[AblationUnitConfig]) -> None:
    """Run the units that are not finished with these very settings, `jobs` at a time."""
    with writing(config.out):
        config.folder.mkdir(parents=True, exist_ok=True)
        missing = [unit for unit in units if config.fresh or not _finished(config.folder, unit)]
        for seed in sorted({unit.seed for unit in missing}):  # once, not in every process
            content(str(config.data / config.log), config.text, seed, config.out, config.read_every)
        work_through(missing, partial(_keep, config.out), config.jobs, "ablation", config.progress)


def run_unit(unit: AblationUnitConfig, out: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Fit one encoder and ask it: facts, and by split the users (C,) asked about with recall and NDCG at 10 (C,)."""
    sequences = _log(unit.folder)[1]
    made = experiment(sequences, unit.arm, unit.seed, Limits(unit.users, unit.targets, unit.history))
    score = scorer(
        unit.encoder,
        content(unit.folder, unit.text, unit.seed, out, unit.read_every),
        made.train,
        unit.seed,
        unit.fitting,
    )
    tensors = {}
    for split, asked in made.questions.items():
        tensors[f"{split}/users"] = torch.from_numpy(asked.users)
        for metric, values in answer(score, asked).items():
            tensors[f"{split}/{metric}"] = torch.from_numpy(values)
    return {"config": asdict(unit), "commit": commit()}, tensors


@lru_cache(maxsize=4)
def content(folder: str, text: str, seed: int, out: Path, read_every: int) -> Content:
    """Items' text and graph vectors; these are fitted once a seed and kept in OUT. No behaviour goes into them."""
    log = _log(folder)[0]
    settings = EncoderConfig(text=text)
    shop = Workshop(seed, "cpu", default_cache(), StageCache(out / "stages"), progress=False)
    vectors = text_vectors(log, settings, shop)
    model = settings.language_model.make(shop.device, shop.cache, truncate="start")
    names = log.items[Columns.entity] if Columns.entity in log.items else [None] * len(log.items)
    entities = np.full(len(log.items), -1, dtype=np.int64)
    if log.knowledge is not None:
        entities = log.knowledge.entity_rows([name if isinstance(name, str) else None for name in names])
    return Content(
        torch.zeros(len(log.items), 1) if vectors is None else vectors,
        graph_knowledge(log, settings, shop),
        log.knowledge,
        entities,
        tuple(signal.bounds for signal in log.signals),
        None if model is None else history_reader(log, model, read_every),
    )


@lru_cache(maxsize=1)
def _log(folder: str) -> tuple[LoggedBehavior, Sequences]:
    """Read once a process."""
    log = clean(read_log(Path(folder)))[0]
    return log, compile_sequences(log)[0]


def _finished(folder: Path, unit: AblationUnitConfig) -> bool:
    path = folder / f"{unit.name}.json"
    return path.exists() and read_json(path)["config"] == asdict(unit)


def _keep(out: Path, unit: AblationUnitConfig) -> None:
    facts, tensors = run_unit(unit, out)
    write_tensors(out / "units" / f"{unit.name}.safetensors", tensors)
    write_json(out / "units" / f"{unit.name}.json", facts)  # last: a unit is finished where this lies


def _read(folder: Path, unit: AblationUnitConfig) -> AblationUnit:
    tensors = {name: values.numpy() for name, values in read_tensors(folder / f"{unit.name}.safetensors").items()}
    return AblationUnit(
        unit.encoder, unit.seed,
        {
            split: {name: tensors[f"{split}/{name}"] for name in ("users", "recall", "ndcg")}
            for split in SPLITS[unit.arm]
        },
    )  # fmt: skip


def _stated(config: AblationConfig, unit: AblationUnitConfig) -> str:
    """The command with every setting that a default decided."""
    words = [
        "python", "-m", "recloop.experiments.studies.ablation", config.log, "--data", str(config.data),
        "--seeds", config.seeds, "--epochs", unit.epochs, "--visits", unit.visits, "--batch-users", unit.batch_users,
        *(("--users", unit.users) if unit.users else ()),
        "--targets", unit.targets, "--history", unit.history, "--read-every", unit.read_every,
        "--text", unit.text, "--out", str(config.out),
    ]  # fmt: skip
    return shlex.join(map(str, words))


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(AblationConfig, main)
