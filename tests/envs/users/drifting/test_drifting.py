"""Drifting users: nothing moves at strength 0, the shift is the stated one, and who cannot drift is told so."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, UserSimulatorError
from recloop.envs import check_users
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.simulation.core import Core
from recloop.envs.truth import truth_world
from recloop.envs.truth.clicks import ClickUsers
from recloop.envs.users.drifting import Drift, DriftingUsers
from recloop.envs.users.drifting.drift import directions
from recloop.envs.world.world import World

USERS, ITEMS = 40, 30


@pytest.fixture(scope="module")
def world() -> World:
    return truth_world("clicks", users=USERS, items=ITEMS, seed=3)


def played(world: World, simulator: Any, steps: int = 5) -> list[tuple[Tensor, Tensor]]:
    core = Core(world, simulator, batch=USERS, users="all", seed=1)
    core.reset(users=torch.arange(USERS))
    found = []
    for step in range(steps):
        slate = (torch.arange(USERS).unsqueeze(1) * 3 + torch.arange(5) + step) % ITEMS
        transition = core.step(slate)
        found.append((transition.response.signals, transition.response.left))
    return found


@pytest.mark.parametrize("name", ["clicks", "cascade", "boredom", "clickbait", "drift", "retention"])
@pytest.mark.parametrize("drift", [Drift.none(), Drift(jump=2.0).scaled(0.0)])
def test_without_drift_every_answer_is_what_it_was(name: str, drift: Drift) -> None:
    world = truth_world(name, users=USERS, items=ITEMS)
    truth = world.simulator("truth")
    still = DriftingUsers(truth, drift, day=17)
    for (signals, left), (same, gone) in zip(played(world, truth), played(world, still), strict=True):
        assert torch.equal(signals, same)
        assert torch.equal(left, gone)
    assert not drift
    assert still.present(world).tolist() == list(range(USERS))
    assert still.rules(world) == world.rules


@pytest.mark.parametrize("name", ["clicks", "boredom", "retention"])
def test_drifting_users_keep_the_contract(name: str) -> None:
    world = truth_world(name, users=USERS, items=ITEMS)
    check_users(DriftingUsers(world.simulator("truth"), Drift(jump=1.0), day=21), world)


def test_the_shift_is_the_stated_one(world: World) -> None:
    """By hand: walks added up day by day, the item's direction, its curve, and a planted shift of another size."""
    drift = Drift(tastes=0.4, shared=0.3, jump=1.0, jump_every=2, height=0.8, new_items=0.0, seed=5)
    users = DriftingUsers(world.simulator("truth"), drift, day=3)
    users.prepare(world, "cpu")
    steps = [drift.step(day, USERS, world.item_vectors.shape[1]) for day in (1, 2, 3)]
    walk = sum(own + shared for own, shared in steps)
    by_hand = walk @ directions(world.item_vectors)[:-1].T + drift.lift(3, ITEMS)
    rows, items = torch.arange(USERS), torch.arange(ITEMS)
    assert torch.allclose(users.shift(rows, items), by_hand, atol=1e-5)
    assert torch.allclose(users.shift(rows, items.expand(USERS, -1)), by_hand, atol=1e-5)
    assert users.shift(rows, torch.full((USERS, 1), ITEMS)).abs().max() == 0

    zeros = torch.zeros_like(rows)
    draw = Draw.at(0, rows, zeros, zeros)
    state, slate = users.arrive(rows, draw), torch.arange(5).expand(USERS, -1)
    before = users.users.expected(state.own, past_of(world), slate)
    after = users.expected(state, past_of(world), slate)
    assert before is not None
    assert after is not None
    moved = torch.logit(after.mean[..., 0].double()) - torch.logit(before.mean[..., 0].double())
    assert torch.allclose(moved.float(), by_hand[:, :5], atol=1e-3)
    assert not torch.allclose(moved.float(), by_hand[:, :5] * 1.1, atol=1e-3)
    taken = torch.stack([users.respond(state, past_of(world), slate, draw_of(n))[1].signals for n in range(500)])
    error = (taken.mean(0)[..., 0] - after.mean[..., 0]).abs()
    assert error.max() < 5 * 0.5 / 500**0.5


def past_of(world: World) -> Past:
    table, zeros = world.users, torch.zeros(USERS, dtype=torch.int64)
    return Past(table.history, table.feedback, table.shown, table.answers, zeros, zeros.float())


def draw_of(step: int) -> Draw:
    rows = torch.arange(USERS)
    return Draw.at(9, rows, torch.zeros_like(rows), torch.full_like(rows, step))


def test_shifts_add_up_with_one_from_above(world: World) -> None:
    users = DriftingUsers(world.simulator("truth"), Drift(new_items=0.0), day=4)
    users.prepare(world, "cpu")
    rows, slate = torch.arange(USERS), torch.arange(5).expand(USERS, -1)
    draw = draw_of(0)
    state = users.arrive(rows, draw)
    opposite = draw.shifted(-users.shift(rows, slate), "click")
    found = users.respond(state, past_of(world), slate, opposite)[1]
    plain = users.users.respond(state.own, past_of(world), slate, draw)[1]
    assert torch.equal(found.signals, plain.signals)


