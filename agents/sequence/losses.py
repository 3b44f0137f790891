"""What a sequence model is trained by: from its vectors at some places and the items that came there."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.sequence.model import SequenceModel
from recloop.encoders.base.errors import PolicyError

PlaceLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Vectors (P, d), targets int64 (P,) and the item table (N+1, d) -> the mean loss of a place."""


def place_loss(model: SequenceModel, counts: Tensor, draws: torch.Generator, half: bool) -> PlaceLoss:
    """The loss that the model's config names.

    Args:
        model: gives config and bias.
        counts: float32 (N,) how often each item is consumed, for the odds of being a negative.
        draws: of negatives.
        half: scores of the whole softmax are bfloat16: faster by far where the processor multiplies such numbers.
    """
    config, n = model.config, model.catalogue_size
    if config.loss != "softmax" and n < 2:
        raise PolicyError(f"loss={config.loss} needs negatives, and the catalogue holds {n} item; take loss=softmax")
    odds = (counts + 1).sqrt()
    odds = odds / odds.sum()

    def softmax(hidden: Tensor, target: Tensor, table: Tensor) -> Tensor:
        """Cross-entropy over the catalogue."""
        if not half:
            return F.cross_entropy(model.logits(hidden, table), target)
        scores = hidden.bfloat16() @ table[:-1].bfloat16().T + model.bias.bfloat16()
        return F.cross_entropy(scores, target).float()

    def sampled(hidden: Tensor, target: Tensor, table: Tensor) -> Tensor:
        """Softmax over the target and M shared negatives, each weighted by 1 / (M q): Bengio and Senecal (2008).

        The target itself is not corrected: it is there for certain. A negative that is the target counts nothing.
        """
        drawn = torch.multinomial(odds, config.negatives, replacement=True, generator=draws)
        own = _own(hidden, target, table, model.bias)
        others = _scores(hidden, drawn, table, model.bias) - torch.log(config.negatives * odds[drawn])
        others = others.masked_fill(drawn == target.unsqueeze(1), -math.inf)
        return (torch.logsumexp(torch.cat([own.unsqueeze(1), others], dim=1), dim=1) - own).mean()

    def bce(hidden: Tensor, target: Tensor, table: Tensor) -> Tensor:
        """Binary cross-entropy with one uniform negative a place, as in SASRec (Kang and McAuley 2018)."""
        drawn = torch.randint(n - 1, target.shape, generator=draws, device=target.device)
        drawn = drawn + (drawn >= target)
        ours, theirs = (_own(hidden, rows, table, model.bias) for rows in (target, drawn))
        return (F.softplus(-ours) + F.softplus(theirs)).mean()

    def gbce(hidden: Tensor, target: Tensor, table: Tensor) -> Tensor:
        """gBCE (Petrov and Macdonald 2023); negatives are shared by the batch."""
        most = min(config.negatives, n - 1)
        drawn = torch.randint(n, (most,), generator=draws, device=target.device)
        alpha, t = most / (n - 1), config.calibration
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        others = F.softplus(_scores(hidden, drawn, table, model.bias)) * (drawn != target.unsqueeze(1))
        return (beta * F.softplus(-_own(hidden, target, table, model.bias)) + others.sum(1)).mean() / (most + 1)

    return {"softmax": softmax, "sampled": sampled, "bce": bce, "gbce": gbce}[config.loss]


def _own(hidden: Tensor, rows: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """The score of one item a place: (P, d), rows (P,) -> (P,)."""
    return (hidden * F.embedding(rows, table)).sum(1) + bias[rows]


def _scores(hidden: Tensor, rows: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """The scores of the same items at all places: (P, d), rows (M,) -> (P, M)."""
    return hidden @ F.embedding(rows, table).T + bias[rows]


def masked_places(items: Tensor, empty: int, share: float, draws: torch.Generator) -> Tensor:
    """Which places of (B, T) `bert4rec` masks: a share of the items, and in every tenth sequence the last one alone.

    As in BERT4Rec (Sun et al. 2019), whose fine-tuning on the last item is mixed in; a sequence has one at least.
    """
    held = items != empty
    last = held.sum(1, keepdim=True) - 1 == torch.arange(items.shape[1], device=items.device)
    chosen = (torch.rand(items.shape, generator=draws, device=items.device) < share) & held
    alone = torch.rand((len(items), 1), generator=draws, device=items.device) < 0.1
    return torch.where(alone | ~chosen.any(1, keepdim=True), last, chosen)
