"""Questions to a graph database in Cypher, written once in a dialect that Ladybug and Neo4j both take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recloop.encoders.base.errors import EncoderError, unknown_name
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.stores.contract import (
    MAX_HOPS,
    MAX_PATH_HOPS,
    GraphPath,
    GraphStore,
    check_ends,
    check_walk,
    unknown_entity,
)

ENTITY, TRIPLE, RELATION = "RecloopEntity", "RECLOOP_TRIPLE", "RecloopRelation"
"""Labels of our own, so that building never touches other data in the same database.

(:RecloopEntity {name, row}) -[:RECLOOP_TRIPLE {relation, row, head}]-> (:RecloopEntity), and (:RecloopRelation {name,
row}). The `row`s keep the order of building; `head` is the head's row, which tells the direction where a pattern has
none (Ladybug has no startNode).
"""

_ENTITY_COUNT = f"MATCH (e:{ENTITY}) RETURN count(*)"
_ENTITY_NAMES = f"MATCH (e:{ENTITY}) RETURN e.name ORDER BY e.row"
_ENTITY = f"MATCH (e:{ENTITY} {{name: $name}}) RETURN e.row"
_ENTITIES_NEAR = (
    f"MATCH (e:{ENTITY}) WHERE toLower(e.name) CONTAINS toLower($part) RETURN e.name ORDER BY e.name LIMIT 3"
)
_RELATION_NAMES = f"MATCH (k:{RELATION}) RETURN k.name ORDER BY k.row"
_RELATION_COUNTS = f"MATCH (:{ENTITY})-[r:{TRIPLE}]->(:{ENTITY}) RETURN r.relation, count(*)"
_TRIPLES = (
    f"MATCH (h:{ENTITY})-[r:{TRIPLE}]->(t:{ENTITY}) WHERE $every OR r.relation IN $relations "
    "RETURN h.row, r.relation, t.row ORDER BY r.row"
)


class CypherStore(GraphStore, ABC):
    """What the stores over a database share: every question but how it is sent. See `GraphStore` for the answers.

    Values travel as parameters, never inside the query's text; only the number of hops shapes a query. A pattern
    starts at one entity by its name, which both databases look up in an index (Ladybug scans all entities for a list
    of names), so a question about n entities is n short queries a hop.
    """

    @property
    @abstractmethod
    def where(self) -> str:
        """Where the store lies, for messages: no password in it."""

    @abstractmethod
    def build(self, graph: KnowledgeGraph, progress: bool = False) -> None:
        """Put `graph` in place of all that the store held, whole or not at all."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    @abstractmethod
    def _rows(self, query: str, parameters: Mapping[str, Any]) -> list[Sequence[Any]]:
        """What `query` returns, row by row; it must not write."""

    def neighbourhood(
        self, entities: Sequence[str], hops: int = 1, relations: Sequence[str] | None = None, limit: int = 10_000
    ) -> KnowledgeGraph:
        """The triples within `hops` of `entities`; see `GraphStore`."""
        check_walk("hops", hops, MAX_HOPS, limit)
        chosen = self._chosen(relations)
        found: dict[int, tuple[str, str, str]] = {}
        for hop in range(1, hops + 1):
            reached: dict[int, tuple[str, str, str]] = {}
            for name in dict.fromkeys(entities):
                # A triple between two entities of one distance comes from both its ends.
                rows = self._rows(_neighbours(hop), {"name": name, "limit": 2 * limit, **chosen})
                if hop == 1 and not rows:
                    self._must_hold(name)
                for near, forward, relation, other, row in rows:
                    reached[row] = (near, relation, other) if forward else (other, relation, near)
            for row in sorted(reached.keys() - found.keys())[: limit - len(found)]:
                found[row] = reached[row]
            if len(found) == limit:
                break
        triples = [found[row] for row in sorted(found)]
        return KnowledgeGraph.from_names(*([triple[i] for triple in triples] for i in range(3)))

    def paths(self, source: str, target: str, max_hops: int = 3, limit: int = 10) -> list[GraphPath]:
        """The shortest paths between two entities; see `GraphStore`."""
        check_walk("max_hops", max_hops, MAX_PATH_HOPS, limit)
        check_ends(source, target)
        for name in (source, target):
            self._must_hold(name)
        found: list[GraphPath] = []
        for hops in range(1, max_hops + 1):
            parameters = {"source": source, "target": target, "limit": limit - len(found)}
            for row in self._rows(_paths(hops), parameters):
                entities, relations, forward = row[: hops + 1], row[hops + 1 : 2 * hops + 1], row[2 * hops + 1 :][:hops]
                found.append(GraphPath(tuple(entities), tuple(relations), tuple(forward)))
            if len(found) == limit:
                break
        return found

    def graph(self, relations: Sequence[str] | None = None) -> KnowledgeGraph:
        """All triples, or those of `relations`; see `GraphStore`."""
        names = tuple(str(name) for (name,) in self._rows(_ENTITY_NAMES, {}))
        if not names:
            raise self._not_built()
        kinds = tuple(str(name) for (name,) in self._rows(_RELATION_NAMES, {}))
        rows = self._rows(_TRIPLES, self._chosen(relations))
        if relations is not None:
            return KnowledgeGraph.from_names(
                [names[h] for h, _, _ in rows], [r for _, r, _ in rows], [names[t] for _, _, t in rows]
            )
        kind = {name: row for row, name in enumerate(kinds)}
        triples = np.array([(h, kind[r], t) for h, r, t in rows], dtype=np.int64).reshape(-1, 3)
        return KnowledgeGraph(names, kinds, triples)

    def select(self, query: str) -> KnowledgeGraph:
        """Triples out of a database that someone else filled, by a Cypher query of theirs that only reads.

        It must return three columns, the names of head, relation and tail, such as ``MATCH (p:Person)-[r]->(m:Movie)
        RETURN p.name, type(r), m.title``. Rows with a null are left out; a triple that comes twice counts once.
        """
        rows = self._rows(query, {})
        if rows and len(rows[0]) != 3:
            raise EncoderError(f"the query returns {len(rows[0])} columns; return three: head, relation and tail")
        kept = list(dict.fromkeys(tuple(map(str, row)) for row in rows if None not in row))
        if not kept:
            raise EncoderError(f"the query finds no triples in {self.where}; ask for what is there")
        return KnowledgeGraph.from_names(*([row[i] for row in kept] for i in range(3)))

    def entities(self) -> int:
        """How many entities there are."""
        count = int(self._rows(_ENTITY_COUNT, {})[0][0])
        if count == 0:
            raise self._not_built()
        return count

    def relations(self) -> Mapping[str, int]:
        """How many triples each relation has."""
        counts = {name: int(count) for name, count in self._rows(_RELATION_COUNTS, {})}
        return {name: counts.get(name, 0) for (name,) in self._rows(_RELATION_NAMES, {})}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.where!r})"

    def _chosen(self, relations: Sequence[str] | None) -> dict[str, Any]:
        """The parameters that say which relations count."""
        if relations is None:
            return {"every": True, "relations": []}
        known = [str(name) for (name,) in self._rows(_RELATION_NAMES, {})]
        for name in relations:
            if name not in known:
                raise EncoderError(unknown_name("relation", name, known)) if known else self._not_built()
        return {"every": False, "relations": list(relations)}

    def _must_hold(self, name: str) -> None:
        if not self._rows(_ENTITY, {"name": name}):
            self.entities()  # says so where nothing was built
            near = self._rows(_ENTITIES_NEAR, {"part": name})
            raise unknown_entity(name, [str(found) for (found,) in near])

    def _not_built(self) -> EncoderError:
        return EncoderError(
            f"{self.where} holds no graph of recloop; build one, or select triples by a Cypher query of your own"
        )


