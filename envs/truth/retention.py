"""Retention: how long users stay away depends on how much good their last sessions did them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.truth.tastes import CLICK, LIKE, TasteUsers, shares


@dataclass(frozen=True)
class RetentionRules:
    """The laws of the world.

    Args:
        examine: a place is looked at with probability `examine ** position`, position from 0.
        plain: attraction of an item without any bait; full bait attracts 1.
        leave: probability that a session ends with a slate that had a click.
        leave_empty: the same for a slate without one.
        start: mood on arrival, in [0, 1].
        weight: share of a session's own worth in the mood after it; the rest is the mood before.
        filling: good consumed per slate at which a session is worth 1 - 1/e.
        shortest: days away at mood 1.
        longest: days away at mood 0.
        noise: standard deviation of log days away.
    """

    examine: float = 0.85
    plain: float = 0.35
    leave: float = 0.3
    leave_empty: float = 0.4
    start: float = 0.5
    weight: float = 0.6
    filling: float = 0.4
    shortest: float = 0.5
    longest: float = 6.0
    noise: float = 0.3

    def __post_init__(self) -> None:
        shares(self, "examine", "plain", "leave", "leave_empty", "start", "weight")
        if not 0 < self.shortest <= self.longest:
            raise UserSimulatorError(
                f"shortest={self.shortest}, longest={self.longest}; days away must rise from above 0"
            )
        if not self.filling > 0:
            raise UserSimulatorError(f"filling={self.filling} must be above 0")


@dataclass(frozen=True)
class RetentionState(State):
    """What users like, their mood, and the session so far.

    Args:
        preference: float32 (B, T).
        mood: float32 (B,) in [0, 1], after the last session.
        enjoyed: float32 (B,) good consumed in this session.
        slates: float32 (B,) slates in this session.
    """

    preference: Tensor
    mood: Tensor
    enjoyed: Tensor
    slates: Tensor


class RetentionUsers(TasteUsers):
    """Users who click on what tempts them, and come back for what was good.

    An item of topic t attracts with a = preference[t] x (plain + (1 - plain) x bait); at position k it is clicked
    with probability examine^k x a, and a clicked one is liked with probability `good`. A session ends with
    probability `leave` after a slate with a click, `leave_empty` after one without. It was worth
    w = 1 - exp(-g / filling), g being the summed `good` of what was clicked, per slate. Mood becomes (1 - weight) x
    mood + weight x w, and the user stays away (shortest + (longest - shortest) x (1 - mood)^2) x exp(noise x normal)
    days. Nothing changes within a session. An episode ends when its days are used up (`World.max_days`), so shorter
    gaps mean more sessions. Arrivals have mood `start`.
    """

    kind = "retention"
    rules_class = RetentionRules
    rules: RetentionRules
    trait_names = ("bait", "good")
    signals = (CLICK, LIKE)

    def arrive(self, users: Tensor, draw: Draw) -> RetentionState:
        """Everyone arrives in the same mood."""
        preference = self.preference[users]
        zeros = torch.zeros_like(preference[:, 0])
        return RetentionState(preference, zeros + self.rules.start, zeros, zeros)

    def respond(self, state: RetentionState, past: Past, slate: Tensor, draw: Draw) -> tuple[RetentionState, Response]:
        """See the class."""
        after, response = super().respond(state, past, slate, draw)
        calm = self.days_away(self._ended(after).mood)
        return after, replace(response, days_away=calm * torch.exp(self.rules.noise * draw.normal("days away")))

    def observe(self, state: RetentionState, slate: Tensor, signals: Tensor) -> RetentionState:
        """The session goes on; `resume` ends it."""
        enjoyed = (signals[..., 0] * self.trait("good", slate)).sum(1)
        return replace(state, enjoyed=state.enjoyed + enjoyed, slates=state.slates + 1)

    def resume(self, state: RetentionState, days_away: Tensor, draw: Draw) -> RetentionState:
        """The mood that the last session left, however long ago it was."""
        return self._ended(state)

    def expected(self, state: RetentionState, past: Past, slate: Tensor) -> Expected:
        """Exact."""
        click = self.utility(state, past, slate) * self.examined(slate.shape[1])
        mean = torch.stack([click, self.trait("good", slate)], dim=2)
        return Expected(mean=mean, leave=self._expected_leaving(click))

    def utility(self, state: RetentionState, past: Past | None, items: Tensor) -> Tensor:
        """Click probability of an item that is looked at."""
        items = items.expand(len(state.preference), -1)
        tempting = self.rules.plain + (1 - self.rules.plain) * self.trait("bait", items)
        return self.liking(state.preference, items) * tempting

    def promise(self, state: RetentionState, items: Tensor) -> Tensor:
        """The good that is expected to be consumed."""
        return self.utility(state, None, items) * self.trait("good", items)

    def days_away(self, mood: Tensor) -> Tensor:
        """Median days away (B,) after a session that ends in this mood (B,)."""
        return self.rules.shortest + (self.rules.longest - self.rules.shortest) * (1 - mood).square()

    def _ended(self, state: RetentionState) -> RetentionState:
        worth = 1 - torch.exp(-state.enjoyed / state.slates.clamp_min(1) / self.rules.filling)
        mood = (1 - self.rules.weight) * state.mood + self.rules.weight * worth
        zeros = torch.zeros_like(mood)
        return RetentionState(state.preference, torch.where(state.slates > 0, mood, state.mood), zeros, zeros)

    def _answer(self, state: RetentionState, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        click = self.drawn("click", self.utility(state, None, slate) * self.examined(slate.shape[1]), slate, draw)
        like = self.drawn("like", self.trait("good", slate), slate, draw) * click
        return torch.stack([click, like], dim=2), torch.stack([slate < self.items, click > 0], dim=2)
