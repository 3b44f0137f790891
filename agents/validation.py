"""Trying a policy during training, always on the same users with the same luck."""

from functools import partial

import torch

from recloop.agents.acting import picked_by
from recloop.agents.policy import Policy
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import rollout
from recloop.envs.world.world import World

_SEED = 715_517
"""Of the validation lanes, apart from any training seed."""
_POLICY_SEED = 715_518
"""Of the policy's own draws."""


class PolicyValidation:
    """Mean return of one episode a lane in the validation simulator, or in the training one where there is no other.

    Args:
        world: users come from its `tune` part, or from `train` where that is empty.
        lanes: how many users.
        device: where they are simulated.
        slate_size: K; default the world's.
    """

    def __init__(self, world: World, lanes: int, device: str, slate_size: int | None = None) -> None:
        simulator = "validation" if "validation" in world.simulators else world.training_simulator
        self.core = Core(
            world,
            simulator,
            batch=lanes,
            slate_size=slate_size,
            users="tune" if len(world.users.rows("tune")) else "train",
            seed=_SEED,
            keys=(*DEFAULT_KEYS, "action_mask"),
            device=device,
        )

    @torch.no_grad()
    def mean_return(self, policy: Policy) -> float:
        """Sum of rewards until the lane's first episode ends, mean over lanes."""
        core = self.core
        core.reset()
        total = torch.zeros(core.batch, dtype=torch.float64, device=core.device)
        act = partial(picked_by, policy, seed=_POLICY_SEED)
        for step in rollout(core, act, learn=policy.learning):
            total += step.transition.reward * step.alive
        return float(total.mean())
