"""A knowledge graph: heads, relations and tails with names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow

from recloop.encoders.base.described import Described
from recloop.encoders.base.errors import EncoderError, unknown_name

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KnowledgeGraph(Described):
    """Triples over named entities and relations.

    Args:
        entities: names, (E,); a triple's head and tail are positions in it.
        relations: names, (R,).
        triples: int64 (T, 3): head, relation, tail.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    triples: Ints

    @classmethod
    def from_names(cls, heads: Sequence[str], relations: Sequence[str], tails: Sequence[str]) -> "KnowledgeGraph":
        """Build from three columns of names of one length; names are numbered in sorted order.

        >>> kg = KnowledgeGraph.from_names(["Alien"], ["director"], ["Scott"])
        >>> kg.entities, kg.triples.tolist()
        (('Alien', 'Scott'), [[0, 0, 1]])
        """
        if not len(heads) == len(relations) == len(tails):
            raise ValueError(
                f"{len(heads)} heads, {len(relations)} relations and {len(tails)} tails; give as many of each"
            )
        return cls.from_arrow(*(pyarrow.array(names, pyarrow.large_string()) for names in (heads, relations, tails)))

    @classmethod
    def from_arrow(cls, heads: pyarrow.Array, relations: pyarrow.Array, tails: pyarrow.Array) -> "KnowledgeGraph":
        """`from_names` for Arrow's string arrays, which hold millions of names without a Python object for each."""
        ends = pyarrow.chunked_array([*_chunks(heads), *_chunks(tails)], pyarrow.large_string())
        kinds = pyarrow.chunked_array(_chunks(relations), pyarrow.large_string())
        entities, places = _numbered(ends)
        names, rows = _numbered(kinds)
        return cls.from_codes(entities, names, np.stack([places[: len(rows)], rows, places[len(rows) :]], axis=1))

    @classmethod
    def from_codes(cls, entities: Sequence[str], relations: Sequence[str], triples: Ints) -> "KnowledgeGraph":
        """Build from distinct names in any order and triples (T, 3) over them; names are renumbered in sorted order."""
        own, entity = _sorted(entities)
        kinds, kind = _sorted(relations)
        codes = np.asarray(triples, dtype=np.int64).reshape(-1, 3)
        return cls(own, kinds, np.stack([entity[codes[:, 0]], kind[codes[:, 1]], entity[codes[:, 2]]], axis=1))

    def entity_rows(self, names: Sequence[str | None]) -> Ints:
        """Positions of `names` among the entities, (len(names),); -1 where unknown or None."""
        wanted = set(names)
        position = {name: row for row, name in enumerate(self.entities) if name in wanted}
        return np.array([position.get(name, -1) if name else -1 for name in names], dtype=np.int64)

    def relation(self, name: str) -> int:
        """The position of a relation; `EncoderError` suggests the nearest where there is none of that name."""
        if name not in self.relations:
            raise EncoderError(unknown_name("relation", name, self.relations))
        return self.relations.index(name)

    def only(self, relations: Iterable[str]) -> "KnowledgeGraph":
        """The triples of these relations. Entities keep their positions, and those left without a triple stay."""
        kept = sorted({self.relation(name) for name in relations})
        place = np.full(len(self.relations), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        triples = self.triples[place[self.triples[:, 1]] >= 0].copy()
        triples[:, 1] = place[triples[:, 1]]
        return replace(self, relations=tuple(self.relations[row] for row in kept), triples=triples)

    def distinct(self) -> "KnowledgeGraph":
        """Every triple once, where it stands first."""
        heads, kinds, tails = self.triples.T
        # One number a triple: sorting numbers is far quicker than sorting rows, and they fit for any graph that
        # fits in memory (10 million entities and 10,000 relations need 60 of 63 bits).
        keys = (heads * len(self.relations) + kinds) * len(self.entities) + tails
        _, first = np.unique(keys, return_index=True)
        return self if len(first) == len(self.triples) else replace(self, triples=self.triples[np.sort(first)])


def _chunks(names: pyarrow.Array) -> list[pyarrow.Array]:
    wide = names.cast(pyarrow.large_string())
    return wide.chunks if isinstance(wide, pyarrow.ChunkedArray) else [wide]


def _numbered(names: pyarrow.ChunkedArray) -> tuple[list[str], Ints]:
    """The distinct names as they come, and the number of each cell's name."""
    coded = names.dictionary_encode().unify_dictionaries()
    if not coded.num_chunks:
        return [], np.zeros(0, dtype=np.int64)
    codes = [np.asarray(chunk.indices, dtype=np.int64) for chunk in coded.chunks]
    return coded.chunk(0).dictionary.to_pylist(), np.concatenate(codes)


def _sorted(names: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    """The names in sorted order, and the new position of each old one."""
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return tuple(names[row] for row in order), place
