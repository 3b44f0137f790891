"""Users written one at a time: pure, seeded by lane and step, and named where they break the contract."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.core import Core
from recloop.envs.truth.boredom import RATING
from recloop.envs.truth.built_in import built_in_world
from recloop.envs.truth.tastes import CLICK
from recloop.envs.users.checks import check_users
from recloop.envs.users.per_user import ObjectState, PerUserSimulator, item_luck

Answers = Mapping[str, Sequence[float | None]]


class Fickle(PerUserSimulator):
    """Likes one item in four; rates what it clicks; leaves after its third slate."""

    signals = (CLICK, RATING)

    def arrive_one(self, user_row: int, profile: np.ndarray, rng: np.random.Generator) -> Any:
        return {"likes": int(rng.integers(4)), "slates": 0, "user": user_row}

    def respond_one(self, state: Any, slate: list[int], rng: np.random.Generator) -> tuple[Any, Answers, bool]:
        seed = int(rng.integers(2**63))
        state["slates"] += 1
        clicks: list[float | None] = []
        ratings: list[float | None] = []
        for item in slate:
            held = item < self.catalogue_size
            clicked = held and item_luck(seed, item) < (0.9 if item % 4 == state["likes"] else 0.1)
            clicks.append(float(clicked) if held else None)
            ratings.append(4.0 if clicked else None)
        return state, {"click": clicks, "rating": ratings}, state["slates"] == 3


def test_it_keeps_the_contract_and_runs_in_the_core() -> None:
    world = built_in_world()
    check_users(Fickle(), world)
    core = Core(world, Fickle(), batch=6, slate_size=3, users="evaluate", seed=1)
    ends = []
    for step in range(6):
        transition = core.step(torch.arange(3).repeat(6, 1) + 3 * step)
        ends.append(int(transition.terminated.sum()))
    assert ends == [0, 0, 6, 0, 0, 6]


def test_a_lane_is_answered_alike_alone_and_among_others() -> None:
    world = built_in_world()
    users = torch.arange(5)
    cores = [Core(world, Fickle(), batch=n, slate_size=3, users="all") for n in (5, 1)]
    cores[0].reset(users=users)
    cores[1].reset(users=users[3:4], lanes=users[3:4])
    for step in range(3):
        slate = torch.arange(3).repeat(5, 1) + 5 * step
        many, one = cores[0].step(slate), cores[1].step(slate[3:4])
        assert torch.equal(many.response.signals[3:4], one.response.signals)


def test_states_passed_in_stay_as_they_were() -> None:
    users = Fickle()
    users.prepare(built_in_world(), "cpu")
    lanes = torch.arange(4)
    draw = Draw.at(0, lanes, lanes * 0, lanes * 0)
    state = users.arrive(lanes, draw)
    before = copy.deepcopy(state.objects)
    after, _ = users.respond(state, None, torch.zeros(4, 2).long(), draw)  # type: ignore[arg-type]
    assert state.objects == before
    assert [one["slates"] for one in after.objects] == [1, 1, 1, 1]


def test_lanes_restart_one_by_one() -> None:
    old, new = ObjectState(("a", "b", "c")), ObjectState(("x", "y", "z"))
    assert old.where(torch.tensor([False, True, False]), new).objects == ("a", "y", "c")
    assert old.rows(torch.tensor([2, 0])).objects == ("c", "a")


class Answering(Fickle):
    """Gives whatever answers it was made with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def respond_one(self, state: Any, slate: list[int], rng: np.random.Generator) -> tuple[Any, Answers, bool]:
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (7, r"returned int; return \(state, answers, left\)"),
        ((0, {"click": [1.0, 0.0]}, False), r"answered \['click'\]; its signals are \['click', 'rating'\]"),
        ((0, {"click": [1.0], "rating": [None]}, False), "1 values of 'click' to a slate of 2"),
        ((0, {"click": [1.0, 1.0], "rating": [None, None]}, False), "click=1.0 at the empty place 1"),
    ],
)
def test_broken_answers_are_named(answer: Any, message: str) -> None:
    users = Answering(answer)
    users.prepare(built_in_world(), "cpu")
    lanes = torch.arange(1)
    draw = Draw.at(0, lanes, lanes, lanes)
    slate = torch.tensor([[0, users.catalogue_size]])
    with pytest.raises(UserSimulatorError, match=message):
        users.respond(users.arrive(lanes, draw), None, slate, draw)  # type: ignore[arg-type]


def test_users_who_were_not_prepared_say_so() -> None:
    lanes = torch.arange(1)
    with pytest.raises(UserSimulatorError, match="Fickle is not prepared"):
        Fickle().arrive(lanes, Draw.at(0, lanes, lanes, lanes))
