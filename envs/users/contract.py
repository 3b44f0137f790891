"""The contract of a user simulator: who answers a slate. Plug in your own by writing `arrive` and `respond`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recloop.encoders.base.described import Described
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response
from recloop.envs.logs.schema import Signal

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData


class UserSimulator(Described, ABC):
    """Simulated users, batched, on `self.device`.

    Pure at the contract: what comes back depends on the arguments alone, nothing passed in is changed. Draw all
    randomness from `draw`, by purpose and item, so that two policies showing one item to one lane get one answer.
    Only `arrive` and `respond` must be written.

    Attributes:
        signals: what an answer carries; `signals[0]` is the binary consumption.
        device: where its tensors live; set by `prepare`.
    """

    signals: tuple[Signal, ...]
    device: torch.device = torch.device("cpu")

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Do everything costly, once: arrivals become tables by user row. The default keeps the device."""
        self.device = torch.device(device)

    @abstractmethod
    def arrive(self, users: Tensor, draw: Draw) -> Any:
        """The state of users at the start of an episode: rows of the users table (B,) -> State. A gather."""

    @abstractmethod
    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """Answer a slate: int64 (B, K) item rows -> the next State and a `Response`.

        A place holding N is empty (a repeated or forbidden item was struck from it) and must get no answer.
        """

    def resume(self, state: Any, days_away: Tensor, draw: Draw) -> Any:
        """The same users at their next session, `days_away` (B,) later. Default: unchanged."""
        return state

    def infer(self, past: Past, profile: Tensor) -> Any:
        """The best guess of the state from what a policy may know: `past` and profile (B, p) -> State.

        Raises NotImplementedError where a simulator cannot guess; policies that plan on a user model need it.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot infer a state from the past; write `infer`")

    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected | None:
        """Mean and spread of each signal for a slate (B, K), before drawing; None where not known."""
        return None

    def utility(self, state: Any, past: Past, items: Tensor) -> Tensor | None:
        """How much each user wants each item, without position effects: items (B, C) or (C,) -> (B, C), or None."""
        return None

    def says(self, state: Any) -> Tensor | None:
        """What users in these states say they want, float32 (B, u), for `observation["instruction"]`; None where they
        do not speak: then it is what the users table holds, or what an episode was started with."""
        return None

    def meant(self, state: Any) -> list[str]:
        """What users in these states want, in words, for `info`; blank where they want nothing or do not tell."""
        return []
