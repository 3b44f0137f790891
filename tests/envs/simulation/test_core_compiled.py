"""A compiled step gives what the plain one gives, in every world of a process."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

ITEMS, K, STEPS, LANES = 40, 4, 12, 1


@pytest.mark.slow
@pytest.mark.filterwarnings("error:compile=True")
def test_a_compiled_step_is_the_plain_one_in_each_world(world_maker: Callable[..., World]) -> None:
    """The second world has equal shapes and other users: nothing of the first may be left in the code."""
    draw = torch.Generator().manual_seed(0)
    slates = torch.randint(ITEMS, (STEPS, LANES, K), generator=draw)
    for leave in (0.01, 0.4):
        plain, compiled = (
            Core(world_maker(leave=leave), batch=LANES, seed=2, compile=compile) for compile in (False, True)
        )
        for slate in slates:
            _assert_alike(plain, compiled, slate)


def _assert_alike(plain: Core, compiled: Core, slate: Tensor) -> None:
    first, second = plain.step(slate), compiled.step(slate)
    assert torch.equal(first.response.signals, second.response.signals)
    assert torch.equal(first.terminated, second.terminated)
    assert torch.equal(first.slate, second.slate)
    for key, value in first.next_observation.items():
        torch.testing.assert_close(second.next_observation[key], value, atol=1e-5, rtol=1e-5, msg=key)
