"""A knowledge graph in a database: put it there, and ask what is near an entity and what connects two.

    recloop graph build ../shared/data/ml-100k/ml-100k.kg --store ladybug:graphs/ml-100k.db
    recloop graph build worlds/ml-100k --store bolt://neo4j@localhost:7687
    recloop graph neighbours "film:Alien (1979)" --store ladybug:graphs/ml-100k.db --hops 2 --relations director actor
    recloop graph paths "film:Alien (1979)" "film:Blade Runner (1982)" --store ladybug:graphs/ml-100k.db

A store is `ladybug:PATH`, an embedded database in one file, or a Neo4j server's URL; its password is read from the
environment variable RECLOOP_NEO4J_PASSWORD.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.sources import read_triples
from recloop.encoders.knowledge.stores import open_store
from recloop.encoders.knowledge.stores.places import is_store
from recloop.envs.world.world import load_knowledge
from recloop.experiments.output import writing
from recloop.experiments.report.tables import PlainConsole, wide_console

Store = Annotated[str, tyro.conf.arg(metavar="ladybug:PATH|URL")]


@dataclass(frozen=True)
class BuildGraph:
    """Put a graph in place of all that the store held."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORLD|FILE|STORE")]
    """World folder, file of triples (.kg, .tsv, .csv, .parquet, .nt), or another store."""
    store: Store
    """Where to: ladybug:PATH, or bolt:// and neo4j:// URLs."""
    progress: bool = True
    """Whether to show a progress bar."""


@dataclass(frozen=True)
class Neighbours:
    """Print the triples around some entities."""

    entities: tyro.conf.Positional[tuple[str, ...]]
    """Names, such as "film:Alien (1979)"."""
    store: Store
    """The store to ask."""
    hops: int = 1
    """How far from them, 1 to 3."""
    relations: tuple[str, ...] = ()
    """Relations to walk over; none: all."""
    limit: int = 50
    """Most triples printed: the nearest."""


@dataclass(frozen=True)
class Paths:
    """Print the shortest paths between two entities."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FROM")]
    """Name of the first."""
    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TO")]
    """Name of the second."""
    store: Store
    """The store to ask."""
    max_hops: int = 3
    """Longest path, 1 to 4."""
    limit: int = 10
    """Most paths printed: the shortest."""


@tyro.conf.configure(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
@dataclass(frozen=True)
class GraphConfig:
    """Build a graph store, or ask one."""

    action: (
        Annotated[BuildGraph, tyro.conf.subcommand("build")]
        | Annotated[Neighbours, tyro.conf.subcommand("neighbours")]
        | Annotated[Paths, tyro.conf.subcommand("paths")]
    )


def main(config: GraphConfig) -> None:
    """Do what was asked and print it."""
    console = wide_console()
    match config.action:
        case BuildGraph() as build:
            _build(build, console)
        case Neighbours() as asked:
            if not asked.entities:
                raise RecloopError('no entity to look around; give names, such as "film:Alien (1979)"')
            with open_store(asked.store) as store:
                found = store.neighbourhood(asked.entities, asked.hops, asked.relations or None, asked.limit)
            _print(console, _sentences(found))
            if len(found.triples) == asked.limit:
                _print(console, [f"... the nearest {asked.limit}; raise --limit for more"])
        case Paths() as asked:
            with open_store(asked.store) as store:
                paths = store.paths(asked.source, asked.target, asked.max_hops, asked.limit)
            _print(console, [str(path) for path in paths] or [f"no path of up to {asked.max_hops} hops"])


def graph_from(source: str) -> KnowledgeGraph:
    """The graph of a store, a world folder or a file of triples."""
    if is_store(source):
        with open_store(source) as store:
            return store.graph()
    path = Path(source)
    if path.is_dir():
        graph = load_knowledge(path / "knowledge.parquet")
        if graph is None:
            raise RecloopError(f"{path} holds no knowledge graph; name a world that has one, or a file of triples")
        return graph
    return read_triples(path)[0]


def _build(config: BuildGraph, console: PlainConsole) -> None:
    kind, _, path = config.store.partition(":")
    with writing(Path(path)) if kind == "ladybug" else nullcontext(), open_store(config.store) as store:
        graph = graph_from(config.source)
        store.build(graph, progress=config.progress)
        counts = ", ".join(f"{name} {count:,}" for name, count in store.relations().items())
        _print(console, [f"{store.where}: {store.entities():,} entities; triples: {counts}"])


def _sentences(graph: KnowledgeGraph) -> list[str]:
    return [
        f"{graph.entities[head]} -{graph.relations[kind]}-> {graph.entities[tail]}"
        for head, kind, tail in graph.triples.tolist()
    ]


def _print(console: PlainConsole, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(GraphConfig, main)
