"""Which entities an item of the catalogue touches, and by which relation."""

import numpy as np
import numpy.typing as npt

from recloop.encoders.knowledge.graph import KnowledgeGraph


def item_links(kg: KnowledgeGraph, entity_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Every (item, kind, neighbour) of N items, int64 (L, 3).

    Args:
        entity_rows: int64 (N,) each item's entity, or -1; two items may share an entity.

    Returns:
        kind is relation r where the item is the head, and R + r where it is the tail.
    """
    items = np.flatnonzero(entity_rows >= 0)
    by_entity = items[np.argsort(entity_rows[items], kind="stable")]
    keys = entity_rows[by_entity]
    heads, kinds, tails = kg.triples.T
    parts = []
    for own, kind, other in ((heads, kinds, tails), (tails, kinds + len(kg.relations), heads)):
        first, last = np.searchsorted(keys, own, "left"), np.searchsorted(keys, own, "right")
        counts = last - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        item = by_entity[np.repeat(first, counts) + within]
        parts.append(np.stack([item, np.repeat(kind, counts), np.repeat(other, counts)], axis=1))
    return np.concatenate(parts)


def sharing(links: npt.NDArray[np.int64], entities: int) -> npt.NDArray[np.float64]:
    """How far an entity connects items, float64 (entities,): (d - 1) / d where d items touch it, 0 where none does.

    Args:
        links: int64 (L, 3) as `item_links` gives them.

    >>> sharing(np.array([[0, 0, 2], [1, 0, 2], [1, 1, 3]]), 4).tolist()
    [0.0, 0.0, 0.5, 0.0]
    """
    pairs = np.unique(links[:, [0, 2]], axis=0)
    items = np.bincount(pairs[:, 1], minlength=entities)
    return np.maximum(items - 1, 0) / np.maximum(items, 1)


def kind_name(kg: KnowledgeGraph, kind: int) -> str:
    """A relation as read from the item: its name, or "<name> of" where the item is the tail."""
    r = len(kg.relations)
    return kg.relations[kind] if kind < r else f"{kg.relations[kind - r]} of"
