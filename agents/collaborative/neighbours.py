"""Item-based nearest neighbours: what was consumed by those who consumed the items of the history."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from recloop.agents.collaborative.history import HistoryPolicy, checked, consumption_matrix, sparse
from recloop.agents.policy import FitOptions
from recloop.agents.settings import with_settings
from recloop.envs.world.world import World

_ROWS = 1 << 24
"""Likenesses worked out at once: items times catalogue."""


@dataclass(frozen=True)
class ItemKNNConfig:
    """Who is a neighbour.

    Args:
        neighbours: of each item, the most like it.
        shrinkage: added to the cosine's denominator, in consumptions: likeness seen in few users counts less.
    """

    neighbours: int = 100
    shrinkage: float = 10.0

    def __post_init__(self) -> None:
        checked(self, ("neighbours",), ("shrinkage",), "item-knn")


class ItemKNNPolicy(HistoryPolicy):
    """Shows the k items most like those of the history, by cosine over the train users, summed (Deshpande and Karypis
    2004).

    s(i, j) = n(i, j) / (sqrt(n(i) n(j)) + shrinkage), with n the train users who consumed an item or both; each item
    of the history adds to its own nearest neighbours. Differences: shrinkage; neighbours' likenesses are not scaled to
    sum to one.

    Args:
        tables: `pairs` int64 (2, M) a neighbour and the item whose neighbour it is, `likeness` float32 (M,), `counts`.
        settings: how they were chosen.
    """

    name = "item-knn"
    kind = "item-knn"
    deterministic: ClassVar[bool] = True
    paper: ClassVar[str] = "Deshpande and Karypis 2004"
    config_class: ClassVar[type[ItemKNNConfig]] = ItemKNNConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Find each item's neighbours; exact."""
        config = with_settings(ItemKNNConfig(), options.settings, cls.name)
        matrix = consumption_matrix(world)
        n = matrix.shape[1]
        root = torch.from_numpy(np.sqrt(np.asarray(matrix.sum(0)).ravel()))
        parts = []
        batch = max(1, _ROWS // n)
        for first in range(0, n, batch):
            both = torch.from_numpy((matrix.T[first : first + batch] @ matrix).toarray())  # (b, N)
            rows = torch.arange(first, first + len(both))
            like = both / (root[rows, None] * root + config.shrinkage).clamp(min=1e-12)
            like[torch.arange(len(rows)), rows] = 0
            best = like.topk(min(config.neighbours, n), dim=1)
            held = best.values > 0
            towards = torch.stack([best.indices[held], rows[:, None].expand_as(held)[held]])
            parts.append((towards, best.values[held]))
        pairs, values = torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts])
        order = (pairs[0] * n + pairs[1]).argsort()
        tables = {"pairs": pairs[:, order], "likeness": values[order]}
        return cls({**tables, "counts": world.catalogue.popularity}, config)

    def _scores(self, items: Tensor) -> Tensor:
        n, pairs = len(self.tables["counts"]), self.tables["pairs"]
        held = torch.zeros(n + 1, len(items), device=items.device).scatter_(0, items.T, 1.0)[:n]  # (N, B)
        found: Tensor = torch.sparse.mm(sparse(pairs, self.tables["likeness"], (n, n)), held).T
        return found