def _walk(hops: int, last: str) -> str:
    """A pattern of `hops` undirected hops over r1, r2, ... from n0 through n1, ... to the entity `last`."""
    nodes = [f"(n{i}:{ENTITY})" for i in range(hops)]
    return "".join(f"{node}-[r{i}:{TRIPLE}]-" for i, node in enumerate(nodes, start=1)) + last


def _neighbours(hop: int) -> str:
    """Near entity, whether it is the head, relation, other entity and row of the triples at exactly this hop."""
    chosen = " AND ".join(f"r{i}.relation IN $relations" for i in range(1, hop + 1))
    near, last = f"n{hop - 1}", f"r{hop}"
    return (
        f"MATCH {_walk(hop, f'(other:{ENTITY})')} WHERE n0.name = $name AND ($every OR ({chosen})) "
        f"RETURN DISTINCT {near}.name, {last}.head = {near}.row, {last}.relation, other.name, {last}.row AS row "
        "ORDER BY row LIMIT $limit"
    )


def _paths(hops: int) -> str:
    """Entities, relations and directions of the paths of exactly these hops, in the order of their triples."""
    nodes = [f"n{i}" for i in range(hops + 1)]
    rows = [f"r{i}.row" for i in range(1, hops + 1)]
    differ = " AND ".join(f"{a}.row <> {b}.row" for i, a in enumerate(nodes) for b in nodes[i + 1 :])
    columns = [f"{node}.name" for node in nodes]
    columns += [f"r{i}.relation" for i in range(1, hops + 1)]
    columns += [f"r{i}.head = n{i - 1}.row" for i in range(1, hops + 1)]
    return (
        f"MATCH {_walk(hops, f'(n{hops}:{ENTITY})')} WHERE n0.name = $source AND n{hops}.name = $target AND {differ} "
        f"RETURN {', '.join(columns)} ORDER BY {', '.join(rows)} LIMIT $limit"
    )
