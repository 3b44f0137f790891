"""Sequence models fitted on: they go on from where they stand, keep what is anchored, and leave the first as it was."""

import copy
import math
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from recloop.agents import FitOptions, make_policy
from recloop.agents.sequence.policy import SASRecPolicy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.logs.sequences import Sequences
from recloop.envs.truth import truth_world
from recloop.envs.world.world import World

ITEMS = 12
SETTINGS = {"dim": 16, "batch_items": 64, "dropout": 0.0, "learning_rate": 0.02, "held_out": 0.0}


def circle(first: int, step: int) -> World:
    """Forty users go round six items from `first` on."""
    world = truth_world("clicks", users=40, items=ITEMS)
    world = replace(world, users=replace(world.users, part=torch.zeros(40, dtype=torch.int64)))
    items = np.concatenate([first + (np.arange(8) * step + user) % 6 for user in range(40)])
    ones = np.ones((len(items), 1), dtype=np.float32)
    return replace(world, sequences=Sequences(ITEMS, np.arange(41) * 8, items, ones, ones > 0))


OLD, NEW = circle(0, 1), circle(6, 1)


def right(policy: SASRecPolicy, first: int) -> float:
    """Share of a circle's next items that are ranked first."""
    history = torch.tensor([[first + place, first + (place + 1) % 6] for place in range(6)])
    wanted = first + (torch.arange(6) + 2) % 6
    with torch.no_grad():
        return float((policy.model.scores(history).argmax(1) == wanted).float().mean())


def distance(one: SASRecPolicy, other: SASRecPolicy) -> float:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return sum(float((a - b).detach().square().sum()) for a, b in pairs)


@pytest.fixture(scope="module")
def first() -> SASRecPolicy:
    policy = cast(SASRecPolicy, make_policy("gru4rec", OLD, FitOptions(steps=40, settings=SETTINGS)))
    assert right(policy, 0) == 1.0
    return policy


def test_it_learns_the_new_and_the_first_stays(first: SASRecPolicy) -> None:
    before = copy.deepcopy(first.model.state_dict())
    later = first.continued(NEW, FitOptions(steps=40))
    assert right(later, 6) == 1.0
    assert all(torch.equal(before[name], value) for name, value in first.model.state_dict().items())
    assert later.name == first.name
    assert later.serving is not None
    again = first.continued(NEW, FitOptions(steps=40))
    assert distance(later, again) == 0.0


def test_anchored_weights_stay(first: SASRecPolicy) -> None:
    free = first.continued(NEW, FitOptions(steps=10))
    held = first.continued(NEW, FitOptions(steps=10), first.anchored(OLD, 1e4))
    still = first.continued(NEW, FitOptions(steps=10), first.anchored(OLD, math.inf))
    assert distance(first, still) == 0.0
    assert right(held, 0) >= right(free, 0)
    anchor = first.anchored(OLD, 1.0)
    moved = {
        name: float(anchor.penalty(policy.model).detach()) for name, policy in {"free": free, "held": held}.items()
    }
    assert moved["held"] < 0.2 * moved["free"]


def test_what_cannot_go_on_is_refused(first: SASRecPolicy) -> None:
    larger = truth_world("clicks", users=40, items=ITEMS + 6)
    with pytest.raises(PolicyError, match="gru4rec was trained on 12 items, the log has 18; fit it anew"):
        first.continued(replace(larger, sequences=replace(OLD.sequences, catalogue_size=18)), FitOptions())
    with pytest.raises(PolicyError, match="the train users consumed nothing"):
        first.continued(replace(OLD, sequences=Sequences.empty(40, ITEMS, 1)), FitOptions())
    ease = make_policy("ease", OLD)
    with pytest.raises(PolicyError, match="policy 'ease' cannot be fitted on"):
        ease.continued(OLD, FitOptions())
    with pytest.raises(PolicyError, match="policy 'ease' does not say which weights matter"):
        ease.anchored(OLD, 1.0)
