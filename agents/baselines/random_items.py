"""The floor of every comparison: items by chance."""

import torch
from torch import Tensor

from recloop.agents.policy import Carry, Policy
from recloop.agents.slates import sample_slate, slate_log_prob
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw


class RandomPolicy(Policy):
    """Shows k admissible items, each equally likely, without repeats. Needs `action_mask` in the observation."""

    name = "random"
    kind = "random"
    ranks = True

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """A uniform draw without replacement; a function of `draw` and the mask."""
        mask = observation["action_mask"].bool()
        return sample_slate(torch.zeros(mask.shape, device=mask.device), mask, k, draw, "random policy"), None

    def log_prob(self, observation: Observation, slate: Tensor) -> Tensor:
        """Exact, (B,)."""
        mask = observation["action_mask"].bool()
        return slate_log_prob(torch.zeros(mask.shape, device=mask.device), mask, slate)
