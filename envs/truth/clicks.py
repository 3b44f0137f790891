"""Clicks and cascade: stable tastes and position bias, with slates looked through at once or from the top down."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response
from recloop.envs.truth.tastes import TasteState, TasteUsers, shares


@dataclass(frozen=True)
class ClickRules:
    """The laws of the world.

    Args:
        examine: a place is looked at with probability `examine ** position`, position from 0.
        leave: probability to leave after a slate with a click.
        leave_empty: probability to leave after a slate without one.
    """

    examine: float = 0.8
    leave: float = 0.02
    leave_empty: float = 0.08

    def __post_init__(self) -> None:
        shares(self, "examine", "leave", "leave_empty")


class ClickUsers(TasteUsers):
    """Users whose tastes never change: the position-based click model (Craswell et al. 2008).

    An item of topic t appeals with a = preference[t] x quality. At position k it is clicked with probability
    examine^k x a, whatever else is in the slate. The user leaves with probability `leave` after a slate with a
    click, `leave_empty` after one without. What is shown changes nobody: showing the most appealing items first is
    optimal.
    """

    kind = "clicks"
    rules_class = ClickRules
    rules: ClickRules

    def expected(self, state: TasteState, past: Past, slate: Tensor) -> Expected:
        """Exact."""
        click = self.utility(state, past, slate) * self.examined(slate.shape[1])
        return Expected(mean=click.unsqueeze(2), leave=self._expected_leaving(click))

    def utility(self, state: TasteState, past: Past | None, items: Tensor) -> Tensor:
        """Appeal."""
        items = items.expand(len(state.preference), -1)
        return self.liking(state.preference, items) * self.trait("quality", items)

    def _answer(self, state: TasteState, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        click = self.drawn("click", self.utility(state, None, slate) * self.examined(slate.shape[1]), slate, draw)
        return click.unsqueeze(2), (slate < self.items).unsqueeze(2)


@dataclass(frozen=True)
class CascadeRules:
    """The laws of the world.

    Args:
        on_after_click: probability to look at the next place after a click.
        on_after_skip: probability to look at the next place after no click; otherwise the slate is abandoned.
        leave: probability to leave after a slate that was not abandoned.
        leave_abandoned: probability to leave after an abandoned slate.
    """

    on_after_click: float = 0.6
    on_after_skip: float = 0.85
    leave: float = 0.02
    leave_abandoned: float = 0.12

    def __post_init__(self) -> None:
        shares(self, "on_after_click", "on_after_skip", "leave", "leave_abandoned")


class CascadeUsers(TasteUsers):
    """Users who read from the top: the dependent click model (Guo et al. 2009), with abandonment.

    The first place is looked at. An item of topic t that is looked at is clicked with probability a = preference[t] x
    quality. After a click the next place is looked at with probability `on_after_click`; after none with
    `on_after_skip`, else the slate is abandoned. Empty places are passed over. The user leaves with probability
    `leave`, or `leave_abandoned` after an abandoned slate. What is shown changes nobody, and the most appealing
    items first are optimal (exchange any two neighbours).
    """

    kind = "cascade"
    rules_class = CascadeRules
    rules: CascadeRules

    def respond(self, state: TasteState, past: Past, slate: Tensor, draw: Draw) -> tuple[TasteState, Response]:
        """See the class."""
        clicks, abandoned = self._scan(state, slate, draw)
        leave = torch.where(abandoned, self.rules.leave_abandoned, self.rules.leave)
        left = draw.uniform("leave") < leave
        return state, Response(signals=clicks.unsqueeze(2), given=(slate < self.items).unsqueeze(2), left=left)

    def expected(self, state: TasteState, past: Past, slate: Tensor) -> Expected:
        """Exact, by recursion over places."""
        rules = self.rules
        appeal, held = self.utility(state, past, slate), slate < self.items
        reached = torch.ones_like(appeal[:, 0])
        abandoned = torch.zeros_like(reached)
        clicks = []
        for k in range(slate.shape[1]):
            click = reached * appeal[:, k]
            skip = reached - click
            clicks.append(click)
            onward = click * rules.on_after_click + skip * rules.on_after_skip
            stays = held[:, k] & (k + 1 < slate.shape[1])  # after the last place there is nothing to abandon
            abandoned = abandoned + torch.where(stays, skip * (1 - rules.on_after_skip), torch.zeros_like(skip))
            reached = torch.where(held[:, k], onward, reached)
        leave = rules.leave + (rules.leave_abandoned - rules.leave) * abandoned
        return Expected(mean=torch.stack(clicks, dim=1).unsqueeze(2), leave=leave)

    def utility(self, state: TasteState, past: Past | None, items: Tensor) -> Tensor:
        """Click probability of an item that is looked at."""
        items = items.expand(len(state.preference), -1)
        return self.liking(state.preference, items) * self.trait("quality", items)

    def _answer(self, state: TasteState, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        return self._scan(state, slate, draw)[0].unsqueeze(2), (slate < self.items).unsqueeze(2)

    def _scan(self, state: TasteState, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Clicks float32 (B, K), and whether the slate was abandoned (B,)."""
        wanted = self.drawn("click", self.utility(state, None, slate), slate, draw) > 0
        go_on, held = draw.uniform("go on", slate), slate < self.items
        reached = torch.ones_like(wanted[:, 0])
        abandoned = torch.zeros_like(reached)
        clicks = []
        for k in range(slate.shape[1]):
            click = reached & wanted[:, k]
            clicks.append(click)
            onward = go_on[:, k] < torch.where(click, self.rules.on_after_click, self.rules.on_after_skip)
            if k + 1 < slate.shape[1]:
                abandoned = abandoned | (reached & held[:, k] & ~click & ~onward)
            reached = reached & (onward | ~held[:, k])
        return torch.stack(clicks, dim=1).to(torch.float32), abandoned
