"""From what each member of a group likes to what the group is shown: strategies of aggregation, and of voting.

s_j(i) in [0, 1] is how much member j likes item i, x_j how many items they have taken in this episode.

| name | an item's score | whose idea |
|---|---|---|
| `average` | mean over j of s_j | "average" (utilitarian) in Masthoff 2011 |
| `least-misery` | min over j of s_j | Masthoff 2011; O'Connor et al. 2001 |
| `most-pleasure` | max over j of s_j | Masthoff 2011 |
| `borda` | sum over j of how many items j likes less, ties counting half | de Borda 1781 |
| `approval` | how many members have it among the `APPROVED` x k items they like most | Brams and Fishburn 1978 |
| `fair` | sum over j of s_j w_j, with w_j proportional to 1 / (1 + x_j) | Kelly 1997; see the reward `fair` |

Ties of `least-misery`, `most-pleasure` and `approval` go by the average. Differences from Masthoff 2011: likings are a
recommender's scores and not ratings, each member's put between 0 and 1 over the items that may be shown, unless they
are chances, which can be compared as they are; and a slate holds the k best items, each judged for itself.

Masthoff, "Group recommender systems: combining individual models", Recommender Systems Handbook, 2011.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.encoders.base.errors import PolicyError, unknown_name

APPROVED = 2
"""A member approves of so many times k items."""
_TIE = 1e-3
"""Weight of the average where an aggregator leaves ties."""


@dataclass(frozen=True)
class Ballot:
    """What the members of B groups say of N items.

    Args:
        liking: float32 (B, g, N) in [0, 1].
        mask: bool (B, N) which items may be shown.
        got: float32 (B, g) items that each member has taken in this episode.
        k: places to fill.
    """

    liking: Tensor
    mask: Tensor
    got: Tensor
    k: int


def average(ballot: Ballot) -> Tensor:
    """See the module; (B, N)."""
    return ballot.liking.mean(1)


def least_misery(ballot: Ballot) -> Tensor:
    """See the module; (B, N)."""
    return ballot.liking.amin(1) + _TIE * average(ballot)


def most_pleasure(ballot: Ballot) -> Tensor:
    """See the module; (B, N)."""
    return ballot.liking.amax(1) + _TIE * average(ballot)


def borda(ballot: Ballot) -> Tensor:
    """See the module; (B, N)."""
    below = ballot.liking.masked_fill(~ballot.mask.unsqueeze(1), -torch.inf)
    ranked = below.sort(dim=2).values
    less = torch.searchsorted(ranked, below.contiguous())
    upto = torch.searchsorted(ranked, below.contiguous(), right=True)  # itself included
    return ((less + upto - 1) / 2).sum(1)


def approval(ballot: Ballot) -> Tensor:
    """See the module; (B, N)."""
    known = ballot.liking.masked_fill(~ballot.mask.unsqueeze(1), -torch.inf)
    best = known.topk(min(APPROVED * ballot.k, known.shape[2]), dim=2).indices
    return torch.zeros_like(known).scatter(2, best, 1.0).sum(1) + _TIE * average(ballot)


def fair(ballot: Ballot) -> Tensor:
    """See the module; (B, N)."""
    return (ballot.liking * fair_weights(ballot.got).unsqueeze(2)).sum(1)


def fair_weights(got: Tensor) -> Tensor:
    """How much each member counts who has taken so many items: (B, g) -> (B, g), summing to 1.

    >>> fair_weights(torch.tensor([[0.0, 3.0]]))
    tensor([[0.8000, 0.2000]])
    """
    weight = 1 / (1 + got)
    return weight / weight.sum(1, keepdim=True)


AGGREGATORS: dict[str, Callable[[Ballot], Tensor]] = {
    "average": average,
    "least-misery": least_misery,
    "most-pleasure": most_pleasure,
    "borda": borda,
    "approval": approval,
    "fair": fair,
}
"""Name -> how good each item is for a group."""


def aggregator(name: str) -> Callable[[Ballot], Tensor]:
    """One of `AGGREGATORS`; `PolicyError` suggests the nearest of an unknown name."""
    if name not in AGGREGATORS:
        raise PolicyError(unknown_name("aggregator", name, AGGREGATORS))
    return AGGREGATORS[name]


def between_0_and_1(scores: Tensor, mask: Tensor) -> Tensor:
    """Each member's scores (B, g, N) stretched over [0, 1] by the items that may be shown, (B, N); 0.5 where all are
    alike."""
    shown = mask.unsqueeze(1)
    low = scores.masked_fill(~shown, torch.inf).amin(2, keepdim=True)
    high = scores.masked_fill(~shown, -torch.inf).amax(2, keepdim=True)
    span = high - low
    known = ((scores - low) / span.clamp_min(1e-12)).clamp(0, 1)
    return torch.where(span > 0, known, 0.5)
