"""The border of plugged-in policies: their observations are their own, and who writes into one is named."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recloop.agents.baselines.popularity import PopularityPolicy
from recloop.agents.policy import Carry, Policy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

KEYS = (*DEFAULT_KEYS, "action_mask")


class Meddling(Policy):
    """Does something to its observation before it shows the first items."""

    def __init__(self, meddle: Callable[[Observation], object]) -> None:
        self.meddle = meddle

    def act(self, observation: Observation, carry: Carry, k: int, draw: object) -> tuple[Tensor, Carry]:
        self.meddle(observation)
        return torch.arange(k).expand(len(observation["history"]), k), carry


def acted(world: World, policy: Policy) -> Core:
    """A core after three steps of a policy."""
    core, carry = Core(world, batch=4, slate_size=2, keys=KEYS), None
    for _ in range(3):
        slate, carry = policy.act_under(core.ruled, core.observe(), carry, 2, core.draw())
        core.step(slate)
    return core


def _through_numpy(observation: Observation) -> None:
    for value in observation.values():
        value.numpy()[:] = 0


def _renamed(observation: Observation) -> None:
    observation["history"] = observation["history"] * 0
    del observation["profile"]


@pytest.mark.parametrize("meddle", [_through_numpy, _renamed])
def test_what_a_policy_does_to_its_observation_changes_nothing(
    tiny_world: World, meddle: Callable[[Observation], object]
) -> None:
    untouched, touched = acted(tiny_world, Meddling(lambda observation: None)), acted(tiny_world, Meddling(meddle))
    for name in ("history", "feedback", "shown", "answers"):
        assert torch.equal(getattr(touched.past, name), getattr(untouched.past, name)), name
    assert torch.equal(touched.vector, untouched.vector)
    assert torch.equal(touched.profile, untouched.profile)


@pytest.mark.parametrize("key", KEYS)
def test_a_write_is_the_fault_of_the_policy(tiny_world: World, key: str) -> None:
    policy = Meddling(lambda observation: observation[key].zero_())
    with pytest.raises(PolicyError, match=rf"Meddling\.act\(.*\) wrote into observ.*\['{key}'\]; change a clone"):
        acted(tiny_world, policy)


def test_a_write_in_inference_mode_harms_nobody(tiny_world: World) -> None:
    with torch.inference_mode():
        acted(tiny_world, Meddling(lambda observation: observation["history"].zero_()))


def test_own_policies_get_no_copies(tiny_world: World) -> None:
    seen = []

    class Watching(PopularityPolicy):
        def scores(self, observation: Observation) -> Tensor:
            seen.append(observation["history"])
            return super().scores(observation)

    policy = Watching.fit(tiny_world, None)  # type: ignore[arg-type]
    core = Core(tiny_world, batch=4, slate_size=2, keys=KEYS)
    for module, shared in (("recloop.agents.mine", True), ("mine", False)):
        Watching.__module__ = module
        observation = core.observe()
        policy.act_under(None, observation, None, 2, core.draw())
        assert (seen[-1] is observation["history"]) == shared
