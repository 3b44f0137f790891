"""How long a knowledge graph of 300,000 triples takes: to import, to store, to be asked hops, and for paths.

    python -m recloop.experiments.bench.knowledge
    python -m recloop.experiments.bench.knowledge --triples 30000 --questions 20 --buffer-mib 64

The graph is made up: films with directors, actors, genres, countries and years, a few of each in most films' reach, so
that two hops from a film pass through genres of thousands. Questions start at films drawn at random; warm-up is
left out, and both stores must give the same answers.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.stores import GraphStore, LadybugStore, MemoryStore
from recloop.experiments.bench.knowledge_import import import_table, peak_mib
from recloop.experiments.provenance import commit
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least

_A_FILM = {"actor": 4, "genre": 2, "director": 1, "writer": 1, "country": 1, "year": 1}
"""Triples a film."""
_KINDS = {"genre": 20, "country": 60, "year": 100}
"""How many there are; of people there are 3 for every 2 films."""


@dataclass(frozen=True)
class BenchConfig:
    """Time knowledge graphs."""

    triples: int = 300_000
    """About how many; each once, so a few less."""
    questions: int = 50
    """Questions of each kind that are timed, after a fifth as many of warm-up."""
    limit: int = 10_000
    """Most triples of one answer."""
    buffer_mib: int = 512
    """Most memory that the embedded store holds pages in, MiB."""
    threads: int = 1
    """Threads of the embedded store."""
    seed: int = 0
    """Seed of the graph and the questions."""

    def __post_init__(self) -> None:
        at_least(1, triples=self.triples, questions=self.questions, buffer_mib=self.buffer_mib, threads=self.threads)


def main(config: BenchConfig) -> None:
    """Print the tables."""
    console = wide_console()
    graph = film_graph(config.triples, config.seed)
    console.print(
        f"{len(graph.triples)} triples, {len(graph.entities)} entities, {len(graph.relations)} relations; "
        f"{config.threads} thread(s), buffer {config.buffer_mib} MiB, commit {commit()}",
        soft_wrap=True,
    )
    console.print(import_table(graph))
    console.print(store_table(graph, config))


def film_graph(triples: int, seed: int) -> KnowledgeGraph:
    """Films with what belongs to them; few people are in many films, most in few."""
    draw = np.random.default_rng(seed)
    films = max(triples // sum(_A_FILM.values()), 1)
    people = max(films * 3 // 2, 1)
    heads, relations, tails = [], [], []
    for relation, each in _A_FILM.items():
        count = _KINDS.get(relation, people)
        chosen = (count * draw.random((films, each)) ** 3).astype(int)
        what = relation if relation in _KINDS else "person"
        heads += [f"film:{row}" for row in np.repeat(np.arange(films), each)]
        relations += [relation] * chosen.size
        tails += [f"{what}:{row}" for row in chosen.ravel()]
    return KnowledgeGraph.from_names(heads, relations, tails).distinct()


def store_table(graph: KnowledgeGraph, config: BenchConfig) -> Table:
    """Load and answer times of the embedded store and of plain arrays in memory, side by side."""
    draw = np.random.default_rng(config.seed + 1)
    films = [name for name in graph.entities if name.startswith("film:")]
    asked = [str(name) for name in draw.choice(films, config.questions + config.questions // 5)]
    people = [name for name in graph.entities if name.startswith("person:")]
    to_people = list(zip(asked, map(str, draw.choice(people, len(asked))), strict=True))
    to_films = [(a, b) for a, b in pairwise(asked) if a != b]
    warm = config.questions // 5
    with tempfile.TemporaryDirectory() as folder:
        embedded = LadybugStore(Path(folder) / "graph.db", config.buffer_mib * 2**20, config.threads)
        before = peak_mib()
        with embedded, MemoryStore() as memory:
            loads = [_seconds(partial(store.build, graph)) for store in (embedded, memory)]
            after = peak_mib()
            size = embedded.path.stat().st_size / 2**20
            table = Table("ms", "embedded", "least", "memory", "least", "in an answer", title_justify="left")
            table.title = (
                f"medians of {config.questions} questions; loaded in {loads[0]:.2f} s (embedded, {size:.0f} MiB on "
                f"disk) and {loads[1]:.2f} s (memory)"
            )
            kinds: list[tuple[str, Callable[[GraphStore, Any], Any], Sequence[Any]]] = [
                ("1 hop from a film", lambda s, film: s.neighbourhood([film], 1, limit=config.limit), asked),
                ("2 hops from a film", lambda s, film: s.neighbourhood([film], 2, limit=config.limit), asked),
                (
                    "2 hops, people only",
                    lambda s, film: s.neighbourhood([film], 2, ["actor", "director", "writer"], config.limit),
                    asked,
                ),
                ("paths of up to 2 hops, film to film", lambda s, ends: s.paths(ends[0], ends[1], 2), to_films),
                ("paths of up to 3 hops, film to person", lambda s, ends: s.paths(ends[0], ends[1], 3), to_people),
            ]
            for name, ask, questions in kinds:
                answers, times = zip(*(_answers(store, ask, questions) for store in (embedded, memory)), strict=True)
                if not all(map(_same, *answers)):
                    raise AssertionError(f"{name}: the two stores do not give the same answers")
                timed = [each[warm:] for each in times]
                cells = [f"{1_000 * of(each):.2f}" for each in timed for of in (statistics.median, min)]
                sizes = [len(a.triples) if isinstance(a, KnowledgeGraph) else len(a) for a in answers[0]]
                table.add_row(name, *cells, f"{statistics.mean(sizes):.0f}")
            table.caption_justify = "left"
            table.caption = (
                f"peak memory of the process: {before:.0f} MiB with the graph, {after:.0f} after both loads, "
                f"{peak_mib():.0f} after the questions"
            )
    return table


def _answers(
    store: GraphStore, ask: Callable[[GraphStore, Any], Any], questions: Sequence[Any]
) -> tuple[list[Any], list[float]]:
    answers, times = [], []
    for question in questions:
        began = time.perf_counter()
        answers.append(ask(store, question))
        times.append(time.perf_counter() - began)
    return answers, times


def _same(one: Any, other: Any) -> bool:
    """Whether two answers hold the same names and triples, or the same paths."""
    if isinstance(one, KnowledgeGraph):
        return (
            one.entities == other.entities
            and one.relations == other.relations
            and np.array_equal(one.triples, other.triples)
        )
    return bool(one == other)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(BenchConfig, main)
