"""Greedy with a difference: one that explores, and one that avoids showing the same thing k times."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.baselines.greedy import SHORTLIST, GreedyPolicy
from recloop.agents.serving import Serving
from recloop.agents.slates import best_slate, sample_slate
from recloop.envs.interaction.randomness import Draw

_LOWEST = -1e9
"""Worth of what may not be taken (again)."""


class ExploringGreedyPolicy(GreedyPolicy):
    """Greedy, but each place shows a random admissible item with probability `epsilon` instead.

    The random items are drawn without repeats from those that greedy does not show.

    Args:
        serving: with a user model in it.
    """

    name = "exploring-greedy"
    kind = "exploring-greedy"
    deterministic: ClassVar[bool] = False
    ranks = False
    epsilon: ClassVar[float] = 0.3

    def _choose(self, shortlist: Tensor, rewards: Tensor, mask: Tensor, k: int, draw: Draw) -> Tensor:
        greedy = super()._choose(shortlist, rewards, mask, k, draw)
        others = F.pad(mask, (0, 1)).scatter(1, greedy, False)[:, :-1]  # (B, N)
        instead = sample_slate(torch.zeros(others.shape, device=others.device), others, k, draw, "explored items")
        places = torch.arange(k, device=greedy.device).expand(len(greedy), -1)
        explores = draw.uniform("explored places", places) < self.epsilon
        return torch.where(explores & (instead < self.serving.catalogue_size), instead, greedy)


class DiversifiedGreedyPolicy(GreedyPolicy):
    """Greedy on reward minus likeness to what the slate shows already: maximal marginal relevance.

    Carbonell and Goldstein 1998 on the shortlist of greedy: each place takes the item with the highest
    (1 - `likeness`) x reward - `likeness` x highest cosine to the items above it. Differences: rewards are scaled to
    [0, 1] over each user's shortlist, so that the two parts weigh alike in every world.

    Args:
        serving: with a user model and item vectors in it.
    """

    name = "diversified-greedy"
    kind = "diversified-greedy"
    paper: ClassVar[str] = "Carbonell and Goldstein 1998"
    likeness: ClassVar[float] = 0.4

    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.vectors = F.normalize(serving.world.item_vectors.detach(), dim=1)  # (N+1, d)

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """User model and vectors lie in the serving folder."""
        return cls(serving)

    def _closer_look(self, k: int) -> int:
        """Wide, so that unlike items are among them."""
        return max(SHORTLIST, k)

    def _choose(self, shortlist: Tensor, rewards: Tensor, mask: Tensor, k: int, draw: Draw) -> Tensor:
        n = self.serving.catalogue_size
        held = shortlist < n  # (B, C)
        best = rewards.masked_fill(~held, -torch.inf).amax(1, keepdim=True)
        worst = rewards.masked_fill(~held, torch.inf).amin(1, keepdim=True)
        worth = (1 - self.likeness) * (rewards - worst) / (best - worst).clamp_min(1e-9)
        vectors = self.vectors.to(shortlist.device)[shortlist]  # (B, C, d)
        like = torch.full_like(worth, -1.0)
        free, places = held, []
        for _ in range(k):
            marginal = (worth - self.likeness * like).nan_to_num(_LOWEST)
            place = best_slate(marginal, free, 1)  # (B, 1); C where nothing is left
            places.append(place)
            picked = place.clamp(max=shortlist.shape[1] - 1)
            chosen = vectors.gather(1, picked.unsqueeze(2).expand(-1, -1, vectors.shape[2]))  # (B, 1, d)
            like = torch.maximum(like, (vectors * chosen).sum(2))
            free = free.scatter(1, picked, False)
        return F.pad(shortlist, (0, 1), value=n).gather(1, torch.cat(places, dim=1))