def test_days_are_the_same_however_one_comes_there(world: World) -> None:
    start = DriftingUsers(world.simulator("truth"), Drift(jump=1.0, jump_every=3))
    step_by_step = start
    for day in range(8):
        step_by_step = step_by_step.at_day(day)
        step_by_step.prepare(world, "cpu")
    at_once = start.at_day(7)
    at_once.prepare(world, "cpu")
    back = step_by_step.at_day(2)
    back.prepare(world, "cpu")
    rows, items = torch.arange(USERS), torch.arange(ITEMS)
    assert torch.equal(step_by_step.shift(rows, items), at_once.shift(rows, items))
    assert not torch.equal(back.shift(rows, items), at_once.shift(rows, items))
    assert start.day == 0


def test_what_is_not_released_is_shown_and_taken_by_nobody(world: World) -> None:
    drift = Drift(new_items=0.5, new_users=0.5, days=10)
    users = DriftingUsers(world.simulator("truth"), drift, day=1)
    late = (drift.released(ITEMS) > 1).nonzero()[:, 0]
    assert len(late) == round(0.5 * ITEMS) - int((drift.released(ITEMS) == 1).sum())
    users.prepare(world, "cpu")
    rows = torch.arange(USERS)
    slate = late[:5].expand(USERS, -1)
    state = users.arrive(rows, draw_of(0))
    assert users.respond(state, past_of(world), slate, draw_of(0))[1].signals.sum() == 0
    assert users.utility(state, past_of(world), late).abs().sum() == 0  # type: ignore[union-attr]
    core = Core(world, users, batch=4, rules=users.rules(world))
    assert not core.action_mask()[:, late].any()
    assert core.step(slate[:4]).mended.sum() == 20  # type: ignore[union-attr]
    assert len(users.present(world)) < len(users.at_day(10).present(world)) == USERS
    assert users.at_day(10).rules(world) == world.rules


def test_items_rise_and_fade() -> None:
    drift = Drift(height=2.0, rise=4.0, new_items=0.5, days=10)
    released = drift.released(ITEMS)
    lifts = torch.stack([drift.lift(day, ITEMS) for day in range(10, 60)])
    item = int(released.argmax())
    course = lifts[:, item]
    assert released[item] == 10
    assert course[0] == -2.0
    assert 2 <= int(course.argmax()) <= 6
    assert course.max() > 1.8
    assert course[-1] < -1.9


class Deaf(ClickUsers):
    """Planted fault: they take the first item whatever its odds."""

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        state, response = super().respond(state, past, slate, draw)
        signals = torch.zeros_like(response.signals)
        signals[:, 0] = 1.0
        return state, replace(response, signals=signals)


def test_users_who_do_not_draw_by_item_are_refused(world: World) -> None:
    matrix = truth_world("matrix", users=USERS, items=ITEMS)
    with pytest.raises(UserSimulatorError, match=r"MatrixUsers cannot drift: .* it does not draw by item"):
        DriftingUsers(matrix.simulator("truth"), Drift()).prepare(matrix, "cpu")
    truth = world.simulator("truth")
    assert isinstance(truth, ClickUsers)
    deaf = Deaf(truth.preference, truth.topic, truth.traits, truth.rules)
    with pytest.raises(UserSimulatorError, match="Deaf cannot drift"):
        DriftingUsers(deaf, Drift()).prepare(world, "cpu")
    DriftingUsers(deaf, Drift.none()).prepare(world, "cpu")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Drift(tastes=-1), "drift tastes=-1; it must be finite and at least 0"),
        (lambda: Drift(new_items=1.0), "drift new_items=1.0 leaves nothing on day 0"),
        (lambda: Drift(days=0), "drift days=0; give 1 or more days"),
        (lambda: Drift(rise=0), "drift rise=0; give a number of days above 0"),
        (lambda: Drift().scaled(float("nan")), "drift strength=nan"),
        (lambda: Drift(height=100.0, new_items=0.0, rise=1.0).lift(80, 10), "on day 80 the drift leaves none of 10"),
        (lambda: Drift(new_items=0.99).lift(0, 1), "on day 0 the drift leaves none of 1 items to take: 0 are released"),
    ],
)
def test_bad_drifts_are_refused_in_a_line(made: Any, said: str) -> None:
    with pytest.raises(RecloopError, match=said) as told:
        made()
    assert "\n" not in str(told.value)


def test_a_day_before_the_first_is_refused(world: World) -> None:
    with pytest.raises(UserSimulatorError, match="day=-1; a drift begins on day 0"):
        DriftingUsers(world.simulator("truth"), Drift()).at_day(-1)
