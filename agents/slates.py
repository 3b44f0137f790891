"""Slates from scores: the best k, or k drawn in order without repeats, and the exact log-probability of a slate.

Plackett-Luce by Gumbel top-k (Kool, van Hoof, Welling 2019): the k largest of score + Gumbel noise are draws without
replacement from the softmax of the scores. Differences: masks; the log-probability is that of the ordered slate and
exact, computed in one pass over the scores instead of k.

`sample`, `pick_log_probs`, `log_prob` and `first_pick_entropy` speak of positions among C scores and are what a
training loop calls. `best_slate`, `sample_slate` and `slate_log_prob` speak of item rows of the whole catalogue (B, N):
they never show a masked item, leave the empty place N where fewer than k items are left, and break ties by row.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.retrieval import best_of

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


def explored_places(best: Tensor, mask: Tensor, epsilon: Tensor | float, draw: Draw) -> Tensor:
    """Positions (B, K) of a slate with some places given to others among the C that `mask` (B, C) admits.

    With chance epsilon a place goes to one drawn uniformly; it stays as it is where that falls on another of the slate.
    """
    k = best.shape[1]
    everywhere = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    drawn = sample(torch.zeros_like(mask, dtype=torch.float32), mask, k, draw.gumbel("any", everywhere))
    explores = draw.uniform("explore", everywhere[:, :k]) < epsilon
    new = ~(drawn.unsqueeze(2) == best.unsqueeze(1)).any(2) & mask.gather(1, drawn)
    return torch.where(explores & new, drawn, best)


def pick_log_probs(scores: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Log-probability (B, K) of each of the positions as the pick after those above it; they must be distinct.

    0 for masked positions, which fill the end of a slate.
    """
    scores = scores.masked_fill(~mask, FORBIDDEN)
    picked = scores.gather(1, positions)  # (B, K)
    rest = scores.scatter(1, positions, FORBIDDEN).logsumexp(1, keepdim=True)  # (B, 1), what is never picked
    left = torch.cat([rest, picked.flip(1)], dim=1).logcumsumexp(1)[:, 1:].flip(1)  # (B, K), before each pick
    return (picked - left) * mask.gather(1, positions)


def log_prob(scores: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Log-probability (B,) of drawing the positions (B, K) in this order; see `pick_log_probs`."""
    return pick_log_probs(scores, mask, positions).sum(1)


def first_pick_entropy(scores: Tensor, mask: Tensor) -> Tensor:
    """Entropy (B,) in nats of the first item of the slate: a softmax over the admissible scores."""
    logits = torch.log_softmax(scores.masked_fill(~mask, FORBIDDEN), dim=1)
    return -(logits.exp() * logits * mask).sum(1)


def action_mask(observation: Observation, catalogue_size: int) -> Tensor:
    """Which items may be shown, bool (B, N): the observation's `action_mask`, or all where it has none."""
    if "action_mask" in observation:
        return observation["action_mask"].bool()
    history = observation["history"]
    return torch.ones(len(history), catalogue_size, dtype=torch.bool, device=history.device)


def best_slate(scores: Tensor, mask: Tensor, k: int) -> Tensor:
    """The k highest scores among the admissible, best first, equal scores by row: (B, N) -> int64 (B, k).

    >>> best_slate(torch.tensor([[1.0, 3.0, 3.0, 9.0]]), torch.tensor([[True, True, True, False]]), 4).tolist()
    [[1, 2, 0, 4]]
    """
    n = scores.shape[1]
    if k < 1:
        raise PolicyError(f"k={k} items a slate; choose 1 to {n}")
    slate = best_of(scores, min(k, n), mask).rows
    return F.pad(slate, (0, max(k - n, 0)), value=n)


def sample_slate(scores: Tensor, mask: Tensor, k: int, draw: Draw, purpose: str = "slate") -> Tensor:
    """k items drawn one after the other from the softmax of the scores, without repeats: (B, N) -> int64 (B, k)."""
    items = torch.arange(scores.shape[1], device=scores.device).unsqueeze(0)
    return best_slate(scores + draw.gumbel(purpose, items), mask, k)


def slate_log_prob(scores: Tensor, mask: Tensor, slate: Tensor) -> Tensor:
    """Log-probability (B,) that `sample_slate` gives exactly these slates (B, k) in this order; differentiable.

    -inf for a slate that it never gives: an item twice, a masked one, a place left empty that could be filled.
    """
    n = scores.shape[1]
    shown = slate < n
    picked = F.one_hot(slate, n + 1).sum(1)[:, :n]  # (B, N), how often each item is shown
    never = (picked > 1).any(1) | ((picked > 0) & ~mask).any(1)
    never = never | (shown.sum(1) < mask.sum(1).clamp(max=slate.shape[1])) | (shown[:, 1:] & ~shown[:, :-1]).any(1)
    exact = log_prob(F.pad(scores, (0, 1)), F.pad(mask, (0, 1)), slate)  # the empty place is a masked item
    return exact.masked_fill(never, -torch.inf)
