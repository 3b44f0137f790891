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
from recloop.envs.users.fitted.heads import AnswerHeads
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.memory import FittedState, Memory, Sizes

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
    memory: Memory
    heads: AnswerHeads

    def __init__(self, signals: Sequence[Signal], sizes: Sizes, leaving: AssumedLeaving | None) -> None:
        self.signals = tuple(signals)
        self.sizes, self.leaving = sizes, leaving
        self.groups = Groups(sizes.catalogue_size, sizes.groups)
        self._columns: Tensor | None = None

    @abstractmethod
    def parts(self) -> nn.ModuleDict:
        """The modules that hold all weights."""

    @abstractmethod
    def answer(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Response:
        """As `respond`, without the state that follows."""

    @abstractmethod
    def _table_items(self, vectors: Tensor) -> Tensor:
        """Table whatever depends on the items (N+1, d) alone; returns what the memory reads of each, (N+1, c)."""

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
        self._columns = self._table_items(vectors)
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
        self._read_columns  # noqa: B018 - raises where not prepared
        return self.arrivals.rows(users)

    @torch.no_grad()
    def observe(self, state: FittedState, slate: Tensor, signals: Tensor) -> FittedState:
        """The state after the answers (B, K, S) to slates (B, K): certain, so that planners can keep one too."""
        return self._observe(state, slate, self._columns_of(slate), signals)

    def resume(self, state: FittedState, days_away: Tensor, draw: Draw) -> FittedState:
        """A new session: its slates are counted from 0."""
        resumed: FittedState = self.memory.at(state, torch.zeros_like(state.steps), days_away)
        return resumed

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
        columns = (slates, steps, past.shown, past.answers)
        for slate, step, items, signals, known in zip(*(x.unbind(1) for x in columns), held, strict=True):
            state = self._moved(self.memory.at(state, step), slate, items, signals) if known else state
        guess: FittedState = self.memory.at(state, past.step.to(torch.float32), past.days_away)
        return guess

    @torch.no_grad()
    def respond(self, state: FittedState, past: Past, slate: Tensor, draw: Draw) -> tuple[FittedState, Response]:
        """Answer slates (B, K); see the contract. Luck belongs to the item, not to its place."""
        state = self.met(state, draw)
        response = self.answer(state, past, slate, draw)
        return self.observe(state, slate, response.signals), response

    def met(self, state: Any, draw: Draw) -> Any:
        """The state of users who begin to answer, with whatever is theirs alone drawn; here nothing is."""
        return state

    @abstractmethod
    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected:
        """Calibrated means with position effects; 0 at empty places. The spread is not known."""

    @abstractmethod
    def utility(self, state: Any, past: Past, items: Tensor) -> Tensor:
        """Consumption logits without position effects: items (B, C) or (C,) -> (B, C)."""

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
        users = cls(*cls.stored_sizes(facts))
        fitted_module(users.parts(), tensors)
        users.parts().requires_grad_(False)
        return users

    @staticmethod
    def stored_sizes(facts: dict[str, Any]) -> tuple[list[Signal], Sizes, AssumedLeaving | None]:
        """Signals, sizes and leaving, from `stored_facts`."""
        leaving = None if facts["leaving"] is None else AssumedLeaving(**facts["leaving"])
        sizes = Sizes(**{**facts["sizes"], "groups": tuple(facts["sizes"]["groups"])})
        return [Signal.of(signal) for signal in facts["signals"]], sizes, leaving

    @property
    def _read_columns(self) -> Tensor:
        if self._columns is None:
            raise UserSimulatorError(
                f"{type(self).__name__} is not prepared; call prepare(world, device) before it answers"
            )
        return self._columns

    def _columns_of(self, items: Tensor) -> Tensor:
        """What the memory reads of items (...): (..., c)."""
        return F.embedding(items, self._read_columns)

    def _observe(self, state: FittedState, slate: Tensor, columns: Tensor, signals: Tensor) -> FittedState:
        step = self.memory.inputs(columns, slate, signals, shown=True)
        return replace(self._moved(state, step, slate, signals), steps=state.steps + 1)

    def _moved(self, state: FittedState, step: Tensor, slate: Tensor, signals: Tensor) -> FittedState:
        """The state after slates (B, K) with answers (B, K, S), of which the memory reads `step`; not yet counted."""
        after: FittedState = self.memory.advance(state, step)
        return after

    def _replay(self, profile: Tensor, history: Tensor, feedback: Tensor) -> Any:
        """Consumption (B, H) with feedback (B, H, S), one by one, from users of whom only the profile is known."""
        state = self.memory.blank(profile)
        items = history.unsqueeze(-1)
        steps = self.memory.inputs(self._columns_of(items), items, feedback.unsqueeze(-2), shown=False)
        held = (history < self.sizes.catalogue_size).any(0).tolist()
        for step, known in zip(steps.unbind(1), held, strict=True):
            state = self.memory.advance(state, step) if known else state
        return state

    def _assumed_chance(self, consumed: Tensor) -> Tensor:
        """Probability of leaving by the stated default, from that of having consumed anything (B,)."""
        if self.leaving is None:
            raise UserSimulatorError("leaving was learned from the log; there is no assumed one")
        low, high = self.leaving.chances
        return high + (low - high) * consumed
