"""Drift: tastes move towards what is consumed, and away from what is neglected."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past
from recloop.envs.truth.tastes import CLICK, LIKE, TasteState, TasteUsers, shares


@dataclass(frozen=True)
class DriftRules:
    """The laws of the world.

    Args:
        examine: a place is looked at with probability `examine ** position`, position from 0.
        grow: share of the way to 1 that the taste for a topic goes for each of its items consumed in a slate.
        wither: share of a taste that is lost with a slate of whose topic nothing was consumed, where something was.
        keen: the like's probability is quality x preference ** keen.
        leave: probability to leave after a slate with a click.
        leave_empty: probability to leave after a slate without one.
    """

    examine: float = 0.85
    grow: float = 0.1
    wither: float = 0.04
    keen: float = 0.5
    leave: float = 0.02
    leave_empty: float = 0.08

    def __post_init__(self) -> None:
        shares(self, "examine", "grow", "wither", "leave", "leave_empty")


class DriftUsers(TasteUsers):
    """Users who become what they consume.

    An item of topic t appeals with a = preference[t] x quality; at position k it is clicked with probability
    examine^k x a, and a clicked one is liked with probability quality x preference[t]^keen. After a slate with
    clicks, a topic with c clicked items goes to 1 - (1 - preference[t]) x (1 - grow)^c, and a topic with none loses
    the share `wither`; a slate without clicks moves nothing. The move lasts for the episode, days away included;
    arrivals have their own tastes anew. The user leaves with probability `leave` after a click, `leave_empty`
    after none.
    """

    kind = "drift"
    rules_class = DriftRules
    rules: DriftRules
    signals = (CLICK, LIKE)

    def observe(self, state: TasteState, slate: Tensor, signals: Tensor) -> TasteState:
        """See the class."""
        clicks = self.per_topic(signals[..., 0], slate)  # (B, T)
        grown = 1 - (1 - state.preference) * (1 - self.rules.grow) ** clicks
        moved = torch.where(clicks > 0, grown, state.preference * (1 - self.rules.wither))
        return TasteState(torch.where(clicks.sum(1, keepdim=True) > 0, moved, state.preference))

    def expected(self, state: TasteState, past: Past, slate: Tensor) -> Expected:
        """Exact."""
        click = self.utility(state, past, slate) * self.examined(slate.shape[1])
        mean = torch.stack([click, self._liked(state, slate)], dim=2)
        return Expected(mean=mean, leave=self._expected_leaving(click))

    def utility(self, state: TasteState, past: Past | None, items: Tensor) -> Tensor:
        """Appeal."""
        items = items.expand(len(state.preference), -1)
        return self.liking(state.preference, items) * self.trait("quality", items)

    def promise(self, state: TasteState, items: Tensor) -> Tensor:
        """The expected growth of the taste for the item's topic."""
        return self.utility(state, None, items) * (1 - self.liking(state.preference, items))

    def _liked(self, state: TasteState, slate: Tensor) -> Tensor:
        return self.trait("quality", slate) * self.liking(state.preference, slate) ** self.rules.keen

    def _answer(self, state: TasteState, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        click = self.drawn("click", self.utility(state, None, slate) * self.examined(slate.shape[1]), slate, draw)
        like = self.drawn("like", self._liked(state, slate), slate, draw) * click
        return torch.stack([click, like], dim=2), torch.stack([slate < self.items, click > 0], dim=2)
