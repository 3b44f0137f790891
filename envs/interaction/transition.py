"""What a step of a core led to."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.response import Response


@dataclass(frozen=True)
class Transition:
    """One step of B lanes.

    Args:
        slate: int64 (B, K) what was shown; N where a place is invalid.
        invalid: int64 (B,) places without an item: repeated or forbidden, or left empty by the action.
        response: the answers.
        reward: float32 (B,).
        terminated: bool (B,) the user left for good.
        truncated: bool (B,) the time limit came first.
        next_observation: the observation of every lane just after the step, before any of them started anew.
        mended: int64 (B,) places that got another item because the action's broke a rule; None without rules.
    """

    slate: Tensor
    invalid: Tensor
    response: Response
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    next_observation: Observation
    mended: Tensor | None = None

    @cached_property
    def finished(self) -> Tensor:
        """int64 (F,) the lanes that ended, rising; asking waits for the device."""
        return (self.terminated | self.truncated).nonzero()[:, 0]

    @cached_property
    def final(self) -> Observation | None:
        """The last observation of the lanes that ended, leading dimension F; None where no lane ended."""
        if len(self.finished) == 0:
            return None
        return {key: value.index_select(0, self.finished) for key, value in self.next_observation.items()}
