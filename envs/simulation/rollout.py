"""The one place where somebody acts in a core step after step: evaluation, validation, recording and replay."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.core import Core


@dataclass(frozen=True)
class Picked:
    """What is shown to B lanes.

    Args:
        slate: int64 (B, K) item rows.
        propensity: float32 (B, K) the probability with which each item was put in its place, given the places above;
            None where it is not known.
        policy: B names of the policy that was in force, None where there is but one.
        carry: what the policy wants back at the next step.
    """

    slate: Tensor
    propensity: Tensor | None = None
    policy: npt.NDArray[np.str_] | None = None
    carry: Any = None


Act = Callable[[Core, Any], Picked]
"""Who acts: the core as it stands and the last `Picked.carry` (None at first) -> what is shown."""


Learn = Callable[[Any, Transition, Tensor], Any]
"""Who learns while acting: the last `Picked.carry`, what it led to, and which lanes count, bool (B,) -> the carry that
the next act gets."""


@dataclass(frozen=True)
class RolloutStep:
    """One step of a rollout.

    Args:
        number: 0 for the first.
        alive: bool (B,) lanes whose first episode was running before the step.
        past, state: of all lanes before the step.
        picked: what was shown.
        transition: what it led to.
    """

    number: int
    alive: Tensor
    past: Past
    state: Any
    picked: Picked
    transition: Transition


def rollout(core: Core, act: Act, limits: Tensor | None = None, learn: Learn | None = None) -> Iterator[RolloutStep]:
    """The first episode of each lane of a core, fresh after `reset`, until the last of them ends.

    Lanes that end earlier start anew meanwhile, as ever in a core: `RolloutStep.alive` tells them apart.

    Args:
        act: who acts.
        limits: int64 (B,) steps after which a lane no longer counts; None without limit.
        learn: who learns meanwhile; None where nobody does.
    """
    alive = torch.ones(core.batch, dtype=torch.bool, device=core.device)
    carry = None
    for number in range(core.max_steps):
        if limits is not None:
            alive = alive & (number < limits)
        if not bool(alive.any()):
            return
        past, state, picked, transition = _stepped(core, act, carry)
        carry = picked.carry if learn is None else learn(picked.carry, transition, alive)
        yield RolloutStep(number, alive, past, state, picked, transition)
        alive = alive & ~(transition.terminated | transition.truncated)


def steps(core: Core, act: Act) -> Iterator[tuple[Past, Any, Picked, Transition]]:
    """Steps without end: past and state before each, what was shown, and what it led to."""
    carry = None
    while True:
        past, state, picked, transition = _stepped(core, act, carry)
        carry = picked.carry
        yield past, state, picked, transition


def _stepped(core: Core, act: Act, carry: Any) -> tuple[Past, Any, Picked, Transition]:
    """One step: past and state before it, what was shown, and what it led to."""
    picked = act(core, carry)
    return core.past, core.state, picked, core.step(picked.slate)


Pick = Callable[[Observation, Any, Draw], Picked]
"""A logging policy: observation (with `action_mask`), carry (None at first) and draws -> what it shows."""

LOGGING_KEYS = (*DEFAULT_KEYS, "action_mask")
"""What a logging policy sees."""


def acting(pick: Pick) -> Act:
    """A logging policy as who acts, with the draws of the core."""
    return lambda core, carry: pick(core.observe(LOGGING_KEYS), carry, core.draw())
