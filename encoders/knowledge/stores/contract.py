"""What every graph store answers, and how a path reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph

MAX_HOPS = 3
"""Neighbourhoods end here: a further hop through a genre or a country is the whole graph."""
MAX_PATH_HOPS = 4
"""Two items that share a neighbour's neighbour are four hops apart; longer paths explain nothing."""


@dataclass(frozen=True)
class GraphPath:
    """A walk that meets no entity twice.

    Args:
        entities: names from source to target, (H + 1,).
        relations: the relation of every hop, (H,).
        forward: whether a hop goes from head to tail, (H,).

    >>> print(GraphPath(("film:Alien", "person:Scott", "film:Gladiator"), ("director", "director"), (True, False)))
    film:Alien -director-> person:Scott <-director- film:Gladiator
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    forward: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.relations)

    def __str__(self) -> str:
        text = self.entities[0]
        for entity, relation, forward in zip(self.entities[1:], self.relations, self.forward, strict=True):
            text += f" -{relation}-> {entity}" if forward else f" <-{relation}- {entity}"
        return text


class GraphStore(Protocol):
    """A knowledge graph that can be asked. Every store gives equal answers to equal questions (one shared test).

    Relations are walked in both directions. All methods raise `EncoderError` in one line: for an entity or relation
    that is not there, a number out of bounds, and a store that is down, damaged or not built yet.
    """

    def build(self, graph: KnowledgeGraph, progress: bool = False) -> None:
        """Put `graph` in place of all that the store held, whole or not at all; a triple given twice counts once."""
        ...

    def neighbourhood(
        self, entities: Sequence[str], hops: int = 1, relations: Sequence[str] | None = None, limit: int = 10_000
    ) -> KnowledgeGraph:
        """The triples within `hops` (1 to 3) of `entities`, walking over `relations` (None: all) only.

        At most `limit` of them: the nearest, then those built first. So `limit` triples mean that there may be
        more. Names are numbered in sorted order, triples stand in the order of building.
        """
        ...

    def paths(self, source: str, target: str, max_hops: int = 3, limit: int = 10) -> list[GraphPath]:
        """At most `limit` paths of 1 to `max_hops` (1 to 4) hops: the shortest, then those built first."""
        ...

    def graph(self, relations: Sequence[str] | None = None) -> KnowledgeGraph:
        """All triples again: the graph as it was built, or its part of these `relations`, names sorted."""
        ...

    def entities(self) -> int:
        """How many entities there are."""
        ...

    def relations(self) -> Mapping[str, int]:
        """How many triples each relation has, in the order of building."""
        ...

    def close(self) -> None:
        """Let go of files and connections; closing twice is no error."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checked(graph: KnowledgeGraph) -> KnowledgeGraph:
    """`graph` with each triple once, in the order of their first coming.

    Raises:
        EncoderError: for no triples, a name that stands twice, or a triple that points beyond the names.
    """
    if len(graph.triples) == 0:
        raise EncoderError("the knowledge graph holds no triples; a store needs one at least")
    for what, names in (("entity", graph.entities), ("relation", graph.relations)):
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise EncoderError(f"{what} '{twice}' stands twice in the knowledge graph; names must differ")
    ends = np.array([len(graph.entities), len(graph.relations), len(graph.entities)])
    if (graph.triples < 0).any() or (graph.triples >= ends).any():
        raise EncoderError(
            f"a triple points beyond the {ends[0]} entities or {ends[1]} relations of its graph; make the graph anew"
        )
    return graph.distinct()


def check_walk(what: str, hops: int, most: int, limit: int) -> None:
    """Refuse a number of hops or a limit out of bounds."""
    if not 1 <= hops <= most:
        raise EncoderError(f"{what}={hops} is outside 1 to {most}; further hops reach nearly the whole graph")
    if limit < 1:
        raise EncoderError(f"limit={limit} leaves nothing to return; give 1 or more")


def check_ends(source: str, target: str) -> None:
    """Refuse a path from an entity to itself."""
    if source == target:
        raise EncoderError(f"a path from '{source}' to itself meets it twice; give two entities")


def unknown_entity(name: str, near: Sequence[str]) -> EncoderError:
    """The error for an entity that the store does not hold; `near` are names that contain it."""
    hint = f"nearest: {', '.join(repr(found) for found in near)}" if near else "nothing there contains that name"
    return EncoderError(f"no entity '{name}' in the store; {hint}")
