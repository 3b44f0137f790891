"""Fitted users drift as any others: an ensemble, whose members draw in lanes of their own."""

from typing import Any

import pytest
import torch

from recloop.envs.users.drifting import Drift, DriftingUsers
from recloop.envs.users.fitted import EnsembleUsers
from tests.envs.users.conftest import past_at_arrival, world_of
from tests.envs.users.test_ensemble import ensemble, lanes

COUNT = 20


def made(own: bool, drift: Drift) -> tuple[Any, Any, Any]:
    users, _, case = ensemble()
    below = users.without_spread() if own else users
    world = world_of(case)
    drifting = DriftingUsers(below, drift, day=6)
    drifting.prepare(world, "cpu")
    return below, drifting, past_at_arrival(world, torch.arange(COUNT))


@pytest.mark.parametrize("own", [False, True])
def test_without_drift_fitted_users_answer_as_before(own: bool) -> None:
    below, still, past = made(own, Drift.none())
    rows, slate, items = torch.arange(COUNT), torch.tensor([[0, 4, 8]] * COUNT), torch.arange(36)
    plain, drifting = below.arrive(rows, lanes(COUNT)), still.arrive(rows, lanes(COUNT))
    assert torch.equal(below.utility(plain, past, items), still.utility(drifting, past, items))
    for step in range(1, 4):
        plain, wanted = below.respond(plain, past, slate, lanes(COUNT, step))
        drifting, found = still.respond(drifting, past, slate, lanes(COUNT, step))
        assert torch.equal(wanted.signals, found.signals)
        assert torch.equal(wanted.left, found.left)


def test_fitted_users_drift_by_the_stated_log_odds() -> None:
    below, users, past = made(False, Drift(tastes=0.5, shared=0.5, new_items=0.0))
    assert isinstance(below, EnsembleUsers)
    rows, slate, items = torch.arange(COUNT), torch.tensor([[0, 4, 8]] * COUNT), torch.arange(36)
    state = users.arrive(rows, lanes(COUNT))
    shift = users.shift(rows, items)
    assert torch.equal(users.utility(state, past, items), below.utility(state.own, past, items) + shift)
    before, after = below.expected(state.own, past, slate).mean[..., 0], users.expected(state, past, slate).mean[..., 0]
    assert torch.allclose(torch.logit(after) - torch.logit(before), users.shift(rows, slate), atol=1e-3)
    guess = users.infer(past, torch.zeros(COUNT, 2))
    assert guess.user.unique().tolist() == [len(users.drift.joined(60))]
    unknown = users.shift(guess.user, items)
    assert torch.equal(unknown[0], unknown[1])
