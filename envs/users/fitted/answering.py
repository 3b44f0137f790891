"""What all fitted users do alike: read the heads, draw answers, leave. How a family remembers is its own business."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.artifact import Artifact, fitted_module
from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response
from recloop.envs.logs.schema import Signal
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fitted.config import AssumedLeaving
from recloop.envs.users.fitted.heads import CONSUME, Heads, chosen, one_of, slate_summary
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.slate_context import Reading, Recalled, SlateContext
from recloop.envs.users.fitted.memory import FittedState, Memory, Sizes
from recloop.envs.users.fitted.scoring import ItemRows, Scoring

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData

_CHUNK = 2048
"""Users whose arrival is computed at once."""


class FittedUsers(UserSimulator, Artifact):
    """Users fitted on a log, of one family.

    Args:
        signals: what an answer carries.
        sizes: what they are built for.
        leaving: the assumed leaving, or None where it was learned.
    """

    artifact_file = "users"
    artifact_format = 2
    artifact_error = UserSimulatorError

    kind: ClassVar[str]

    def __init__(self, signals: Sequence[Signal], sizes: Sizes, leaving: AssumedLeaving | None) -> None:
        self.signals = tuple(signals)
        self.sizes, self.leaving = sizes, leaving
        self.groups = Groups(sizes.catalogue_size, sizes.groups)
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
    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Table the items and every user's state at arrival.

        Raises:
            UserSimulatorError: the world's items do not fit those it was fitted on.
        """
        self.device = torch.device(device)
        vectors = world.item_vectors.to(self.device)
        wanted = (self.sizes.catalogue_size + 1, self.sizes.item_dim)
        if tuple(vectors.shape) != wanted:
            raise UserSimulatorError(
                f"the world's item vectors are {tuple(vectors.shape)}, these users were fitted on {wanted}; "
                "fit users on this world's log"
            )
        self.parts().to(self.device)
        self._tabled = Scoring(self.heads, self.context, self.memory, vectors)
        users = world.users
        chunks = []
        for start in range(0, max(len(users.part), 1), _CHUNK):
            rows = slice(start, start + _CHUNK)
            steps = torch.zeros(len(users.part[rows]), dtype=torch.int64, device=self.device)
            past = Past(
                history=users.history[rows].to(self.device),
                feedback=users.feedback[rows].to(self.device),
                shown=users.shown[rows].to(self.device),
                answers=users.answers[rows].to(self.device),
                step=steps,
                days_away=steps.to(torch.float32),
            )
            chunks.append(self.infer(past, users.profile[rows].to(self.device)))
        self.arrivals: FittedState = chunks[0].concatenate(chunks)

    def arrive(self, users: Tensor, draw: Draw) -> FittedState:
        """The tabled state of users (B,) at the start of an episode."""
        self._scoring  # noqa: B018 - raises where not prepared
        return self.arrivals.rows(users)

    @torch.no_grad()
    def respond(self, state: FittedState, past: Past, slate: Tensor, draw: Draw) -> tuple[FittedState, Response]:
        """Answer slates (B, K); see the contract. Luck belongs to the item, not to its place."""
        rows = self._scoring.rows(slate.T)
        response = self._answer(state, past, slate, rows, draw)
        return self._observe(state, slate, rows.columns.transpose(0, 1), response.signals), response

    @torch.no_grad()
    def answer(self, state: FittedState, past: Past, slate: Tensor, draw: Draw) -> Response:
        """As `respond`, without the state that follows."""
        return self._answer(state, past, slate, self._scoring.rows(slate.T), draw)

    @torch.no_grad()
    def observe(self, state: FittedState, slate: Tensor, signals: Tensor) -> FittedState:
        """The state after the answers (B, K, S) to slates (B, K): certain, so that planners can keep one too."""
        return self._observe(state, slate, self._columns_of(slate), signals)

    def resume(self, state: FittedState, days_away: Tensor, draw: Draw) -> FittedState:
        """A new session: its slates are counted from 0."""
        return replace(state, steps=torch.zeros_like(state.steps))

    @torch.no_grad()
    def infer(self, past: Past, profile: Tensor) -> FittedState:
        """Replay the past: consumption before the remembered slates one by one, then these slates.

        Exact as long as `past` reaches back to the start of the episode.
        """
        n = self.sizes.catalogue_size
        consumed = (past.answers[..., 0] > 0.5) & (past.shown < n)  # (B, L, K)
        again = consumed.flatten(1).sum(1, keepdim=True)  # (B, 1) of the history's newest, replayed as slates
        age = torch.arange(past.history.shape[1], 0, -1, device=past.history.device)  # (H,)
        history = torch.where(age <= again, n, past.history)
        state = self._replay(profile, history, past.feedback)
        slates = self.memory.inputs(self._columns_of(past.shown), past.shown, past.answers, shown=True)
        length = past.shown.shape[1]
        place = torch.arange(length, device=past.step.device)  # (L,)
        since = past.step.unsqueeze(1) - length + place  # (B, L), negative before the episode
        steps = torch.where(since >= 0, since, place).to(torch.float32)
        held = (past.shown < n).any(-1).any(0).tolist()  # a slate that nobody was shown changes nobody
        for slate, step, known in zip(slates.unbind(1), steps.unbind(1), held, strict=True):
            state = self.memory.advance(replace(state, steps=step), slate) if known else state
        guess: FittedState = replace(state, steps=past.step.to(torch.float32))
        return guess

    @torch.no_grad()
    def expected(self, state: FittedState, past: Past, slate: Tensor) -> Expected:
        """Calibrated means with position effects; 0 at empty places. The spread is not known.

        What a place owes to those above it is taken at their means.
        """
        scoring, held = self._scoring, slate < self.sizes.catalogue_size

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
            leave = self.heads.leave_chance(vector, summary)
        else:
            leave = self._assumed_chance(anything)
        return Expected(mean=mean * held.unsqueeze(-1), leave=leave)

    @torch.no_grad()
    def utility(self, state: FittedState, past: Past, items: Tensor) -> Tensor:
        """Consumption logits without position effects: items (B, C) or (C,) -> (B, C)."""
        reading = self._reading(state, past)
        user, tabled = self.heads.user_parts(reading.vector, reading.direct), self._scoring.catalogue.parts
        if items.dim() == 1:
            whole = len(items) == self.sizes.catalogue_size and torch.equal(items, self._scoring.everything)
            want = tabled.want[:-1] if whole else tabled.want[items]
            bias = tabled.bias[:-1, 0] if whole else tabled.bias[items, 0]
            raw = user.want @ want.T + bias + user.bias[:, :1]
        else:
            want = (tabled.want[items] @ user.want.unsqueeze(-1)).squeeze(-1)
            raw = want + tabled.bias[items, 0] + user.bias[:, :1]
        if self.context is not None:
            raw = raw + self.context.alone(reading, self._scoring.catalogue.character, items)[..., 0]
        repeats = self.memory.repeats(past.history, past.shown, items)
        raw = raw if repeats is None else raw + repeats
        return raw * self.heads.scale[0] + self.heads.shift[0]

    def chances(self, state: FittedState, past: Past, items: Tensor) -> Tensor:
        """Probability that each item is consumed if it is shown alone: items (B, C) or (C,) -> (B, C)."""
        return torch.sigmoid(self.utility(state, past, items))

    def stored_facts(self) -> dict[str, Any]:
        """Signals, sizes, and what leaving was assumed."""
        leaving = None if self.leaving is None else asdict(self.leaving)
        return {"signals": [s.as_dict() for s in self.signals], "sizes": asdict(self.sizes), "leaving": leaving}

    def stored_tensors(self) -> dict[str, Tensor]:
        """The weights."""
        return self.parts().state_dict()

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """See `Artifact`."""
        leaving = None if facts["leaving"] is None else AssumedLeaving(**facts["leaving"])
        sizes = Sizes(**{**facts["sizes"], "groups": tuple(facts["sizes"]["groups"])})
        users = cls([Signal.of(signal) for signal in facts["signals"]], sizes, leaving)
        fitted_module(users.parts(), tensors)
        users.parts().requires_grad_(False)
        return users

    def parts(self) -> nn.ModuleDict:
        """The modules that hold all weights."""
        parts = {"groups": self.groups, "memory": self.memory, "heads": self.heads}
        return nn.ModuleDict(parts if self.context is None else {**parts, "context": self.context})

    @property
    def _scoring(self) -> Scoring:
        if self._tabled is None:
            raise UserSimulatorError(
                f"{type(self).__name__} is not prepared; call prepare(world, device) before it answers"
            )
        return self._tabled

    def _columns_of(self, items: Tensor) -> Tensor:
        """What the memory reads of items (...): (..., c)."""
        return F.embedding(items, self._scoring.catalogue.columns)

    def _answer(self, state: FittedState, past: Past, slate: Tensor, rows: ItemRows, draw: Draw) -> Response:
        """The answer to slates (B, K), of whose items the rows (K, B) are known."""
        scoring, heads, held = self._scoring, self.heads, slate < self.sizes.catalogue_size
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
        if self.leaving is None:
            chance = heads.leave_chance(reading.vector, summary)
        else:
            chance = self._assumed_chance(consumed.amax(1))
        days = heads.days_away(reading.vector, summary, draw) if self.sizes.days else None
        return Response(signals, given, draw.uniform("leave") < chance, days)

    def _observe(self, state: FittedState, slate: Tensor, columns: Tensor, signals: Tensor) -> FittedState:
        step = self.memory.inputs(columns, slate, signals, shown=True)
        after: FittedState = self.memory.advance(state, step)
        return replace(after, steps=state.steps + 1)

    def _repeats(self, past: Past, slate: Tensor) -> Tensor | None:
        """What is added to consumption of slates (B, K) because items are not new, by place: (K, B)."""
        found = self.memory.repeats(past.history, past.shown, slate)
        return None if found is None else found.T

    def _replay(self, profile: Tensor, history: Tensor, feedback: Tensor) -> Any:
        """Consumption (B, H) with feedback (B, H, S), one by one, from users of whom only the profile is known."""
        state = self.memory.blank(profile)
        items = history.unsqueeze(-1)
        steps = self.memory.inputs(self._columns_of(items), items, feedback.unsqueeze(-2), shown=False)
        held = (history < self.sizes.catalogue_size).any(0).tolist()
        for step, known in zip(steps.unbind(1), held, strict=True):
            state = self.memory.advance(state, step) if known else state
        return state

    def _reading(self, state: FittedState, past: Past) -> Reading:
        recalled = Recalled(past.history, past.feedback, past.shown, past.answers)
        return self.memory.recall(self.memory.read(state), recalled, self._scoring.catalogue.columns)

    def _assumed_chance(self, consumed: Tensor) -> Tensor:
        """Probability of leaving by the stated default, from that of having consumed anything (B,)."""
        if self.leaving is None:
            raise UserSimulatorError("leaving was learned from the log; there is no assumed one")
        low, high = self.leaving.chances
        return high + (low - high) * consumed
