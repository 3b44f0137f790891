"""Trying a policy during training, always on the same users with the same luck."""

from dataclasses import dataclass
from functools import partial

import torch

from recloop.agents.acting import picked_by
from recloop.agents.policy import Policy
from recloop.envs.interaction.floors import Floor
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.interaction.reward import Outcome
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import rollout
from recloop.envs.world.world import World

_SEED = 715_517
"""Of the validation lanes, apart from any training seed."""
_POLICY_SEED = 715_518
"""Of the policy's own draws."""


@dataclass(frozen=True)
class ValidationTrial:
    """How a policy did.

    Args:
        value: mean over lanes of the sum of rewards until the lane's first episode ends.
        rank: what policies are chosen by, the larger the better: whether it keeps the floor (1 or 0; 1 without one),
            and then its value, or below a floor its measure.
        measure: of the floor; None without one.
    """

    value: float
    rank: tuple[float, float]
    measure: float | None = None


class PolicyValidation:
    """Mean return of one episode a lane in the validation simulator, or in the training one where there is no other.

    Args:
        world: users come from its `tune` part, or from `train` where that is empty.
        lanes: how many users.
        device: where they are simulated.
        slate_size: K; default the world's.
        floor: what the policy must give its users on average; None for nothing.
    """

    def __init__(
        self, world: World, lanes: int, device: str, slate_size: int | None = None, floor: Floor | None = None
    ) -> None:
        self.floor = floor
        simulator = "validation" if "validation" in world.simulators else world.training_simulator
        self.core = Core(
            world,
            simulator,
            batch=lanes,
            slate_size=slate_size,
            users="tune" if len(world.users.rows("tune")) else "train",
            seed=_SEED,
            keys=(*DEFAULT_KEYS, "action_mask", *(("instruction",) if world.instruction is not None else ())),
            device=device,
        )

    def mean_return(self, policy: Policy) -> float:
        """The value of a `trial`."""
        return self.trial(policy).value

    @torch.no_grad()
    def trial(self, policy: Policy) -> ValidationTrial:
        """One episode a lane."""
        core = self.core
        core.reset()
        total = torch.zeros(core.batch, dtype=torch.float64, device=core.device)
        given = torch.zeros(2, dtype=torch.float64, device=core.device)
        act = partial(picked_by, policy, seed=_POLICY_SEED)
        for step in rollout(core, act, learn=policy.learning):
            one = step.transition
            total += one.reward * step.alive
            if self.floor is not None:
                slate, response = one.slate, one.response
                outcome = Outcome(slate, response, one.invalid, core.encoder.item_vectors, core.world.signals)
                given += torch.stack([(part * step.alive).sum() for part in self.floor.measured(outcome)])
        value = float(total.mean())
        if self.floor is None:
            return ValidationTrial(value, (1.0, value))
        measure = float(given[0] / given[1].clamp_min(1e-9))
        kept = measure >= self.floor.least
        return ValidationTrial(value, (1.0, value) if kept else (0.0, measure), measure)
