"""What a user's consumed items say in the knowledge graph, read back as paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.links import item_links, kind_name

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_TYPE = re.compile(r"^[a-z_]+:(?=[^/\s])")
"""What comes in front of an entity's name to say what it is; not the scheme of an address."""


@dataclass(frozen=True)
class HistoryPath:
    """A path from consumed items to an entity, and on to another item where one is explained.

    Args:
        relation: as read from the consumed items; "<name> of" where they are the tail.
        entity: its name.
        weight: in (0, 1].
        items: rows of the consumed items it runs through, the weightiest first.
        onward: relations that the explained item has to the entity; empty where none is explained or the entity is
            the item itself.
    """

    relation: str
    entity: str
    weight: float
    items: tuple[int, ...]
    onward: tuple[str, ...] = ()

    def in_words(self, titles: Sequence[str], most: int = 3) -> str:
        """One line, naming at most `most` items; "person:" and the like in front of an entity's name are left out.

        >>> HistoryPath("director", "Ridley Scott", 0.214, (1, 0)).in_words(["Alien", "Blade Runner"])
        'director: Ridley Scott 0.21 (via Blade Runner, Alien)'
        """
        more = f", {len(self.items) - most} more" if len(self.items) > most else ""
        others = [name for name in self.onward if name != self.relation]
        here = f", here as {' and '.join(others)}," if others and self.relation not in self.onward else ""
        via = ", ".join(titles[row] for row in self.items[:most])
        return f"{self.relation}: {_TYPE.sub('', self.entity)}{here} {self.weight:.2g} (via {via}{more})"


