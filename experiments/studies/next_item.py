"""Next-item figures beside those that were published: the last item of every user among all items, seen ones left out.

    python -m recloop.experiments.studies.next_item ../shared/data/ml-1m
    python -m recloop.experiments.studies.next_item ../shared/data/ml-1m --policies esasrec --set esasrec.dim=64
    python -m recloop.experiments.studies.next_item ../shared/data/ml-100k --seeds 3

Training stops by users' last item but one, and the last is looked at once. Whose last item but one is held out differs
among the published figures, and a row does as the code behind its figure does: that of 2,048 of the 6,040 users in
`bert4rec_repro` (Petrov & Macdonald 2022) and in RecTools' copy of it, where the others' is learned from; that of
everybody in gSASRec's repository. `sasrec:all-held-out` is the softmax under the latter. Of MovieLens-100K users and
items with fewer than 5 rows go, and rows of one second are ordered by item, as in LlamaRec (Yue et al. 2023).
Its figures, and those of LRURec, are of another log of about as many ratings (`ml-latest-small`: 610
users, 3,650 items), so they stand in no column here.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from recloop.agents.baselines.next_item import Scorer, evaluate_next_item, without_last
from recloop.agents.policy import FitOptions
from recloop.agents.registry import facts_of
from recloop.agents.sequence.config import SequenceConfig
from recloop.agents.sequence.content import knowledge_content, text_content
from recloop.agents.sequence.training import train_sequence_model
from recloop.encoders.base.errors import RecloopError
from recloop.envs.logs.cleaning import CleaningOptions, clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Sequences
from recloop.envs.world.patterns import item_attributes
from recloop.experiments.comparison.tracking import Run, Tags
from recloop.experiments.provenance import device_name, made_by, use_threads
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.settings import at_least, given_settings, settings_by_policy

COLUMNS = (
    "policy", "items", "recall_10", "ndcg_10", "published_ndcg_10", "epochs", "minutes", "device", "seed", "command",
    "commit",
)  # fmt: skip
"""`minutes` are CPU minutes of training; `items` what items are made of."""


@dataclass(frozen=True)
class Protocol:
    """How one log is measured.

    Args:
        file: of results, in `experiments/results`.
        settings: of every policy, over its own defaults.
        own: settings by row, over those; a row is a policy, and after a colon what tells it from others.
        published: NDCG@10 by row.
    """

    file: str
    settings: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)


PROTOCOLS = {
    "ml-1m": Protocol(
        "ml1m.csv",
        {"length": 200, "dim": 128, "learning_rate": 1e-3, "epochs": 30, "patience": 10, "held_out": 2048 / 6040},
        {
            "popularity": {},
            "sasrec": {},
            "sasrec:all-held-out": {"held_out": 1.0},
            "sasrec:bce": {"loss": "bce", "stop_by": "ndcg", "held_out": 1.0},
            "gsasrec": {"held_out": 1.0},
            "esasrec": {},
            "hstu": {},
            "bert4rec": {"epochs": 80, "patience": 20},
            "gru4rec": {},
        },
        {"popularity": 0.0179, "sasrec": 0.1779, "sasrec:bce": 0.1259, "gsasrec": 0.1726, "bert4rec": 0.1516},
    ),
    "ml-100k": Protocol(
        "ml100k_next_item.csv",
        {"length": 200, "learning_rate": 1e-3, "epochs": 60, "patience": 10, "held_out": 1.0},
        {
            "popularity": {},
            "sasrec": {},
            "sasrec:text": {"items": ("ids", "text")},
            "sasrec:knowledge": {"items": ("ids", "knowledge")},
            "sasrec:both": {"items": ("ids", "text", "knowledge")},
            "gsasrec": {},
            "esasrec": {},
            "bert4rec": {"epochs": 120, "patience": 20},
        },
    ),
}


@dataclass(frozen=True)
class PublishedConfig:
    """Train next-item models on a published log, and rank what every user consumed last."""

    log: tyro.conf.Positional[Path]
    """Folder of MovieLens-1M as sequences, or of MovieLens-100K."""
    policies: tuple[str, ...] = ()
    """Rows of the table; default all."""
    set: tuple[str, ...] = ()
    """Settings, policy.name=value."""
    seeds: int = 1
    """Trainings of each."""
    first_seed: int = 0
    """Of the trainings."""
    device: str = "cpu"
    """Torch device."""
    keep: Path | None = None
    """CSV into which the rows are put; default the protocol's, in `experiments/results`."""
    logs: Path = Path("runs/next_item")
    """Folder of the TensorBoard runs."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds)
        if self.log.name not in PROTOCOLS:
            raise RecloopError(f"{self.log}: published figures are held against {' and '.join(PROTOCOLS)} alone")
        known = self.protocol.own
        for name in self.policies:
            if name not in known:
                raise RecloopError(f"no row '{name}' for {self.log.name}; there are {', '.join(known)}")

    @property
    def protocol(self) -> Protocol:
        """How the log is measured."""
        return PROTOCOLS[self.log.name]


def main(config: PublishedConfig) -> list[dict[str, Any]]:
    """Train, print and keep every row as soon as it is known."""
    use_threads(1)
    source = made_by()
    log = prepared(config.log)
    sequences = compile_sequences(log)[0]
    given = settings_by_policy(given_settings(None, config.set), [*config.protocol.own])
    rows = []
    for name in config.policies or config.protocol.own:
        seeds = 1 if name == "popularity" else config.seeds
        for seed in range(config.first_seed, config.first_seed + seeds):
            row = {**measured(name, seed, log, sequences, config, given.get(name, {})), **source}
            print(f"{config.log.name} {name} seed {seed}: NDCG@10 {row['ndcg_10']}, Recall@10 {row['recall_10']}")
            keep = config.keep or Path("experiments/results") / config.protocol.file
            replace_rows(keep, COLUMNS, ("policy", "seed"), [row])
            rows.append(row)
    return rows


def prepared(folder: Path) -> LoggedBehavior:
    """The log as its protocol has it."""
    log = read_log(folder)
    if folder.name == "ml-1m":
        return log
    log, _ = clean(log, CleaningOptions(min_user_rows=5, min_item_rows=5))
    rows = log.interactions
    order = np.lexsort((rows[Columns.item].astype(int), rows[Columns.time]))
    return replace(log, interactions=rows.iloc[order].reset_index(drop=True))


def measured(
    name: str, seed: int, log: LoggedBehavior, sequences: Sequences, config: PublishedConfig, given: Mapping[str, Any]
) -> dict[str, Any]:
    """One row, but for where it comes from."""
    policy, train, users = name.partition(":")[0], without_last(sequences), np.arange(sequences.users)
    began, epochs, items = time.process_time(), 0, ""
    with Run(config.logs / config.log.name / f"{name.replace(':', '-')}-seed{seed}") as run:
        if policy == "popularity":
            counts = torch.from_numpy(train.popularity(users))
            scorer: Scorer = lambda history: counts.expand(len(history), -1)  # noqa: E731
            length = 1
        else:
            settings = {**config.protocol.settings, **config.protocol.own[name], **given}
            options = FitOptions(seed=seed, device=config.device, settings=settings, log=run.log, progress=True)
            asked: SequenceConfig = options.over(facts_of(policy).config_class(), policy)  # type: ignore[misc]
            content = content_of_log(log, asked.items)
            model = train_sequence_model(train, users, asked, replace(options, settings={}), content, name=policy)
            epochs, items, length = len(run.curves[Tags.train_loss]), "+".join(asked.items), asked.length
            scorer = lambda history: model.scores(history.to(config.device)).cpu()  # noqa: E731
    minutes = (time.process_time() - began) / 60
    found = evaluate_next_item(scorer, sequences, length=length)
    return {
        "policy": name,
        "items": items,
        "recall_10": f"{found.recall:.4f}",
        "ndcg_10": f"{found.ndcg:.4f}",
        "published_ndcg_10": config.protocol.published.get(name, ""),
        "epochs": epochs or "",
        "minutes": f"{minutes:.1f}",
        "device": device_name(config.device),
        "seed": seed,
    }


def content_of_log(log: LoggedBehavior, sources: tuple[str, ...]) -> dict[str, Tensor]:
    """Vectors of a log's items by source but `ids`, as `recloop.agents.sequence.content` makes them of a world."""
    content = {}
    if "text" in sources:
        content["text"] = text_content(list(log.items[Columns.text].fillna("").astype(str)))
    if "knowledge" in sources:
        entities = [None if e is None or e != e else str(e) for e in log.items[Columns.entity]]
        content["knowledge"] = knowledge_content(item_attributes(log.knowledge, entities))
    return content


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(PublishedConfig, main)
