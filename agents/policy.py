"""The contract all policies share: RL agents, supervised recommenders, a person's own class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from recloop.envs.observation import Observation
from recloop.envs.randomness import Draw

Carry = Any
"""What a policy keeps of a lane between two steps; None at the start of an episode."""


class Policy(ABC):
    """Picks slates from observations.

    Only `act` must be written. Batched, on the device of the observation.

    Attributes:
        name: what tables and TensorBoard call it.
        serving: what it takes to act outside any simulator; given by `recloop.agents.serving.Serving.of(world)`.
        privileged: True for a planner that is handed the users' true state instead of an observation; only for
            truth worlds, never a competitor.
    """

    name: str = "policy"
    privileged: ClassVar[bool] = False

    @abstractmethod
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """Pick slates: observation of B lanes -> int64 (B, k) item rows without repeats, and the next carry.

        `observation["action_mask"]` (B, N) says which items may be shown; a slate keeps to it.
        """

    def log_prob(self, observation: Observation, slate: Tensor) -> Tensor:
        """Log-probability of the slates (B, k) under this policy, (B,).

        Raises NotImplementedError for a policy without one (a deterministic one, say).
        """
        raise NotImplementedError(f"{self.name} has no log-probability")

    def update(self, step: Any) -> None:
        """Learn from one step online. Default: a policy that does not; frozen in comparisons unless asked."""

    def save(self, folder: Path) -> None:
        """Write the policy as safetensors and JSON; see `recloop.agents.serving`."""
        raise NotImplementedError
