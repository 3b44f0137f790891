"""Policies in a core: the one way in which anybody lets one act there."""

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from recloop.agents.asking import check_slate
from recloop.agents.policy import Policy
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.plug_ins import source_of
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import Picked


@runtime_checkable
class ReadsState(Protocol):
    """A privileged policy: it is handed the core and reads the users' true state."""

    def act_on_state(self, core: Core, k: int) -> Tensor:
        """Slates int64 (B, k)."""


def picked_by(policy: Policy, core: Core, carry: Any, seed: int) -> Picked:
    """What a policy shows in the lanes of a core.

    Args:
        policy: acts on the core's `keys`, or on the users' state where it is privileged.
        core: as it stands.
        carry: of its last step; None at first.
        seed: of the policy's own draws, apart from the users' luck: nobody may look at the dice before choosing.
    """
    if policy.privileged:
        if not isinstance(policy, ReadsState):
            raise PolicyError(f"policy '{policy.name}' is privileged but has no act_on_state(core, k)")
        slate = policy.act_on_state(core, core.slate_size)
        call = f"{source_of(policy)}.act_on_state(core, k={core.slate_size})"
        check_slate(slate, (core.batch, core.slate_size), call)
    else:
        draw = Draw.at(seed, core.lanes, core.episode, core.past.step)
        slate, carry = policy.act_under(core.ruled, core.observe(), carry, core.slate_size, draw)
    return Picked(slate, carry=carry)


def picked_with_propensity(policy: Policy, core: Core, carry: Any, seed: int) -> Picked:
    """`picked_by` with the propensity of every place, where the policy has log-probabilities and its slate is kept."""
    picked = picked_by(policy, core, carry, seed)
    if policy.privileged or (core.ruled is not None and core.ruled.of_whole_slates):
        return picked
    return replace(picked, propensity=propensities(policy, core.observe(), picked.slate))


@torch.no_grad()
def propensities(policy: Policy, observation: Observation, slate: Tensor) -> Tensor | None:
    """The chance of each item of slates (B, K) in its place, given those above it: float32 (B, K).

    NaN for a slate that the policy never shows; None where it has no log-probability.
    """
    try:
        logs = [policy.log_prob(observation, slate[:, :places]) for places in range(1, slate.shape[1] + 1)]
    except NotImplementedError:
        return None
    total = torch.stack(logs, dim=1).double()
    given = torch.diff(total, dim=1, prepend=torch.zeros_like(total[:, :1])).exp().float()
    return given.masked_fill(~torch.isfinite(total), torch.nan)
