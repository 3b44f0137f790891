"""A knowledge graph: heads, relations and tails with names."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class KnowledgeGraph:
    """Triples over named entities and relations.

    Args:
        entities: names, (E,); a triple's head and tail are positions in it.
        relations: names, (R,).
        triples: int64 (T, 3): head, relation, tail.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    triples: npt.NDArray[np.int64]

    @classmethod
    def from_names(cls, heads: list[str], relations: list[str], tails: list[str]) -> "KnowledgeGraph":
        """Build from three lists of names of one length; names are numbered in sorted order.

        >>> kg = KnowledgeGraph.from_names(["Alien"], ["director"], ["Scott"])
        >>> kg.entities, kg.triples.tolist()
        (('Alien', 'Scott'), [[0, 0, 1]])
        """
        entities = tuple(sorted({*heads, *tails}))
        kinds = tuple(sorted(set(relations)))
        entity = {name: row for row, name in enumerate(entities)}
        kind = {name: row for row, name in enumerate(kinds)}
        rows = [(entity[h], kind[r], entity[t]) for h, r, t in zip(heads, relations, tails, strict=True)]
        return cls(entities, kinds, np.array(rows, dtype=np.int64).reshape(-1, 3))

    def entity_rows(self, names: list[str | None]) -> npt.NDArray[np.int64]:
        """Positions of `names` among the entities, (len(names),); -1 where unknown or None."""
        position = {name: row for row, name in enumerate(self.entities)}
        return np.array([position.get(name, -1) if name else -1 for name in names], dtype=np.int64)
