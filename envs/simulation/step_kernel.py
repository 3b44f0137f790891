"""The part of a step that looks at no single value: fit to be compiled, and to be captured on a GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recloop.encoders.state.config import EncoderState
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.past import remember
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.simulation.compiling import Compiled
from recloop.envs.users.asking import answering
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fast import CompiledUsers, Respond


@dataclass(frozen=True)
class KernelResult:
    """What a slate led to, B lanes.

    Args:
        slate: int64 (B, K) what was shown; N where a place is invalid.
        invalid: int64 (B,) places without an item.
        response: the answers.
        state: the simulator's.
        past: with this step.
        encoded: the state encoder's.
        vector: float32 (B, d) of `encoded`.
    """

    slate: Tensor
    invalid: Tensor
    response: Response
    state: Any
    past: Past
    encoded: EncoderState
    vector: Tensor


class StepKernel:
    """Shows a slate to every lane: strikes, answers, follows. A pure function of what it is called with.

    Args:
        simulator: prepared.
        encoder: follows what is consumed.
        empty: N, the number of items.
        encodes: False leaves the encoder's state as it is: for those who never look at it.
        lanes: B, where the turn is to be compiled; None leaves it as it is. One lane, or users that are one model, are
            compiled as one piece; else the users see to their own answers.
    """

    def __init__(
        self, simulator: UserSimulator, encoder: StateEncoder, empty: int, encodes: bool, lanes: int | None = None
    ) -> None:
        self.simulator, self.encoder, self.empty, self.encodes = simulator, encoder, empty, encodes
        self._drop_invalid: Callable[..., tuple[Tensor, Tensor]] = self._without_invalid
        self._respond: Respond = answering(simulator)
        self._follow: Callable[..., tuple[Past, EncoderState, Tensor]] = self._followed
        self._whole: dict[Respond, Compiled] | None = None
        # Who consumed nothing keeps their state: on the CPU it pays to look who did.
        self._looks = lanes is None and simulator.device.type == "cpu"
        if lanes is None:
            return
        respond = simulator.compiled() if isinstance(simulator, CompiledUsers) else None
        if respond is None or lanes == 1:
            self._whole = {}
        else:
            self._respond = respond
            self._drop_invalid = Compiled(self._without_invalid, "looking for repeats", simulator.device)
            self._follow = Compiled(self._followed, "following the answers", simulator.device)

    def __call__(
        self, state: Any, past: Past, encoded: EncoderState, vector: Tensor, slate: Tensor, luck: Tensor
    ) -> KernelResult:
        """Lanes as they are, slates (B, K) of rows 0 to N, and the key of each episode's draws, int64 (B,)."""
        if self._whole is None:
            return self._moved(self._respond, state, past, encoded, vector, slate, luck)
        users = self.simulator
        respond = users.answering(state) if isinstance(users, CompiledUsers) else self._respond
        if respond not in self._whole:
            self._whole[respond] = Compiled(partial(self._moved, respond), "the step", self.simulator.device)
        moved: KernelResult = self._whole[respond](state, past, encoded, vector, slate, luck)
        return moved

    def _moved(
        self,
        respond: Respond,
        state: Any,
        past: Past,
        encoded: EncoderState,
        vector: Tensor,
        slate: Tensor,
        luck: Tensor,
    ) -> KernelResult:
        slate, invalid = self._drop_invalid(slate, past)
        state, response = respond(state, past, slate, Draw(luck).at_step(past.step))
        past, encoded, vector = self._follow(past, encoded, vector, slate, response)
        return KernelResult(slate, invalid, response, state, past, encoded, vector)

    def _without_invalid(self, slate: Tensor, past: Past) -> tuple[Tensor, Tensor]:
        """The slate with N where a place repeats an item or holds a forbidden one, and how many hold no item."""
        same = slate.unsqueeze(2) == slate.unsqueeze(1)  # (B, K, K)
        strike = torch.tril(same, diagonal=-1).any(2) | (slate == self.empty)
        if past.seen is not None:
            strike = strike | past.seen.contains(slate)
        return torch.where(strike, self.empty, slate), strike.sum(1)

    def _followed(
        self, past: Past, encoded: EncoderState, vector: Tensor, slate: Tensor, response: Response
    ) -> tuple[Past, EncoderState, Tensor]:
        """What the answers change: the past, the encoder's state, and its vector."""
        consumed = (response.signals[..., 0] > 0.5) & response.given[..., 0]  # (B, K)
        items = torch.where(consumed, slate, self.empty)
        past = remember(past, slate, items, response.signals, self.empty, fresh=True)
        if not self.encodes:
            return past, encoded, vector
        if self._looks and len(rows := consumed.any(1).nonzero()[:, 0]) < len(slate):
            if not len(rows):
                return past, encoded, vector
            moved = self.encoder.advance(encoded.rows(rows), items[rows], response.signals[rows])
            return past, encoded.put(rows, moved), vector.index_copy(0, rows, self.encoder.vector(moved))
        encoded = self.encoder.advance(encoded, items, response.signals)
        return past, encoded, self.encoder.vector(encoded)
