"""The contract of a user simulator: who answers a slate. Plug in your own by writing `arrive` and `respond`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recloop.encoders.lanes import Lanes
from recloop.envs.logs.schema import Signal
from recloop.envs.randomness import Draw
from recloop.envs.seen import SeenItems

if TYPE_CHECKING:
    from recloop.envs.world import World


@dataclass(frozen=True)
class State(Lanes):
    """What the simulator alone knows of its users. Subclass it: every field a tensor with leading dimension B."""


@dataclass(frozen=True)
class Past(Lanes):
    """What happened so far in each lane: all a policy may know. Kept by the core, read-only for everyone else.

    An empty place holds N, the number of items. Answers are 0 where not given.

    Args:
        history: int64 (B, H) consumed items, newest last; logged ones first, then those of the episode.
        feedback: float32 (B, H, S) their signals.
        shown: int64 (B, L, K) the last L slates, newest last.
        answers: float32 (B, L, K, S) the answers to them.
        step: int64 (B,) slates answered in this episode.
        days_away: float32 (B,) days since the last session; 0 within a session.
        seen: items this lane may not be shown again, or None in a world that consumes items twice.
    """

    history: Tensor
    feedback: Tensor
    shown: Tensor
    answers: Tensor
    step: Tensor
    days_away: Tensor
    seen: SeenItems | None = None


@dataclass(frozen=True)
class Response(Lanes):
    """A user's answer to a slate.

    Args:
        signals: float32 (B, K, S) in the order of the simulator's `signals`; 0 where not given.
        given: bool (B, K, S): where a signal exists (a rating only where the item was consumed).
        left: bool (B,): the session ends with this slate.
        days_away: float32 (B,) days until the next session, or None where the simulator does not say.
    """

    signals: Tensor
    given: Tensor
    left: Tensor
    days_away: Tensor | None = None


@dataclass(frozen=True)
class Expected:
    """What a simulator expects of a slate before drawing.

    Args:
        mean: float32 (B, K, S) expected value of each signal *where it is given*.
        spread: float32 (B, K, S) how unsure the model is of that mean, or None where it cannot say.
        farthest: float32 (B, K, S) how far the most deviant of several models is from it, or None.
        leave: float32 (B,) probability that the user leaves after this slate, or None.
    """

    mean: Tensor
    spread: Tensor | None = None
    leave: Tensor | None = None
    farthest: Tensor | None = None


class UserSimulator(ABC):
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

    def prepare(self, world: World, device: torch.device | str) -> None:
        """Do everything costly, once: arrivals become tables by user row. The default keeps the device."""
        self.device = torch.device(device)

    def following(self, spread: bool) -> UserSimulator:
        """These users as a core steps them: without `spread` nobody asks how unsure they are (`Expected.spread`), and
        they may leave undone what serves that alone. Called before `prepare`. The default: as they are.
        """
        return self

    def compiled(self) -> Respond | None:
        """`respond` as generated code, for a core that asks for it; prepared before.

        None, the default: `respond` may be compiled as a part of the step.
        """
        return None

    def answering(self, state: Any) -> Respond:
        """Who answers in this state of one lane, as a function that stays the same; the default: `respond`."""
        return self.respond

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


Respond = Callable[[Any, Past, Tensor, Draw], tuple[Any, Response]]
"""`UserSimulator.respond`, or what stands for it."""
