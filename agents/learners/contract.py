"""What every learner of ours is: how it acts while it learns, what it keeps of a step, and what an update does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from recloop.agents.configs import AgentConfig
from recloop.agents.facts import Group, PolicyFacts, Trains
from recloop.agents.networks.features import ItemTables
from recloop.agents.policy import Policy
from recloop.agents.serving import Serving
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Response
from recloop.envs.simulation.actions import Retriever
from recloop.envs.simulation.ahead.branches import Branches
from recloop.envs.simulation.ahead.expected_step import ExpectedStep
from recloop.envs.simulation.compiling import Compiled


@dataclass(frozen=True)
class Task:
    """What a learner is made for.

    Args:
        serving: what its policy takes to act outside the world.
        tables: the items, on the device.
        spec: sizes of observations.
        lanes: B.
        seed: of the starting weights and of all noise.
        device: where everything lives.
        retriever: makes `candidates`; None for learners that do not choose among candidates.
        compile: whether to compile what pays, by `compiled`.
        branches: makes so many copies of the lanes to try slates in; see `Branches`.
    """

    serving: Serving
    tables: ItemTables
    spec: ObservationSpec
    lanes: int
    seed: int
    device: torch.device
    retriever: Retriever | None = None
    compile: bool = False
    branches: Callable[[int], Branches] | None = None

    def compiled(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        """`function`, called `what` in a warning, as generated code where that is asked for."""
        return Compiled(function, what, self.device) if self.compile else function


@dataclass(frozen=True)
class ActionSample:
    """A choice of B lanes.

    Args:
        slate: int64 (B, K) item rows, never one twice; N where nothing admissible is left.
        extra: what the learner wants back with the step, by name, leading dimension B: log-probability, value, ...
    """

    slate: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One step of B lanes.

    Args:
        seen: the observation that was acted on.
        acted: what was chosen.
        response: the answers.
        reward: float32 (B,), penalties taken off.
        terminated: bool (B,) the user left for good: nothing comes after.
        truncated: bool (B,) the time limit came first: the value of `after` is still owed.
        next_observation: the same users just after the step, before any of them was replaced by the next.
        expected: what was to be expected of the step, for learners that ask for it (`wants_expected`).
    """

    seen: Observation
    acted: ActionSample
    response: Response
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    next_observation: Observation
    expected: ExpectedStep | None = None


class Learner(PolicyFacts, ABC):
    """One algorithm, on one device, without a host synchronisation in `act` and `keep`.

    The loop calls `act` and `keep` `horizon` times, then `update`; see `recloop.agents.learners.loop`.

    Args:
        task: what it learns in.
        config: how.

    Attributes:
        name: what registry, tables and checkpoints call it.
        policy_class: of the policies that it gives.
        keys: observation keys it reads, besides `profile` where users have one and `action_mask` where this world
            masks items.
        chooses_candidates: True where it needs `task.retriever`; `seen["candidates"]` (B, C) is then there.
        values_candidates: True where `after["candidates"]` has to be there too: one more retrieval a step.
        may_hear: whether its networks can read what users say (`network.hears`).
        wants_expected: whether its steps are to hold what was expected of them.
        horizon: steps of every lane between two updates.
    """

    name: ClassVar[str]
    group: ClassVar[Group] = "rl"
    trains: ClassVar[Trains] = "loop"
    resumable: ClassVar[bool] = True
    config_class: ClassVar[type[AgentConfig]]
    policy_class: ClassVar[type[Policy]]
    keys: ClassVar[tuple[str, ...]]
    chooses_candidates: ClassVar[bool] = False
    values_candidates: ClassVar[bool] = False
    may_hear: ClassVar[bool] = False
    wants_expected: bool = False
    horizon: int

    def __init__(self, task: Task, config: AgentConfig) -> None:
        self.task, self.config = task, config

    @abstractmethod
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """Choose slates while learning, exploration included; all noise comes from `draw` (B lanes)."""

    @abstractmethod
    def keep(self, step: Step) -> None:
        """Store one step in buffers of a fixed size on the device. Tensors of the step may be reused: copy."""

    @abstractmethod
    def update(self, progress: float) -> dict[str, Tensor]:
        """Learn from what was kept.

        Args:
            progress: share of the training that is over, in [0, 1]: learning rates and exploration follow it.

        Returns:
            Scalars (0-d, on the device) by TensorBoard tag (`train/loss`, ...); `train/loss` must be there: the loop
            stops where it is not finite. Empty where it was too early to learn.
        """

    @abstractmethod
    def policy(self) -> Policy:
        """The greedy policy of the current weights, sharing them: what is validated, and saved at the end."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that training goes on from, by name: weights, target networks, optimisers, buffers, generators."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`, bit for bit."""
