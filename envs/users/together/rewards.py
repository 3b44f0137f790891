"""What a slate is worth to a group: the items that each member takes of it, put together in four ways.

u_j is how many items of the slate member j takes, x_j how many they had taken in the episode before it.

| name | a slate is worth | whose idea |
|---|---|---|
| `mean` | mean over j of u_j | "average" in Masthoff 2011 |
| `least-misery` | min over j of u_j | "least misery" in Masthoff 2011; O'Connor et al. 2001 |
| `most-pleasure` | max over j of u_j | "most pleasure" in Masthoff 2011 |
| `fair` | mean over j of log(1 + x_j + u_j) - log(1 + x_j) | Nash 1950; Kaneko and Nakamura 1979 |

`fair` is fairness over time: one more item counts log((2 + x) / (1 + x)) to a member who has got x of them, 0.69 to one
who has got nothing and 0.17 to one who has got five, so that whoever lost before counts more. Rewards of an episode add
up to the mean over members of log(1 + items taken), Nash's welfare with one item granted to everybody, whose weights
1 / (1 + x) are those of proportional fairness (Kelly 1997). Differences from Masthoff: a member's pleasure is what they
took, not a rating.

Masthoff, "Group recommender systems: combining individual models", Recommender Systems Handbook, 2011.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.reward import Outcome
from recloop.envs.interaction.reward_terms import CodedReward
from recloop.envs.users.together.members import group_size, taken


def mean(outcome: Outcome) -> Tensor:
    """Items taken of the slate, mean over members, (B,)."""
    return items_taken(outcome).mean(1)


def least_misery(outcome: Outcome) -> Tensor:
    """Items that the member takes who takes least, (B,)."""
    return items_taken(outcome).amin(1)


def most_pleasure(outcome: Outcome) -> Tensor:
    """Items that the member takes who takes most, (B,)."""
    return items_taken(outcome).amax(1)


def fair(outcome: Outcome) -> Tensor:
    """What the slate adds to the mean over members of log(1 + items taken in the episode), (B,).

    Where nobody counted what was taken before, as for a slate that is only thought of, nothing was.
    """
    took, before = items_taken(outcome), getattr(outcome.response, "before", None)
    before = torch.zeros_like(took) if before is None else before
    return welfare(before + took) - welfare(before)


def welfare(got: Tensor) -> Tensor:
    """Mean over members of log(1 + items taken): (..., g) -> (...)."""
    return torch.log1p(got).mean(-1)


def items_taken(outcome: Outcome) -> Tensor:
    """How many items of the slate each member takes, (B, g)."""
    response = outcome.response
    return taken(response.signals * response.given, group_size(outcome.signals)).sum(2)


REWARDS: dict[str, Callable[[Outcome], Tensor]] = {
    "mean": mean,
    "least-misery": least_misery,
    "most-pleasure": most_pleasure,
    "fair": fair,
}
"""Name -> what a slate is worth to a group."""


def group_reward(name: str) -> CodedReward:
    """A reward of `REWARDS`, as a world keeps it; `RecloopError` suggests the nearest of an unknown name."""
    if name not in REWARDS:
        raise RecloopError(unknown_name("reward of a group", name, REWARDS))
    function = REWARDS[name]
    return CodedReward(f"{function.__module__}:{function.__name__}", function)
