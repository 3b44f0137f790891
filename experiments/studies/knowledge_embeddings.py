"""How well embeddings of a log's knowledge graph predict triples that they never saw.

    python -m recloop.experiments.studies.knowledge_embeddings ml-100k --data ../shared/data --seeds 3

A tenth of the triples is held out, so that every entity and relation keeps one; each model is fitted on the rest.
The true head and the true tail are ranked among all entities, other true ones left out (filtered, Bordes et al. 2013),
ties counted in the middle. Beside them: a ranking at random, and entities by how often they have the relation. Each
seed draws the split and the fits anew. Rows go to `experiments/results/knowledge_embeddings.csv`; those of another
log in it stay.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.table import Table

from recloop.encoders.base.errors import LogError
from recloop.encoders.knowledge.embeddings import fit_embeddings
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.link_prediction import SIDES, Frequency, Ranks, rank_triples, split_triples
from recloop.encoders.knowledge.triple_scores import Model
from recloop.envs.logs.readers import read_log
from recloop.experiments.provenance import made_by
from recloop.experiments.report.results_table import keep_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least

COLUMNS = ("data", "model", "side", "metric", "value", "seeds", "command", "commit")
"""Columns of `knowledge_embeddings.csv`; `side` is head, tail, both, or the name of a relation (both sides of it)."""
CHANCE, FREQUENCY = "random", "frequency"

Row = tuple[str, str, str]
"""Model, side, metric."""


@dataclass(frozen=True)
class KnowledgeEmbeddingsConfig:
    """Rank held-out triples of a log's knowledge graph by each embedding model."""

    log: tyro.conf.Positional[str]
    """Folder of the log within --data."""
    data: Path = Path("data")
    """Folder where logs lie."""
    out: Path = Path(__file__).parent / "results" / "knowledge_embeddings.csv"
    """Table to write."""
    models: tuple[Model, ...] = ("transe", "distmult", "complex", "rotate")
    """Models to fit."""
    dim: int = 64
    """Length of an entity's vector."""
    epochs: int = 60
    """Passes over the triples."""
    share: float = 0.1
    """Share of the triples that is held out."""
    seeds: int = 3
    """Splits and fits to take the mean of."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(1, dim=self.dim, epochs=self.epochs, seeds=self.seeds)


@dataclass
class Tally:
    """Figures by model, side and metric, a value a seed."""

    values: dict[Row, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, model: str, side: str, figures: dict[str, float]) -> None:
        """Note the figures of one seed; NaN (nothing held out there) is left out."""
        for metric, value in figures.items():
            if np.isfinite(value):
                self.values[model, side, metric].append(value)

    def means(self) -> dict[Row, tuple[float, int]]:
        """The mean over seeds, and over how many."""
        return {row: (float(np.mean(values)), len(values)) for row, values in self.values.items()}


def main(config: KnowledgeEmbeddingsConfig) -> dict[Row, tuple[float, int]]:
    """Fit everything, print the table, write the rows."""
    graph = read_log(config.data / config.log).knowledge
    if graph is None:
        raise LogError(f"{config.data / config.log} has no knowledge graph; give a log with a .kg file")
    tally = Tally()
    for seed in range(config.seeds):
        for model, ranks, seconds in ranked(graph, config, seed):
            for side in SIDES:
                tally.add(model, side, ranks.figures(side))
            tally.add(model, "both", ranks.figures())
            for number, name in enumerate(graph.relations):
                tally.add(model, name, ranks.figures(relation=number))
            if seconds is None:
                for side in SIDES:
                    tally.add(CHANCE, side, ranks.by_chance(side))
                tally.add(CHANCE, "both", ranks.by_chance())
            else:
                tally.add(model, "both", {"seconds": seconds})
    means = tally.means()
    _print(config, graph, means)
    write_rows(config.out, config.log, means)
    return means


def ranked(
    graph: KnowledgeGraph, config: KnowledgeEmbeddingsConfig, seed: int
) -> Iterator[tuple[str, Ranks, float | None]]:
    """Ranks by `FREQUENCY` and by each model, with the seconds of its fit."""
    train, held = split_triples(graph, config.share, seed)
    known = np.concatenate([train.triples, held])
    yield FREQUENCY, rank_triples(Frequency(train), held, known), None
    for model in config.models:
        start = time.perf_counter()
        fitted = fit_embeddings(train, model, config.dim, config.epochs, seed, progress=config.progress)
        seconds = time.perf_counter() - start
        yield model, rank_triples(fitted, held, known), seconds


def write_rows(path: Path, data: str, means: dict[Row, tuple[float, int]]) -> None:
    """Put the rows of one log into the table; the rows of other logs stay."""
    rows = []
    source = made_by()
    for (model, side, metric), (value, seeds) in means.items():
        names = {"model": model, "side": side, "metric": metric}
        rows.append({**names, "value": f"{value:.6f}", "seeds": str(seeds), **source})
    keep_rows(path, COLUMNS, data, rows)


def _print(config: KnowledgeEmbeddingsConfig, graph: KnowledgeGraph, means: dict[Row, tuple[float, int]]) -> None:
    title = (
        f"{config.log}: {config.share:.0%} of {len(graph.triples):,} triples held out, "
        f"{len(graph.entities):,} entities, filtered ranks, mean of {config.seeds} seed(s)"
    )
    table = Table(title=title, title_justify="left")
    columns = [(side, metric) for metric in ("mrr", "hits_at_10") for side in (*SIDES, "both")]
    table.add_column("model")
    for name in (*(f"{metric} {side}" for side, metric in columns), "seconds"):
        table.add_column(name.replace("_", " "), justify="right")
    for model in (CHANCE, FREQUENCY, *config.models):
        figures = [f"{means[model, side, metric][0]:.4f}" for side, metric in columns]
        seconds = means.get((model, "both", "seconds"))
        table.add_row(model, *figures, "" if seconds is None else f"{seconds[0]:.1f}")
    wide_console().print(table)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(KnowledgeEmbeddingsConfig, main)
