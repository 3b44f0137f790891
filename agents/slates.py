"""Plackett-Luce slates: draw K of C scored items in order, without repeats, with an exact log-probability.

Drawn by Gumbel top-k (Kool, van Hoof, Welling 2019). Differences: masks; the log-probability is that of the ordered
slate and exact, computed in one pass over the C scores instead of K.
"""

import torch
from torch import Tensor

FORBIDDEN = -1e9
"""Score of a masked place: finite, so that gradients through it are zero instead of NaN."""


def sample(scores: Tensor, mask: Tensor, k: int, gumbel: Tensor | None = None) -> Tensor:
    """Positions (B, k) of a slate: drawn with standard Gumbel noise (B, C), or the k best without.

    Args:
        scores: float32 (B, C) log-weights.
        mask: bool (B, C), which may be drawn. Where fewer than k may, masked positions fill the end of the slate.
        k: length of the slate, at most C.
        gumbel: noise, or None for the most likely slate.
    """
    noisy = scores if gumbel is None else scores + gumbel
    return noisy.masked_fill(~mask, FORBIDDEN).topk(k, dim=1).indices


def log_prob(scores: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Log-probability (B,) of drawing the positions (B, K) in this order; -inf-like where one repeats.

    Masked positions that fill the end of a slate count nothing.
    """
    scores = scores.masked_fill(~mask, FORBIDDEN)
    picked = scores.gather(1, positions)  # (B, K)
    rest = scores.scatter(1, positions, FORBIDDEN).logsumexp(1, keepdim=True)  # (B, 1), what is never picked
    after = torch.cat([rest, picked.flip(1)], dim=1).logcumsumexp(1)[:, 1:].flip(1)  # (B, K), left before each pick
    counted = mask.gather(1, positions)
    return ((picked - after) * counted).sum(1)


def first_pick_entropy(scores: Tensor, mask: Tensor) -> Tensor:
    """Entropy (B,) in nats of the first item of the slate: a softmax over the admissible scores."""
    logits = torch.log_softmax(scores.masked_fill(~mask, FORBIDDEN), dim=1)
    return -(logits.exp() * logits * mask).sum(1)
