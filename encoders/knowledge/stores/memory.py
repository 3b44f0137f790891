"""A graph store over NumPy arrays: the plain reference that the databases are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from recloop.encoders.base.errors import EncoderError, unknown_name
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.stores.contract import (
    MAX_HOPS,
    MAX_PATH_HOPS,
    GraphPath,
    GraphStore,
    check_ends,
    check_walk,
    checked,
    unknown_entity,
)

Rows = npt.NDArray[np.int64]


class MemoryStore(GraphStore):
    """A graph in memory: every triple twice, once from each end, sorted by entity and then by triple.

    Args:
        graph: what to hold; None waits for `build`.
    """

    def __init__(self, graph: KnowledgeGraph | None = None) -> None:
        self._graph: KnowledgeGraph | None = None
        if graph is not None:
            self.build(graph)

    def build(self, graph: KnowledgeGraph, progress: bool = False) -> None:
        """Hold `graph` in place of what was there."""
        graph = checked(graph)
        heads, _, tails = graph.triples.T
        rows = np.arange(len(graph.triples))
        ends, others, triples = np.concatenate([heads, tails]), np.concatenate([tails, heads]), np.tile(rows, 2)
        order = np.lexsort((triples, ends))
        self._others, self._triples = others[order], triples[order]  # (2T,)
        self._starts = np.searchsorted(ends[order], np.arange(len(graph.entities) + 1))  # (E+1,)
        self._position = {name: row for row, name in enumerate(graph.entities)}
        self._graph = graph

    def neighbourhood(
        self, entities: Sequence[str], hops: int = 1, relations: Sequence[str] | None = None, limit: int = 10_000
    ) -> KnowledgeGraph:
        """The triples within `hops` of `entities`; see `GraphStore`."""
        check_walk("hops", hops, MAX_HOPS, limit)
        graph = self._built()
        allowed = self._of(relations)
        frontier = np.unique(np.array([self._row(name) for name in entities], dtype=np.int64))
        seen = np.zeros(len(graph.entities), dtype=bool)
        taken = np.zeros(len(graph.triples), dtype=bool)
        for _ in range(hops):
            seen[frontier] = True
            places = np.concatenate([self._places(entity) for entity in frontier.tolist()] or [frontier])
            places = places[allowed[self._triples[places]]]
            new = np.unique(self._triples[places])
            new = new[~taken[new]]
            taken[new[: max(limit - int(taken.sum()), 0)]] = True
            others = np.unique(self._others[places])
            frontier = others[~seen[others]]
        return _named(graph, np.flatnonzero(taken))

    def paths(self, source: str, target: str, max_hops: int = 3, limit: int = 10) -> list[GraphPath]:
        """The shortest paths between two entities; see `GraphStore`."""
        check_walk("max_hops", max_hops, MAX_PATH_HOPS, limit)
        check_ends(source, target)
        start, end = self._row(source), self._row(target)
        far = self._distances(end, max_hops)
        found: list[GraphPath] = []
        for hops in range(1, max_hops + 1):
            for walk in self._walks([start], [], end, hops, far):
                found.append(self._path(start, walk))
                if len(found) == limit:
                    return found
        return found

    def graph(self, relations: Sequence[str] | None = None) -> KnowledgeGraph:
        """All triples, or those of `relations`; see `GraphStore`."""
        graph = self._built()
        return graph if relations is None else _named(graph, np.flatnonzero(self._of(relations)))

    def entities(self) -> int:
        """How many entities there are."""
        return len(self._built().entities)

    def relations(self) -> Mapping[str, int]:
        """How many triples each relation has."""
        graph = self._built()
        counts = np.bincount(graph.triples[:, 1], minlength=len(graph.relations))
        return dict(zip(graph.relations, counts.tolist(), strict=True))

    def close(self) -> None:
        """Nothing to let go of."""

    def _built(self) -> KnowledgeGraph:
        if self._graph is None:
            raise EncoderError("the store holds no graph; build one")
        return self._graph

    def _row(self, name: str) -> int:
        graph = self._built()
        if name not in self._position:
            near = sorted(known for known in graph.entities if name.lower() in known.lower())
            raise unknown_entity(name, near[:3])
        return self._position[name]

    def _of(self, relations: Sequence[str] | None) -> npt.NDArray[np.bool_]:
        """Which triples are of `relations`, bool (T,)."""
        graph = self._built()
        for name in relations or ():
            if name not in graph.relations:
                raise EncoderError(unknown_name("relation", name, graph.relations))
        kept = np.array([relations is None or name in relations for name in graph.relations])
        return np.asarray(kept[graph.triples[:, 1]])

    def _places(self, entity: int) -> Rows:
        return np.arange(self._starts[entity], self._starts[entity + 1])

    def _distances(self, end: int, most: int) -> dict[int, int]:
        """Hops to `end` of every entity that is at most `most` away."""
        far, frontier = {end: 0}, [end]
        for hops in range(1, most + 1):
            reached = {other for entity in frontier for other in self._others[self._places(entity)].tolist()}
            frontier = [other for other in reached if other not in far]
            far.update(dict.fromkeys(frontier, hops))
        return far

    def _walks(
        self, met: list[int], walk: list[tuple[int, int]], end: int, left: int, far: Mapping[int, int]
    ) -> Iterator[list[tuple[int, int]]]:
        """Walks of exactly `left` more hops to `end`, as (triple, entity reached), the first triples first."""
        if left == 0:
            if met[-1] == end:
                yield walk
            return
        for place in self._places(met[-1]).tolist():
            other = int(self._others[place])
            if other not in met and far.get(other, left) <= left - 1 and (other != end or left == 1):
                step = (int(self._triples[place]), other)
                yield from self._walks([*met, other], [*walk, step], end, left - 1, far)

    def _path(self, start: int, walk: Sequence[tuple[int, int]]) -> GraphPath:
        graph = self._built()
        rows = [start, *(entity for _, entity in walk)]
        triples = [graph.triples[triple] for triple, _ in walk]
        return GraphPath(
            tuple(graph.entities[row] for row in rows),
            tuple(graph.relations[relation] for _, relation, _ in triples),
            tuple(bool(head == row) for row, (head, _, _) in zip(rows, triples, strict=False)),
        )


def _named(graph: KnowledgeGraph, rows: Rows) -> KnowledgeGraph:
    """The part of `graph` that these triples are."""
    parts = zip(*graph.triples[rows].tolist(), strict=True) if len(rows) else ((), (), ())
    heads, relations, tails = parts
    return KnowledgeGraph.from_names(
        [graph.entities[h] for h in heads], [graph.relations[r] for r in relations], [graph.entities[t] for t in tails]
    )
