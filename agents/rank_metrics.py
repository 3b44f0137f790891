"""How good ranked lists are: precision, recall, NDCG and the like, as functions of tensors.

A list is `shown` (B, K) item rows, best first, N where it ends early; `hits` (B, K) says which places hold what the
user really took, `relevant` (B,) how many items that is. The rank of an item is its place, from 1. Every figure is one
number a user, float64 (B,), but for coverage and Gini, which belong to all lists together.

Sources: Manning, Raghavan and Schütze 2008, ch. 8 (precision, recall, F1, MAP); Järvelin and Kekäläinen 2002 (NDCG);
Voorhees 1999 (MRR); Vargas and Castells 2011 (novelty); Shani and Gunawardana 2011 (coverage, Gini).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.slates import best_slate
from recloop.encoders.base.errors import PolicyError

Metric = Callable[[Tensor, Tensor, int], Tensor]
"""(hits (B, K), relevant (B,), k) -> (B,), for k up to K."""


def ranked(scores: Tensor, mask: Tensor, k: int, keys: Tensor | None = None) -> Tensor:
    """The list of the k best admissible items: scores (B, N), mask bool (B, N) -> int64 (B, k), N behind the last.

    Args:
        keys: (B, N) who goes first among equal scores, smaller first; None goes by row, as policies show them.

    >>> ranked(torch.zeros(1, 3), torch.tensor([[True, True, True]]), 3, torch.tensor([[0.5, 0.9, 0.1]])).tolist()
    [[2, 0, 1]]
    """
    if bool(torch.isnan(scores).any()):
        raise PolicyError("scores hold NaN, which has no rank; look for NaN in what the policy was fitted on")
    if keys is None:
        return best_slate(scores, mask, k)
    order = keys.argsort(dim=1)
    places = best_slate(scores.gather(1, order), mask.gather(1, order), k)
    return F.pad(order, (0, 1), value=scores.shape[1]).gather(1, places)


def hits_of(shown: Tensor, targets: Tensor, catalogue_size: int) -> Tensor:
    """Which places (B, K) hold a target (B, T); rows of N are empty places and never hit."""
    wanted = torch.zeros(len(shown), catalogue_size + 1, dtype=torch.bool, device=shown.device)
    wanted.scatter_(1, targets, True)
    wanted[:, catalogue_size] = False
    return wanted.gather(1, shown)


def precision(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    """hits among the first k / k."""
    return hits[:, :k].double().sum(1) / k


def recall(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    """hits among the first k / relevant items."""
    return hits[:, :k].double().sum(1) / relevant


def f1(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    """2 precision recall / (precision + recall), which is 2 hits / (k + relevant)."""
    return 2 * hits[:, :k].double().sum(1) / (k + relevant)


def hit_rate(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    """1 where a hit is among the first k; with one relevant item, the accuracy of a list of k."""
    return hits[:, :k].any(1).double()


def ndcg(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Sum over hits among the first k of 1 / log2(1 + rank), over what the best list of k would have."""
    gains = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64, device=hits.device))  # (k,)
    best = gains.cumsum(0)[relevant.clamp(1, k) - 1]
    return (hits[:, :k] * gains[: hits[:, :k].shape[1]]).sum(1) / best


def mrr(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    """1 / rank of the first hit, 0 where the first k have none."""
    first = hits[:, :k].double() / torch.arange(1, hits[:, :k].shape[1] + 1, device=hits.device)
    return first.amax(1)


def average_precision(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Sum over hits among the first k of the precision at their rank, over min(relevant, k); its mean is MAP."""
    found = hits[:, :k].double()
    at_rank = found.cumsum(1) / torch.arange(1, found.shape[1] + 1, device=hits.device)
    return (at_rank * found).sum(1) / relevant.clamp(max=k)


METRICS: dict[str, Metric] = {
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "mrr": mrr,
    "map": average_precision,
}
"""By the name of their column, in the order of tables."""


def novelty(shown: Tensor, shares: Tensor) -> Tensor:
    """Mean over a list (B, K) of -log2 of the share of users who know the item, in bits, (B,); 0 for an empty list.

    Args:
        shares: float (N,) in (0, 1].
    """
    bits = F.pad(-torch.log2(shares.double()), (0, 1))[shown]
    return bits.sum(1) / (shown < len(shares)).sum(1).clamp(min=1)


def coverage(shown: Tensor, choice: Tensor) -> float:
    """Share of what there is to choose from, bool (N,), that stands in any of the lists (B, K)."""
    return float((_times_shown(shown, choice) > 0).double().mean())


def gini(shown: Tensor, choice: Tensor) -> float:
    """Gini index of how often each item of the choice, bool (N,), is shown.

    0 where all are shown alike, near 1 where few items are all that is shown.
    """
    return gini_of(_times_shown(shown, choice))


def gini_of(counts: Tensor) -> float:
    """Gini index of counts (N,); 0 where there are none."""
    counts = counts.double().sort().values
    n, total = len(counts), float(counts.sum())
    if total == 0:
        return 0.0
    weights = 2 * torch.arange(1, n + 1, dtype=torch.float64) - n - 1
    return float((weights * counts).sum()) / (n * total)


def _times_shown(shown: Tensor, choice: Tensor) -> Tensor:
    return torch.bincount(shown.flatten(), minlength=len(choice) + 1)[:-1][choice]
