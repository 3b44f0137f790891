"""Copies of lanes, and steps in expectation."""

from dataclasses import replace

import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.rules import Rules
from recloop.envs.simulation.ahead.branches import Branches
from recloop.envs.simulation.ahead.expected_step import expected_step
from recloop.envs.simulation.core import Core
from recloop.envs.truth.built_in import built_in_world


@pytest.mark.parametrize("native", [True, False])
def test_branches_stand_where_their_lanes_stand_under_one_other_luck(native: bool) -> None:
    core = Core(built_in_world(), batch=4, seed=0, native=native)
    slates = torch.arange(20).view(4, 5)
    core.step(slates)
    before, seen = core.observe(), core.past.step.clone()
    rows = torch.tensor([2, 2, 0, 0, 1, 3])
    branches = Branches(core, 6, seed=9)
    branches.stand(rows)
    there = branches.core.observe()
    for key, value in before.items():
        torch.testing.assert_close(there[key], value[rows])
    torch.testing.assert_close(branches.core.users, core.users[rows])
    step = branches.core.step(torch.arange(30, 35).expand(6, -1))
    signals = step.response.signals[..., 0]
    assert torch.equal(signals[0], signals[1])
    assert torch.equal(signals[2], signals[3])
    assert torch.equal(core.past.step, seen), "the core itself stands still"
    own = core.step(torch.arange(30, 35).expand(4, -1)).response.signals[..., 0]
    assert not torch.equal(signals, own[rows]), "a branch does not know the dice of its lane"


def test_a_stock_that_lanes_share_cannot_be_branched() -> None:
    world = built_in_world()
    core = Core(world, batch=2, rules=Rules(stock={str(world.catalogue.ids[0]): 3}))
    with pytest.raises(RecloopError, match="stock"):
        Branches(core, 4, seed=1)


def test_what_is_expected_of_a_step_has_the_mean_of_what_is_drawn_and_less_noise() -> None:
    world = replace(built_in_world(), reward=replace(built_in_world().reward, leaving=-2.0))
    core = Core(world, batch=8192, seed=3)
    step = expected_step(core, torch.arange(5).expand(8192, -1))
    drawn, due = step.drawn.reward, step.reward
    error = float((drawn - due).std()) / 8192**0.5
    assert float(drawn.mean()) == pytest.approx(float(due.mean()), abs=4 * error)
    left = step.drawn.terminated.float()
    assert float(left.mean()) == pytest.approx(float((1 - step.stays).mean()), abs=4 * float(left.std()) / 8192**0.5)
    assert float(due.var()) < 0.5 * float(drawn.var())
    assert float(step.stays.min()) > 0
    assert float(step.stays.max()) < 1
