"""A step of a core whose noise is taken out where users tell what they expect of a slate."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.envs.interaction.item_columns import ShownItems
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.interaction.reward_terms import expected_by_place
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.core import Core


@dataclass(frozen=True)
class ExpectedStep:
    """What a slate led to in every lane, and what was to be expected of it.

    Args:
        drawn: the step.
        reward: float32 (B,) with what places and leaving are expected to earn in place of what was drawn.
        stays: float32 (B,) chance that the user does not leave for good; 0 or 1, as drawn, where nobody knows.
    """

    drawn: Transition
    reward: Tensor
    stays: Tensor


@torch.no_grad()
def expected_step(core: Core, slate: Tensor) -> ExpectedStep:
    """Step a core by slates (B, K); `reward` and `stays` have the mean of what is drawn, and less noise.

    They are as drawn for users without `expected`, under rules, which may change a slate, and the reward is so where it
    is no plain sum of weights, and leaving where an episode has several sessions.
    """
    expected = None if core.ruled is not None else core.simulator.expected(core.state, core.past, slate)
    done = core.step(slate)
    reward, stays = done.reward, (~done.terminated).float()
    if expected is None:
        return ExpectedStep(done, reward, stays)
    weighted = core.reward if isinstance(core.reward, WeightedReward) else None
    if weighted is not None:
        shown, signals, vectors = ShownItems(done.slate, core.columns), core.world.signals, core.encoder.item_vectors
        drawn = weighted.by_place(done.response.signals * done.response.given, signals, shown)
        due = expected_by_place(weighted, done.slate, expected.mean, signals, core.columns, vectors)
        reward = reward + ((due - drawn) * (done.slate < core.empty)).sum(1)
    if expected.leave is not None and core.sessions == 1:
        stays = 1 - expected.leave
        if weighted is not None:
            reward = reward + weighted.leaving * (expected.leave - done.response.left.float())
    return ExpectedStep(done, reward, stays)
