"""Fitted users with neural heads: what a family remembers becomes a vector that learned heads read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response
from recloop.envs.logs.schema import Signal
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.config import AssumedLeaving
from recloop.envs.users.fitted.heads import (
    CONSUME,
    ENDED,
    SESSION,
    SPENT,
    Heads,
    chosen,
    one_of,
    session_step,
    slate_summary,
)
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.slate_context import Reading, Recalled, SlateContext
from recloop.envs.users.fitted.memory import FittedState, Memory, Sizes
from recloop.envs.users.fitted.scoring import ItemRows, Scoring


class NeuralUsers(FittedUsers):
    """Users of a family whose memory is read by `Heads`; see `FittedUsers`."""

    artifact_format = 3
    heads: Heads

    def __init__(self, signals: Sequence[Signal], sizes: Sizes, leaving: AssumedLeaving | None) -> None:
        super().__init__(signals, sizes, leaving)
        self.memory = self._memory(self.groups)
        self.heads = Heads(
            self.signals,
            sizes.catalogue_size,
            sizes.item_dim,
            self.memory.user_dim,
            rank=sizes.rank,
            residual=sizes.residual,
            positions=sizes.positions,
            direct=self.memory.direct,
        )
        self.context: SlateContext | None = None
        if sizes.exposures:
            row = sizes.item_dim + sizes.residual
            self.context = SlateContext(
                self.groups, self.memory.group_width, self.memory.user_dim, row, len(self.signals)
            )
        self._tabled: Scoring | None = None

    @abstractmethod
    def _memory(self, groups: Groups) -> Memory:
        """The family's memory, its weights not set."""

    @torch.no_grad()
    def respond(self, state: FittedState, past: Past, slate: Tensor, draw: Draw) -> tuple[FittedState, Response]:
        """Answer slates (B, K); see the contract. Luck belongs to the item, not to its place."""
        rows = self.scoring.rows(slate.T)
        response = self._answer(state, past, slate, rows, draw)
        return self._observe(state, slate, rows.columns.transpose(0, 1), response.signals), response

    @torch.no_grad()
    def answer(self, state: FittedState, past: Past, slate: Tensor, draw: Draw) -> Response:
        """As `respond`, without the state that follows."""
        return self._answer(state, past, slate, self.scoring.rows(slate.T), draw)

    @torch.no_grad()
    def expected(self, state: FittedState, past: Past, slate: Tensor) -> Expected:
        """Calibrated means with position effects; 0 at empty places. The spread is not known.

        What a place owes to those above it is taken at their means.
        """
        scoring, held = self.scoring, slate < self.sizes.catalogue_size

        def decide(score: Tensor, place: int) -> Tensor:
            return torch.sigmoid(score) * held[:, place]

        reading = self._reading(state, past)
        scores, _ = scoring.scores(reading, scoring.rows(slate.T), slate.T, self._repeats(past, slate), decide)
        vector, mean = reading.vector, self.heads.means(scores.transpose(0, 1), held)
        appeal = mean[..., 0] * held
        anything = appeal.sum(-1) if scoring.one_at_most else 1 - (1 - appeal).prod(-1)
        if self.leaving is None:
            presence = self.heads.presence(mean)
            summary = slate_summary(self.signals, mean, presence, appeal, held, state.steps, anything)
            leave = self.heads.leave_chance(self._ended(state, vector, summary, slate, appeal))
        else:
            leave = self._assumed_chance(anything)
        return Expected(mean=mean * held.unsqueeze(-1), leave=leave)

    @torch.no_grad()
    def utility(self, state: FittedState, past: Past, items: Tensor) -> Tensor:
        """Consumption logits without position effects: items (B, C) or (C,) -> (B, C)."""
        reading = self._reading(state, past)
        user, tabled = self.heads.user_parts(reading.vector, reading.direct), self.scoring.catalogue.parts
        if items.dim() == 1:
            whole = len(items) == self.sizes.catalogue_size and torch.equal(items, self.scoring.everything)
            want = tabled.want[:-1] if whole else tabled.want[items]
            bias = tabled.bias[:-1, 0] if whole else tabled.bias[items, 0]
            raw = user.want @ want.T + bias + user.bias[:, :1]
        else:
            want = (tabled.want[items] @ user.want.unsqueeze(-1)).squeeze(-1)
            raw = want + tabled.bias[items, 0] + user.bias[:, :1]
        if self.context is not None:
            raw = raw + self.context.alone(reading, self.scoring.catalogue.character, items)[..., 0]
        repeats = self.memory.repeats(past.history, past.shown, items)
        raw = raw if repeats is None else raw + repeats
        return raw * self.heads.scale[0] + self.heads.shift[0]

    def parts(self) -> nn.ModuleDict:
        """The modules that hold all weights."""
        parts = {"groups": self.groups, "memory": self.memory, "heads": self.heads}
        return nn.ModuleDict(parts if self.context is None else {**parts, "context": self.context})

    @classmethod
    def migrated(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], found: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Leaving of format 2 read nothing of the session and had no hidden layer: it still does not."""
        if found < 2:
            return super().migrated(facts, tensors, found)
        row, read = tensors["heads.of_items.weight"].shape[1], tensors["heads.leave.weight"].shape[1] + SESSION
        more = {
            "heads.spent.weight": torch.zeros(SPENT, row),
            "heads.ended.weight": torch.zeros(ENDED, read),
            "heads.ended.bias": torch.zeros(ENDED),
        }
        for name in ("heads.leave.weight", "heads.gap.weight"):
            more[name] = F.pad(tensors[name], (0, SESSION + ENDED))
        return facts, {**tensors, **more}

    def _table_items(self, vectors: Tensor) -> Tensor:
        self._tabled = Scoring(self.heads, self.context, self.memory, vectors)
        return self._tabled.catalogue.columns

    @property
    def scoring(self) -> Scoring:
        """What the items' tables tell of slates; `UserSimulatorError` before `prepare`."""
        if self._tabled is None:
            raise UserSimulatorError(
                f"{type(self).__name__} is not prepared; call prepare(world, device) before it answers"
            )
        return self._tabled

    def _answer(self, state: FittedState, past: Past, slate: Tensor, rows: ItemRows, draw: Draw) -> Response:
        """The answer to slates (B, K), of whose items the rows (K, B) are known."""
        scoring, heads, held = self.scoring, self.heads, slate < self.sizes.catalogue_size
        luck = torch.logit(draw.uniform(CONSUME, slate)).masked_fill(~held, torch.inf).T  # (K, B)

        def decide(score: Tensor, place: int) -> Tensor:
            return (luck[place] < score).to(score.dtype)

        reading = self._reading(state, past)
        found, decided = scoring.scores(reading, rows, slate.T, self._repeats(past, slate), decide)
        scores = found.transpose(0, 1)  # (B, K, S)
        if scoring.one_at_most:
            consumed = one_of(scores[..., 0], held, draw, slate)
        else:
            consumed = ((luck < found[..., 0]).to(found.dtype) if decided is None else decided).T
        signals, given = heads.sample(scores, slate, draw, consumed)
        if self.leaving is not None and not self.sizes.days:
            chance = self._assumed_chance(consumed.amax(1))
            return Response(signals, given, draw.uniform("leave") < chance)
        appeal = chosen(scores[..., 0], held) if scoring.one_at_most else torch.sigmoid(scores[..., 0])
        summary = slate_summary(self.signals, signals, given.to(signals.dtype), appeal, held, state.steps)
        ended = self._ended(state, reading.vector, summary, slate, consumed)
        chance = heads.leave_chance(ended) if self.leaving is None else self._assumed_chance(consumed.amax(1))
        days = heads.days_away(ended, draw) if self.sizes.days else None
        return Response(signals, given, draw.uniform("leave") < chance, days)

    def _ended(self, state: FittedState, vector: Tensor, summary: Tensor, slate: Tensor, taken: Tensor) -> Tensor:
        """What leaving reads after slates (B, K) of which `taken` (B, K) is consumed."""
        return self.heads.read_ended(vector, summary, state.session + self._session_step(slate, taken))

    def _session_step(self, slate: Tensor, taken: Tensor) -> Tensor:
        held = (slate < self.sizes.catalogue_size).to(taken.dtype)
        return session_step(F.embedding(slate, self.scoring.spent), taken, held)

    def _moved(self, state: FittedState, step: Tensor, slate: Tensor, signals: Tensor) -> FittedState:
        after = super()._moved(state, step, slate, signals)
        if not self.sizes.exposures or (self.leaving is not None and not self.sizes.days):
            return after
        return replace(after, session=state.session + self._session_step(slate, (signals[..., 0] > 0.5).float()))

    def _repeats(self, past: Past, slate: Tensor) -> Tensor | None:
        """What is added to consumption of slates (B, K) because items are not new, by place: (K, B)."""
        found = self.memory.repeats(past.history, past.shown, slate)
        return None if found is None else found.T

    def _reading(self, state: FittedState, past: Past) -> Reading:
        recalled = Recalled(past.history, past.feedback, past.shown, past.answers)
        return self.memory.recall(self.memory.read(state), recalled, self.scoring.catalogue.columns)
