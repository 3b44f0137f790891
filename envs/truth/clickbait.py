"""Clickbait: what tempts erodes, what is good builds a satisfaction that governs clicks and leaving."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, State
from recloop.envs.truth.tastes import CLICK, LIKE, TasteUsers, shares


@dataclass(frozen=True)
class ClickbaitRules:
    """The laws of the world.

    Args:
        examine: a place is looked at with probability `examine ** position`, position from 0.
        plain: attraction of an item without any bait; full bait attracts 1.
        start: satisfaction on arrival, in [0, 1].
        move: how far one consumed item of full goodness lifts satisfaction (and one of none sinks it).
        floor: what is left of the click probability at satisfaction 0.
        leave: probability to leave after a slate at satisfaction 1.
        leave_sour: added to `leave` times (1 - satisfaction) squared.
        recover: share of the way back to `start` that satisfaction goes in a day away.
    """

    examine: float = 0.9
    plain: float = 0.35
    start: float = 0.5
    move: float = 0.06
    floor: float = 0.3
    leave: float = 0.01
    leave_sour: float = 0.08
    recover: float = 0.2

    def __post_init__(self) -> None:
        shares(self, "examine", "plain", "start", "floor", "leave", "leave_sour", "recover")


@dataclass(frozen=True)
class ClickbaitState(State):
    """What users like, and how satisfied they are.

    Args:
        preference: float32 (B, T).
        satisfaction: float32 (B,) in [0, 1].
    """

    preference: Tensor
    satisfaction: Tensor


class ClickbaitUsers(TasteUsers):
    """Users whom bait wins now and goodness wins for long.

    An item of topic t attracts with a = preference[t] x (plain + (1 - plain) x bait). At position k it is clicked with
    probability examine^k x a x (floor + (1 - floor) x satisfaction). A clicked item is liked with probability `good`.
    After a slate, satisfaction moves by `move` x (2 good - 1) for every clicked item, within [0, 1]. The user
    leaves with probability leave + leave_sour x (1 - satisfaction)^2, the satisfaction being that before the slate.
    Arrivals have satisfaction `start`; a day away brings it back there by the share `recover`.
    """

    kind = "clickbait"
    rules_class = ClickbaitRules
    rules: ClickbaitRules
    trait_names = ("bait", "good")
    signals = (CLICK, LIKE)

    def arrive(self, users: Tensor, draw: Draw) -> ClickbaitState:
        """Everyone starts as satisfied."""
        preference = self.preference[users]
        return ClickbaitState(preference, torch.full_like(preference[:, 0], self.rules.start))

    def observe(self, state: ClickbaitState, slate: Tensor, signals: Tensor) -> ClickbaitState:
        """See the class."""
        gain = (signals[..., 0] * (2 * self.trait("good", slate) - 1)).sum(1)
        satisfaction = (state.satisfaction + self.rules.move * gain).clamp(0, 1)
        return ClickbaitState(state.preference, satisfaction)

    def resume(self, state: ClickbaitState, days_away: Tensor, draw: Draw) -> ClickbaitState:
        """Time heals, and lets forget."""
        kept = (1 - self.rules.recover) ** days_away
        return ClickbaitState(state.preference, self.rules.start + (state.satisfaction - self.rules.start) * kept)

    def expected(self, state: ClickbaitState, past: Past, slate: Tensor) -> Expected:
        """Exact."""
        click = self.utility(state, past, slate) * self.examined(slate.shape[1])
        leave = self._leaving(state, slate, click.unsqueeze(2))
        return Expected(mean=torch.stack([click, self.trait("good", slate)], dim=2), leave=leave)

    def utility(self, state: ClickbaitState, past: Past | None, items: Tensor) -> Tensor:
        """Click probability of an item that is looked at."""
        items = items.expand(len(state.preference), -1)
        tempting = self.rules.plain + (1 - self.rules.plain) * self.trait("bait", items)
        willing = self.rules.floor + (1 - self.rules.floor) * state.satisfaction
        return self.liking(state.preference, items) * tempting * willing.unsqueeze(1)

    def promise(self, state: ClickbaitState, items: Tensor) -> Tensor:
        """The expected move of satisfaction."""
        return self.utility(state, None, items) * (2 * self.trait("good", items) - 1)

    def _answer(self, state: ClickbaitState, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        click = self.drawn("click", self.utility(state, None, slate) * self.examined(slate.shape[1]), slate, draw)
        like = self.drawn("like", self.trait("good", slate), slate, draw) * click
        return torch.stack([click, like], dim=2), torch.stack([slate < self.items, click > 0], dim=2)

    def _leaving(self, state: ClickbaitState, slate: Tensor, signals: Tensor) -> Tensor:
        return self.rules.leave + self.rules.leave_sour * (1 - state.satisfaction).square()
