"""An ensemble followed by the members alone who answer gives the answers of one that all members follow."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.compiling import Compiled
from recloop.envs.users.checks import check_users
from recloop.envs.users.fitted import EnsembleUsers, OwnMemberUsers
from recloop.envs.users.fitted.ensemble import EnsembleState
from tests.envs.users.conftest import past_at_arrival, world_of
from tests.envs.users.test_ensemble import ensemble, lanes


def both(count: int) -> tuple[EnsembleUsers, OwnMemberUsers, Any]:
    users, _, case = ensemble()
    own = users.without_spread()
    assert isinstance(own, OwnMemberUsers)
    world = world_of(case)
    users.prepare(world, "cpu")
    own.prepare(world, "cpu")
    return users, own, past_at_arrival(world, torch.arange(count))


@pytest.mark.parametrize("count", [1, 40])
def test_the_answers_are_those_of_the_ensemble(count: int) -> None:
    users, own, past = both(count)
    rows, slate = torch.arange(count), torch.tensor([[0, 4, 36]] * count)
    every, mine = users.arrive(rows, lanes(count)), own.arrive(rows, lanes(count))
    for step in range(1, 4):
        every, theirs = users.respond(every, past, slate, lanes(count, step))
        mine, answers = own.respond(mine, past, slate, lanes(count, step))
        assert torch.equal(answers.signals, theirs.signals)
        assert torch.equal(answers.left, theirs.left)
        every = users.resume(every, past.days_away, lanes(count, step))
        mine = own.resume(mine, past.days_away, lanes(count, step))
    assert torch.equal(mine.member, every.member)
    for number, state in enumerate(every.states):
        held = every.member == number
        for name, value in vars(state).items():
            assert value is None or torch.allclose(getattr(mine.own, name)[held], value[held], atol=1e-5), name


def test_what_is_expected_is_the_own_members_and_its_spread_is_not_known() -> None:
    users, own, past = both(12)
    rows, slate, items = torch.arange(12), torch.tensor([[0, 4, 8]] * 12), torch.arange(36)
    every, mine = users.arrive(rows, lanes(12)), own.arrive(rows, lanes(12))
    found = own.expected(mine, past, slate)
    assert found.spread is None
    assert found.leave is not None
    wanted = own.utility(mine, past, items)
    for number, member in enumerate(users.members):
        held = every.member == number
        alone = member.expected(every.states[number], past, slate)
        assert torch.equal(found.mean[held], alone.mean[held])
        assert torch.equal(found.leave[held], alone.leave[held])  # type: ignore[index]
        assert torch.equal(wanted[held], member.utility(every.states[number], past, items)[held])


def test_the_ensemble_itself_stays_as_it_was() -> None:
    users, own, past = both(5)
    state = users.arrive(torch.arange(5), lanes(5))
    assert isinstance(state, EnsembleState)
    assert len(state.states) == 2
    guess = own.infer(past, torch.zeros(5, 2))
    assert guess.member.tolist() == [0, 1, 0, 1, 0]


def test_members_of_two_sizes_all_follow() -> None:
    users, _, _ = ensemble()
    other = type(users.members[0])(users.signals, replace(users.members[0].sizes, hidden=4), None)
    mixed = EnsembleUsers([users.members[0], other])
    assert mixed.without_spread() is mixed


def test_the_conformance_kit_passes() -> None:
    users, _, case = ensemble()
    check_users(users.without_spread(), world_of(case))


@pytest.mark.slow
@pytest.mark.filterwarnings("error:compile=True")
def test_compiled_members_answer_as_plain_ones() -> None:
    """Several lanes are compiled in pieces of one size, the last of them filled up; one lane with the step."""
    _, own, past = both(10)
    rows, slate = torch.arange(10), torch.tensor([[0, 4, 8]] * 10)
    compiled = own.compiled()
    assert compiled is not None
    start = own.arrive(rows, lanes(10))
    plain, state = start, start
    for step in range(1, 4):
        plain, theirs = own.respond(plain, past, slate, lanes(10, step))
        state, mine = compiled(state, past, slate, lanes(10, step))
        torch.testing.assert_close(mine.signals, theirs.signals, atol=1e-5, rtol=0)
        assert torch.equal(mine.left, theirs.left)
    for name, value in vars(plain.own).items():
        assert value is None or torch.allclose(getattr(state.own, name), value, atol=1e-5), name
    for lane in range(3):
        one = torch.tensor([lane])
        alone = Compiled(own.answering(start.rows(one)), "one lane", torch.device("cpu"))
        _, mine = alone(start.rows(one), past.rows(one), slate[:1], Draw(lanes(10).key[one]))
        expected = own.respond(start, past, slate, lanes(10))[1].signals[one]
        torch.testing.assert_close(mine.signals, expected, atol=1e-5, rtol=0)
