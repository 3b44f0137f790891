"""Which items belong together: categories, an attribute of the knowledge graph, and nearness of item vectors."""

from collections import Counter

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.schema import Columns, LoggedBehavior

MOST_GROUPS = 24
"""A grouping keeps its largest groups; the smaller ones share the last."""
_COVERED = 0.5
"""Share of the items that an attribute must speak of to be a grouping."""
_ITEMS_A_GROUP = 25
"""Items a group by nearness holds on average, where the catalogue is small."""


def item_groups(log: LoggedBehavior, vectors: Tensor, seed: int = 0) -> tuple[Tensor, tuple[str, ...]]:
    """Groupings of a log's items.

    `category`: the items table's own column. An attribute: of the relations of the knowledge graph that speak of half
    of the items or more, the one whose tails split them most evenly (highest entropy over at most `MOST_GROUPS`
    groups); an item with several tails belongs to the most frequent one. `nearness`: k-means over item vectors.

    Args:
        log: its items table and knowledge graph are read; nobody's behaviour is.
        vectors: float32 (N+1, d) item vectors, row N is the empty place.
        seed: of k-means.

    Returns:
        int64 (N+1, G) and the G names. Items without a group, and row N, hold the number of groups of that grouping.
    """
    found: dict[str, list[str | None]] = {}
    if Columns.category in log.items and log.items[Columns.category].notna().any():
        found[Columns.category] = _names(log.items[Columns.category])
    if log.knowledge is not None and Columns.entity in log.items:
        attribute = _attribute(log.knowledge, _names(log.items[Columns.entity]))
        if attribute is not None:
            found[attribute[0]] = attribute[1]
    columns = [_numbered(values) for values in found.values()]
    names = list(found)
    near = _near(vectors[:-1], seed)
    if near is not None:
        columns.append(near)
        names.append("nearness")
    if not columns:
        return torch.zeros(len(log.items) + 1, 0, dtype=torch.int64), ()
    return torch.stack(columns, dim=1), tuple(names)


def _names(column: "pd.Series[str]") -> list[str | None]:
    return [str(value) if pd.notna(value) else None for value in column]


def _numbered(values: list[str | None]) -> Tensor:
    """Names or missing ones -> (N+1,) numbers, largest group first."""
    names = [name for name, _ in Counter(value for value in values if value is not None).most_common()]
    number = {name: min(place, MOST_GROUPS - 1) for place, name in enumerate(names)}
    none = min(len(names), MOST_GROUPS)
    rows = [none if value is None else number[value] for value in values]
    return torch.tensor([*rows, none], dtype=torch.int64)


def _attribute(graph: KnowledgeGraph, entities: list[str | None]) -> tuple[str, list[str | None]] | None:
    """The relation that splits the items best, with each item's tail; None where none speaks of enough items."""
    row = {name: place for place, name in enumerate(graph.entities)}
    item_of = {row[name]: item for item, name in enumerate(entities) if name is not None and name in row}
    best: tuple[float, str, list[str | None]] | None = None
    for r, relation in enumerate(graph.relations):
        triples = graph.triples[graph.triples[:, 1] == r]
        frequent = Counter(int(tail) for tail in triples[:, 2])
        values: list[str | None] = [None] * len(entities)
        rank = [0] * len(entities)
        for head, _, tail in triples:
            item = item_of.get(int(head))
            if item is not None and frequent[int(tail)] > rank[item]:
                values[item], rank[item] = graph.entities[int(tail)], frequent[int(tail)]
        groups = _numbered(values)[:-1]
        known = groups[torch.tensor([value is not None for value in values], dtype=torch.bool)]
        if len(known) < _COVERED * max(len(entities), 1) or len(known) == 0:
            continue
        share = torch.bincount(known).float() / len(known)
        entropy = -float((share[share > 0] * share[share > 0].log()).sum())
        if best is None or entropy > best[0]:
            best = (entropy, relation, values)
    return None if best is None or best[0] == 0 else best[1:]


def _near(vectors: Tensor, seed: int) -> Tensor | None:
    """Clusters of item vectors (N, d) -> (N+1,); None where all items are alike."""
    points = np.ascontiguousarray(vectors.detach().cpu().numpy(), dtype=np.float64)
    distinct = len(np.unique(points, axis=0))
    groups = min(MOST_GROUPS, max(2, len(points) // _ITEMS_A_GROUP), distinct)
    if groups < 2:
        return None
    from sklearn.cluster import KMeans  # slow to load

    labels = KMeans(groups, n_init=2, random_state=seed).fit(points).labels_
    return torch.tensor([*labels, groups], dtype=torch.int64)
