"""How well the next item of held-out users is predicted."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.state.batches import Batch, Ints, Log, NextItemConfig
from recloop.encoders.state.next_item import NextItemModel


class NextItemValidation:
    """The newest items of held-out users, each predicted from all before it."""

    def __init__(self, log: Log, users: Ints, fitting: NextItemConfig, device: torch.device) -> None:
        self.repeats = any(
            len(np.unique(log.items[a:b])) < b - a for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True)
        )
        self.batches = []
        size = fitting.batch_users * 2
        for first in range(0, len(users), size):
            chosen = users[first : first + size]
            starts = np.maximum(log.offsets[chosen + 1] - log.offsets[chosen] - 2 * fitting.window, 0)
            self.batches.append(log.batch(chosen, starts, 2 * fitting.window, 1, fitting.validation_places, device))

    @torch.no_grad()
    def loss(self, model: NextItemModel) -> float:
        """Mean negative log-likelihood over the whole catalogue."""
        results = [model.loss(batch) for batch in self.batches]
        return sum(float(loss) for loss, _ in results) / sum(count for _, count in results)

    @torch.no_grad()
    def figures(self, model: NextItemModel) -> tuple[float, float, float]:
        """Recall@10, NDCG@10, and the Recall@10 of popularity."""
        table = model.out_items()
        sums, total = np.zeros(3), 0
        for batch in self.batches:
            inputs = F.embedding(batch.items, table)
            vectors = model.vectors(batch, inputs, None)
            where = batch.asked[..., 0].nonzero()  # (P, 2)
            scores = vectors[where[:, 0], where[:, 1]] @ table.T + model.popularity  # (P, N)
            popular = model.sampling.expand_as(scores).clone()
            if not self.repeats:
                seen = _seen_before(batch, where, scores.shape[1])
                scores, popular = scores.masked_fill(seen, -math.inf), popular.masked_fill(seen, -math.inf)
            target = batch.items[where[:, 0], where[:, 1], 0]
            rank, popular_rank = _rank(scores, target), _rank(popular, target)
            hit = rank < 10
            sums += [
                float(hit.sum()),
                float((hit / torch.log2(rank.float() + 2)).sum()),
                float((popular_rank < 10).sum()),
            ]
            total += len(where)
        recall, ndcg, popular_recall = (sums / total).tolist()
        return recall, ndcg, popular_recall


def _seen_before(batch: Batch, where: Tensor, n: int) -> Tensor:
    """What each asked place's user consumed before it: bool (P, N)."""
    items = batch.items[where[:, 0], :, 0]  # (P, T)
    before = torch.arange(items.shape[1], device=items.device) < where[:, 1:]
    seen = torch.zeros(len(where), n + 1, dtype=torch.bool, device=items.device)
    return seen.scatter_(1, torch.where(before, items, n), True)[:, :n]


def _rank(scores: Tensor, target: Tensor) -> Tensor:
    """How many items come before the target, ties by row: scores (P, N), target (P,) -> (P,)."""
    own = scores.gather(1, target[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device) < target[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)
