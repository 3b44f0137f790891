"""How well scores rank the next item a user really consumed: leave-one-out over the whole catalogue."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recloop.agents.rank_metrics import mrr, ndcg, ranked, recall
from recloop.encoders.base.errors import PolicyError
from recloop.envs.logs.sequences import Ints, Sequences, rows_of

Scorer = Callable[[Tensor], Tensor]
"""Histories int64 (B, H), newest last, N empty -> scores float32 (B, N)."""


@dataclass(frozen=True)
class NextItemFigures:
    """How well the next item was ranked.

    Args:
        users: how many users it was measured on.
        k: length of the list.
        recall: Recall@k, the share of users whose next item is among the k best.
        ndcg: NDCG@k, 1 / log2(1 + rank) where the rank is at most k, else 0, averaged over users.
        reciprocal_rank: 1 / rank averaged over users, without a cut.
    """

    users: int
    k: int
    recall: float
    ndcg: float
    reciprocal_rank: float


@torch.no_grad()
def evaluate_next_item(
    score: Scorer, sequences: Sequences, users: Ints | None = None, *, k: int = 10, length: int = 200, batch: int = 256
) -> NextItemFigures:
    """Rank each user's last item among the whole catalogue, from the consumption before it.

    Items the user consumed before are left out, all of them and not only the newest `length`; the last item itself
    stays in even where it is a repeat. Equal scores count by row number, as policies show them.

    Args:
        score: what to measure.
        sequences: the users' consumption.
        users: whom to measure on, (U,); default everyone with two items or more. Shorter users are left out.
        k: length of the list.
        length: how many of the newest items `score` sees.
        batch: users scored at once.
    """
    users = np.arange(sequences.users) if users is None else users
    users = users[sequences.lengths[users] >= 2]
    if not len(users):
        raise PolicyError("no user has two items; the next item can be ranked for users with two or more")
    found, n = [], sequences.catalogue_size
    for chunk in np.array_split(users, -(-len(users) // batch)):
        ends = sequences.lengths[chunk] - 1
        history, _ = sequences.last(chunk, length, ends)
        target = torch.from_numpy(sequences.items[sequences.offsets[chunk] + ends])
        mask = ~_consumed(sequences, chunk)
        mask[torch.arange(len(chunk)), target] = True
        hits = ranked(score(history), mask, n) == target.unsqueeze(1)  # (B, N), one a row
        one = torch.ones(len(chunk), dtype=torch.int64)
        found.append(torch.stack([recall(hits, one, k), ndcg(hits, one, k), mrr(hits, one, n)]))
    figures = torch.cat(found, dim=1).mean(1).tolist()
    return NextItemFigures(len(users), k, recall=figures[0], ndcg=figures[1], reciprocal_rank=figures[2])


def without_last(sequences: Sequences, users: Ints | None = None) -> Sequences:
    """The sequences less the last item of the given users (default: of all), to train on; slates are left out."""
    shorter = sequences.lengths.copy()
    chosen = np.arange(sequences.users) if users is None else users
    shorter[chosen] = np.maximum(shorter[chosen] - 1, 0)
    places = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    keep = places < np.repeat(shorter, sequences.lengths)
    return replace(
        sequences,
        offsets=np.concatenate([[0], np.cumsum(shorter)]).astype(np.int64),
        items=sequences.items[keep],
        feedback=sequences.feedback[keep],
        given=sequences.given[keep],
        slates=None,
        times=None if sequences.times is None else sequences.times[keep],
    )


def _consumed(sequences: Sequences, users: Ints) -> Tensor:
    """bool (B, N): everything the users ever consumed, the last item included."""
    seen = torch.zeros(len(users), sequences.catalogue_size, dtype=torch.bool)
    lanes = np.repeat(np.arange(len(users)), sequences.lengths[users])
    seen[torch.from_numpy(lanes), torch.from_numpy(sequences.items[rows_of(sequences.offsets, users)])] = True
    return seen
