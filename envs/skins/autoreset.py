"""Lanes that wait at the end of an episode: what Gymnasium's autoreset modes other than SAME_STEP ask for."""

from dataclasses import replace
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.driver import AgentStep, Driver


def autoreset_mode_of(mode: AutoresetMode | str) -> AutoresetMode:
    """A mode by itself, its name or its value; `RecloopError` suggests the nearest.

    >>> autoreset_mode_of("NEXT_STEP"), autoreset_mode_of("SameStep")
    (<AutoresetMode.NEXT_STEP: 'NextStep'>, <AutoresetMode.SAME_STEP: 'SameStep'>)
    """
    known = {name: found for found in AutoresetMode for name in (found.name, found.value)}
    if isinstance(mode, AutoresetMode):
        return mode
    if mode not in known:
        raise RecloopError(unknown_name("autoreset_mode", str(mode), [found.name for found in AutoresetMode]))
    return known[mode]


class WaitingDriver(Driver):
    """A driver whose finished lanes show their last observation, and only later the first of their next episode.

    The core starts the next episode in the step that ends one. Lanes that wait stand there already, and stay there
    through a step of the others.

    Attributes:
        waiting: bool (B,) lanes whose episode is over and whose next one was not shown yet.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.codec.one_at_a_time:
            raise RecloopError("one_at_a_time=True goes with autoreset_mode=SAME_STEP alone; leave one of the two out")
        self.waiting = torch.zeros_like(self.core.lanes, dtype=torch.bool)
        self._handed_out = super().observation

    @property
    def observation(self) -> Observation:
        """What the agents see now; in lanes that wait, what they saw last."""
        seen = super().observation
        if not bool(self.waiting.any()):
            return seen
        return {key: torch.where(_beside(self.waiting, new), self._handed_out[key], new) for key, new in seen.items()}

    def step(self, action: Tensor) -> AgentStep:
        """Act in every lane but those that wait: these ignore their action, and show how their next episode starts."""
        held = self.waiting
        before = self.core.snapshot() if bool(held.any()) else None
        if before is not None and len(action) == self.core.batch:
            action = action.to(self.core.device)
            action = torch.where(_beside(held, action), torch.zeros_like(action), action)
        self.waiting = torch.zeros_like(held)
        done = super().step(action)
        if before is not None and done.transition is not None:
            done = self._without(done, done.transition, held, before)
        if done.final is not None:
            self._handed_out = dict(done.observation)
            for key, value in done.final.items():
                self._handed_out[key] = self._handed_out[key].index_copy(0, done.finished, value)
            self.waiting = self.waiting.index_fill(0, done.finished, True)
        self.last = replace(done, observation=self.observation)
        return self.last

    def restart_lanes(self, where: Tensor) -> Observation:
        """Start the next episode of the lanes `where`, bool (B,); who does not wait breaks off their own."""
        self.core.next_episode(where & ~self.waiting)
        self._handed_out = self.observation
        self.waiting = self.waiting & ~where
        self._seen = None
        self.returns, self.lengths = self.returns * ~where, self.lengths * ~where
        return self.observation

    def _begin(self) -> Observation:
        self.waiting = torch.zeros_like(self.core.lanes, dtype=torch.bool)
        return super()._begin()

    def _without(self, done: AgentStep, step: Transition, held: Tensor, before: dict[str, Any]) -> AgentStep:
        """The step as if the lanes `held` had not taken it."""
        self.core.put_back(held, before)
        self._seen = None
        self.returns, self.lengths = self.returns * ~held, self.lengths * ~held
        step = replace(
            step,
            slate=torch.where(_beside(held, step.slate), self.core.empty, step.slate),
            invalid=step.invalid * ~held,
            response=step.response.where(held, _no_answer(step.response)),
            reward=step.reward * ~held,
            terminated=step.terminated & ~held,
            truncated=step.truncated & ~held,
        )
        final = None if step.final is None else self._seen_by_agent(self._completed(step.final))
        return replace(
            done,
            observation=self._seen_by_agent(self._full),
            reward=step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            finished=step.finished,
            final=final,
            transition=step,
            returns=done.returns * ~held,
            lengths=done.lengths * ~held,
        )


def _no_answer(response: Response) -> Response:
    return replace(response, **{name: torch.zeros_like(value) for name, value in response.held().items()})


def _beside(lanes: Tensor, value: Tensor) -> Tensor:
    """A mask (B,) in the shape of what is masked, (B, 1, ...)."""
    return lanes.view(-1, *[1] * (value.dim() - 1))
