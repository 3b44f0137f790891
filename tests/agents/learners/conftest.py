"""Learners over item space with a few steps in their replay."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from recloop.agents.learners.contract import Step, Task
from recloop.agents.learners.off_policy.proto import ProtoLearner
from recloop.agents.networks.features import FEATURE_KEYS, ItemTables, NetworkConfig
from recloop.agents.serving import Serving
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World


def _small() -> dict[str, Any]:
    return {
        "num_envs": 6,
        "buffer_size": 600,
        "learning_starts": 12,
        "batch_size": 16,
        "updates": 2,
        "actor_starts": 0,
        "network": NetworkConfig(hidden=8, slate_dim=4, layers=1),
    }


@dataclass
class Rig:
    """Six lanes of the tiny world.

    Args:
        world: of ten items, three a slate, where nothing is consumed twice.
        small: settings for a learner of any kind.
    """

    world: World
    small: dict[str, Any] = field(default_factory=_small)

    def task(self) -> Task:
        tables = ItemTables.of(self.world.state_encoder, self.world.catalogue.popularity)
        return Task(Serving.of(self.world), tables, self.world.spec(), 6, 3, torch.device("cpu"))

    def core(self) -> Core:
        return Core(self.world, batch=6, users="train", seed=1, keys=(*FEATURE_KEYS, "profile", "action_mask"))

    def filled(self, kind: type[ProtoLearner], config: Any, steps: int = 8) -> Any:
        """A learner whose replay holds some steps."""
        learner, core = kind(self.task(), config), self.core()
        for _ in range(steps):
            seen = core.observe()
            acted = learner.act(seen, Draw.at(9, core.lanes, core.episode, core.past.step))
            step = core.step(acted.slate)
            learner.keep(
                Step(seen, acted, step.response, step.reward, step.terminated, step.truncated, step.next_observation)
            )
        return learner


@pytest.fixture
def rig(tiny_world: World) -> Rig:
    return Rig(tiny_world)