class GraphContext:
    """The graph around a catalogue, and what histories weigh in it.

    An item spreads its weight evenly over its neighbours under each relation, so a history gives every relation a
    distribution over entities; attention over relations makes one distribution of them. With the weights and the
    attention of a `StateEncoder` these are, within each relation, the proportions in which it sums the vectors of
    neighbours, which are shorter the fewer items share them (`item_relation_tables`), so that what is read back is what
    was used, not a story told afterwards. One factor a relation apart: an item whose neighbours there nobody shares
    counts here, and not in the encoder. For relations that the encoder does not keep the attention is 0. In the manner
    of KGAT (Wang et al. 2019); differences: attention is over relations alone.

    Args:
        kg: the triples.
        entity_rows: int64 (N,) each item's entity, or -1.

    Attributes:
        pairs: int64 (P, 2) every (kind, entity) that an item has; kinds as in `item_links`.
    """

    def __init__(self, kg: KnowledgeGraph, entity_rows: Ints) -> None:
        self._kg, self._entity_rows = kg, entity_rows
        links, times = np.unique(item_links(kg, entity_rows), axis=0, return_counts=True)
        self.pairs, column = np.unique(links[:, 1:], axis=0, return_inverse=True)  # (P, 2): kind, entity
        column = column.reshape(-1)
        kinds = 2 * len(kg.relations)
        place = links[:, 0] * kinds + links[:, 1]
        spread = times / np.bincount(place, weights=times, minlength=1)[place]
        n = len(entity_rows)
        self._shares = sparse.csr_array((spread, (links[:, 0], column)), shape=(n, len(self.pairs)))
        has = np.unique(links[:, :2], axis=0)
        self._has = sparse.csr_array((np.ones(len(has)), (has[:, 0], has[:, 1])), shape=(n, kinds))
        self._names = tuple(kind_name(kg, kind) for kind in range(kinds))
        linked = max(len(np.unique(links[:, 0])), 1)
        base = self._shares.sum(axis=0) / self._has.sum(axis=0)[self.pairs[:, 0]].clip(1)
        self._base: Floats = base  # (P,), an entity's part of a relation over the whole catalogue
        rarity = np.log1p(linked / np.bincount(column, minlength=len(self.pairs)).clip(1))
        self._rarity: Floats = rarity / np.log1p(linked)  # (P,), 1 where a single item has the pair

    def weights(
        self, history: Ints, item_weights: Floats | None = None, attention: Mapping[str, Floats] | None = None
    ) -> sparse.csr_array:
        """How much each (relation, entity) pair weighs in B histories: sparse (B, P), rows sum to at most 1.

        Args:
            history: int64 (B, H) item rows; places holding N or more are empty.
            item_weights: (B, H) not negative; default 1 each.
            attention: relation name -> (B,), summing to at most 1 over relations; default equal over those that a
                history has.

        Raises:
            EncoderError: where weights or attention are negative or not finite.
        """
        b, n = len(history), len(self._entity_rows)
        given = np.ones(history.shape) if item_weights is None else np.asarray(item_weights, dtype=np.float64)
        for what, values in (("item weights", given), *(attention or {}).items()):
            if not np.isfinite(values).all() or (np.asarray(values) < 0).any():
                raise EncoderError(f"{what} of a history hold a negative number or NaN; give weights of 0 or more")
        lanes, places = np.nonzero(history < n)
        consumed = sparse.csr_array((given[lanes, places], (lanes, history[lanes, places])), shape=(b, n))
        mass = (consumed @ self._has).toarray()  # (B, 2R): the weight of the items that have the relation
        if attention is None:
            present = mass > 0
            focus = present / present.sum(1, keepdims=True).clip(1)
        else:
            focus = np.zeros_like(mass)
            for kind, name in enumerate(self._names):
                if name in attention:
                    focus[:, kind] = attention[name]
        factor = np.divide(focus, mass, out=np.zeros_like(mass), where=mass > 0)
        found = (consumed @ self._shares).tocoo()  # (B, P)
        data = found.data * factor[found.row, self.pairs[found.col, 0]]
        return sparse.csr_array((data, (found.row, found.col)), shape=found.shape)

    def paths(
        self,
        history: Ints,
        item_weights: Floats | None = None,
        attention: Mapping[str, float] | None = None,
        top: int = 8,
        telling: bool = False,
    ) -> list[HistoryPath]:
        """The `top` weightiest paths of one history (H,); weights as in `weights`, ties by name.

        Args:
            telling: take and sort those that set the history apart from the catalogue instead, by what each adds to the
                Kullback-Leibler divergence of the two: weight times the log of how much more of its relation the entity
                has here. What every item shares, as a language, then comes late; and what a single consumed item has
                comes after what several have, since one says little of a taste.
        """
        found = self._one(history, item_weights, attention)
        pairs, weights = found.indices[found.data > 0], found.data[found.data > 0]
        if not telling:
            return self._read(pairs, weights, weights, history, item_weights, top)
        kinds = self.pairs[pairs, 0]
        of_kind = np.bincount(kinds, weights, minlength=1)[kinds]
        worth = weights * np.log(weights / of_kind / self._base[pairs])
        consumed = np.unique(history[history < len(self._entity_rows)])
        several = (self._shares[consumed] > 0).sum(axis=0)[pairs] > 1
        ranked = [
            self._read(pairs[mine], weights[mine], worth[mine], history, item_weights, top)
            for mine in (several, ~several)
        ]
        return [path for paths in ranked for path in paths][:top]

    def explain(
        self,
        history: Ints,
        item: int,
        item_weights: Floats | None = None,
        attention: Mapping[str, float] | None = None,
        top: int = 8,
    ) -> list[HistoryPath]:
        """Why a history (H,) may lead to `item`: paths through entities that both have, the weightiest first.

        A path's weight is that of the history's pair times how rare the pair is among items (log(1 + L / df), 1 for a
        pair of one item's): that a film is in English explains nothing. The item may have the entity under another
        relation, named in `onward`. No path where it is not linked.

        Raises:
            EncoderError: for an item outside the catalogue.
        """
        if not 0 <= item < len(self._entity_rows):
            raise EncoderError(f"item row {item} lies outside the catalogue of {len(self._entity_rows)} items")
        own = self.pairs[self._shares[[item]].tocoo().col]  # (p, 2): the item's kinds and entities
        onward: dict[int, tuple[str, ...]] = {}
        for kind, entity in own.tolist():
            onward[entity] = (*onward.get(entity, ()), self._names[kind])
        if self._entity_rows[item] >= 0:
            onward.setdefault(int(self._entity_rows[item]), ())
        found = self._one(history, item_weights, attention)
        shared = np.isin(self.pairs[found.indices, 1], np.array(list(onward), dtype=np.int64))
        pairs = found.indices[shared]
        weights = found.data[shared] * self._rarity[pairs]
        return self._read(pairs, weights, weights, history, item_weights, top, onward)

    def _one(
        self, history: Ints, item_weights: Floats | None, attention: Mapping[str, float] | None
    ) -> sparse.csr_array:
        """`weights` of a single history, (1, P)."""
        batch = None if item_weights is None else item_weights[None]
        focus = None if attention is None else {name: np.array([value]) for name, value in attention.items()}
        return self.weights(history[None], batch, focus)

    def _read(
        self,
        pairs: npt.NDArray[np.integer],
        weights: Floats,
        worth: Floats,
        history: Ints,
        item_weights: Floats | None,
        top: int,
        onward: Mapping[int, tuple[str, ...]] | None = None,
    ) -> list[HistoryPath]:
        """The pairs of most worth with their names and the items of the history that have them."""
        kg, given = self._kg, np.ones(len(history)) if item_weights is None else item_weights
        own = np.zeros(len(self._entity_rows))
        held = history < len(own)
        np.add.at(own, history[held], given[held])
        names = [(self._names[kind], kg.entities[entity]) for kind, entity in self.pairs[pairs].tolist()]
        order = sorted(range(len(pairs)), key=lambda i: (-round(float(worth[i]), 12), names[i]))
        found = []
        for place in [i for i in order if weights[i] > 0][:top]:
            column = self._shares[:, [int(pairs[place])]].tocoo()
            share = column.data * own[column.row]
            via = [int(row) for row in column.row[np.argsort(-share, kind="stable")] if own[row] > 0]
            further = onward.get(int(self.pairs[pairs[place], 1]), ()) if onward else ()
            found.append(HistoryPath(*names[place], float(weights[place]), tuple(via), further))
        return found
