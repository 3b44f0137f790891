"""What passes between a policy and a user: the past, the hidden state, a response, and what is expected of one."""

from dataclasses import dataclass

from torch import Tensor

from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.seen import SeenItems


@dataclass(frozen=True)
class State(TensorStruct):
    """What the simulator alone knows of its users. Subclass it: every field a tensor with leading dimension B."""


@dataclass(frozen=True)
class Past(TensorStruct):
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
class Response(TensorStruct):
    """A user's answer to a slate.

    Args:
        signals: float32 (B, K, S) in the order of the simulator's `signals`; 0 where not given.
        given: bool (B, K, S): where a signal exists (a rating only where the item was consumed).
        left: bool (B,): the session ends with this slate.
        days_away: float32 (B,) days until the next session, or None where the simulator does not say.
        rating: float32 (B,) what the user thinks of the slate as a whole, 1 to 5, 0 where it is not rated; None where
            these users rate none.
    """

    signals: Tensor
    given: Tensor
    left: Tensor
    days_away: Tensor | None = None
    rating: Tensor | None = None


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
