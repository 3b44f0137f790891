"""SARDINE's users (Deffayet et al. 2024, package `sardine-rec`) on batches: the same laws, step for step.

Differences: an episode begins with the policy's own first slate, not with one at random; luck belongs to the item, so
that two policies meet the same users with the same luck; nobody leaves, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.walk import steps_at
from recloop.envs.users.contract import UserSimulator

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData

CLICK = Signal("click")


@dataclass(frozen=True)
class SardineRules:
    """What of a SARDINE environment its users depend on.

    Args:
        offset, slope: of the sigmoid from score to relevance.
        omega: share of the taste that stays where something is clicked.
        threshold: clicks of one topic, among the last, from which it bores.
        remembered: clicks that count at most.
        window: slates that clicks count for, and that boredom lasts.
        decay: chance to look at a place, to the power of the place.
        everything: whether whoever is bored by a topic clicks nothing at all; else nothing of the topic.
    """

    offset: float = 0.65
    slope: float = 100.0
    omega: float = 1.0
    threshold: int = 5
    remembered: int = 10
    window: int = 5
    decay: float = 0.85
    everything: bool = True


VARIANTS: Mapping[str, SardineRules] = {
    "sardine-bored": SardineRules(),
    "sardine-topic": SardineRules(everything=False),
    "sardine-uncertain": SardineRules(slope=10.0, omega=0.95),
}
"""SlateTopK-Bored, the same where only the over-clicked topic bores, and SlateTopK-Uncertain."""


@dataclass(frozen=True)
class SardineState(State):
    """One taste a user, and what bores it; T topics, R remembered clicks.

    Args:
        taste: float32 (B, T).
        topics, steps: int64 (B, R) topic and slate of the last clicks, newest last; topic T where there is none.
        bored: bool (B, T).
        timeout: int64 (B, T) slates that boredom lasts still.
        time: int64 (B,) slates so far.
    """

    taste: Tensor
    topics: Tensor
    steps: Tensor
    bored: Tensor
    timeout: Tensor
    time: Tensor


class SardineUsers(UserSimulator):
    """The users of a SARDINE environment; see the module.

    Args:
        tastes: float32 (U, T) of length 1.
        items: float32 (N, T).
        rules: their laws.
        warm: whether they arrive as the log of the world leaves them; else as if nobody had shown them anything.
    """

    def __init__(self, tastes: Tensor, items: Tensor, rules: SardineRules, warm: bool = False) -> None:
        self.signals = (CLICK,)
        self.rules, self.tastes, self.warm = rules, tastes, warm
        self.items = torch.cat([items, items.new_zeros(1, items.shape[1])])  # (N+1, T)
        self.main = torch.cat([items.argmax(1), torch.tensor([items.shape[1]])])
        self.longest = float(items.norm(dim=1).max())
        self.arrivals = self.fresh(tastes)

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Everything lies on the device; warm users have gone through the world's log."""
        super().prepare(world, device)
        self.tastes, self.items, self.main = (x.to(self.device) for x in (self.tastes, self.items, self.main))
        self.arrivals = self.fresh(self.tastes)
        slates = world.sequences.slates
        if slates is None or not self.warm:
            return
        everyone = np.arange(len(self.tastes))
        counts = np.diff(slates.offsets)
        for step in range(int(counts.max(initial=0))):
            there = step < counts
            steps = steps_at(world.sequences, np.minimum(slates.offsets[:-1] + step, len(slates.items) - 1), everyone)
            shown, answers = (torch.from_numpy(x).to(self.device) for x in (steps.items, steps.answers))
            moved = self.observe(self.arrivals, shown, answers)
            self.arrivals = self.arrivals.where(torch.from_numpy(there).to(self.device), moved)

    def warmed(self) -> SardineUsers:
        """The same users, who arrive as the log leaves them."""
        return SardineUsers(self.tastes, self.items[:-1], self.rules, warm=True)

    def arrive(self, users: Tensor, draw: Draw) -> SardineState:
        """As the log left them, or as nobody has ever been shown anything."""
        return self.arrivals.rows(users)

    def fresh(self, taste: Tensor) -> SardineState:
        """Users of these tastes (B, T) to whom nothing happened yet."""
        b, topics = taste.shape
        last = torch.full((b, self.rules.remembered), topics, device=taste.device)
        bored = torch.zeros(b, topics, dtype=torch.bool, device=taste.device)
        timeout = torch.full((b, topics), self.rules.window, device=taste.device)
        return SardineState(taste, last, torch.zeros_like(last), bored, timeout, torch.zeros_like(last[:, 0]))

    def infer(self, past: Past, profile: Tensor) -> SardineState:
        """Cannot be told from the past."""
        raise NotImplementedError("SARDINE's users are not known from their past")

    def respond(self, state: SardineState, past: Past, slate: Tensor, draw: Draw) -> tuple[SardineState, Response]:
        """Clicks, and what they lead to."""
        held = slate < len(self.items) - 1
        clicks = (draw.uniform("click", slate) < self._chance(state, slate)) & held
        signals = clicks.to(torch.float32).unsqueeze(2)
        left = torch.zeros(len(slate), dtype=torch.bool, device=slate.device)
        return self.observe(state, slate, signals), Response(signals, held.unsqueeze(2), left)

    def observe(self, state: SardineState, slate: Tensor, signals: Tensor) -> SardineState:
        """The state after clicks (B, K, 1) on slates (B, K)."""
        rules, clicks = self.rules, signals[..., 0] > 0.5
        topics = state.bored.shape[1]
        order = torch.argsort((~clicks).to(torch.int8), dim=1, stable=True)  # clicked first, in their order
        count = clicks.sum(1, keepdim=True)
        places = torch.arange(rules.remembered, device=slate.device) + count
        fresh = torch.where(clicks, self.main[slate], topics).gather(1, order)
        now = state.time.unsqueeze(1)
        last = torch.cat([state.topics, fresh], dim=1).gather(1, places)
        steps = torch.cat([state.steps, now.expand_as(slate)], dim=1).gather(1, places)
        time = state.time + 1
        last = torch.where(steps < time.unsqueeze(1) - rules.window, topics, last)
        timeout = state.timeout - state.bored.to(torch.int64)
        bored = state.bored & (timeout != 0)
        timeout = torch.where(bored, timeout, rules.window)
        clicked = F.one_hot(last, topics + 1).sum(1)[:, :topics]
        bored = bored | (clicked >= rules.threshold)
        mean = (self.items[slate].mean(2) * clicks).sum(1, keepdim=True) / count.clamp_min(1)
        moved = F.normalize(rules.omega * state.taste + (1 - rules.omega) * mean, dim=1)
        taste = torch.where(count > 0, moved, state.taste)
        return replace(state, taste=taste, topics=last, steps=steps, bored=bored, timeout=timeout, time=time)

    def expected(self, state: SardineState, past: Past, slate: Tensor) -> Expected:
        """The chance of every click; nobody leaves."""
        chance = self._chance(state, slate) * (slate < len(self.items) - 1)
        return Expected(mean=chance.unsqueeze(2), leave=torch.zeros_like(chance[:, 0]))

    def utility(self, state: SardineState, past: Past, items: Tensor) -> Tensor:
        """Relevance."""
        items = items.expand(len(state.time), -1) if items.dim() == 1 else items
        return self._relevance(state, items)

    def _relevance(self, state: SardineState, items: Tensor) -> Tensor:
        """(B, M) in (0, 1)."""
        dead = state.bored.any(1, keepdim=True) if self.rules.everything else state.bored
        score = (self.items[items] @ (state.taste * ~dead).unsqueeze(2)).squeeze(2) / self.longest
        return torch.sigmoid((score - self.rules.offset) * self.rules.slope)

    def _chance(self, state: SardineState, slate: Tensor) -> Tensor:
        seen = self.rules.decay ** torch.arange(slate.shape[1], device=slate.device)
        return self._relevance(state, slate) * seen


def sardine_items() -> Tensor:
    """float32 (1000, 10) the items of the package's slate environments.

    Raises:
        RecloopError: the package is not there.
    """
    found = find_spec("sardine")
    if found is None or found.origin is None:
        raise RecloopError("sardine-rec is not installed; pip install 'recloop[studies]'")
    return torch.from_numpy(
        np.load(Path(found.origin).parent / "embeddings" / "item_embeddings_focused_small.npy")
    ).float()


def sardine_tastes(users: int, topics: int, generator: torch.Generator) -> Tensor:
    """float32 (U, T) drawn as there: three to five topics of ten, of length 1."""
    taste = torch.rand(users, topics, generator=generator)
    mask = torch.zeros(users, topics, dtype=torch.bool)
    todo = torch.ones(users, dtype=torch.bool)
    while bool(todo.any()):
        drawn = torch.rand(users, topics, generator=generator) > 1 - 4 / topics
        mask = torch.where(todo.unsqueeze(1), drawn, mask)
        size = mask.sum(1)
        todo = (size <= 2) | (size >= 6)
    return F.normalize(taste * mask, dim=1)
