"""Ensembles: one member a lane, all of them following, and their disagreement."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.users.checks import check_users
from recloop.envs.users.fitted import EnsembleUsers, FitReport, fit_ensemble
from recloop.envs.users.fitted.fitting.calibration import choose, score
from recloop.envs.users.fitted.fitting.propensities import effective_sample_size, propensity_weights, randomly_shown
from recloop.envs.users.fitted.fitting.windows import WindowMaker
from recloop.envs.users.registry import load_simulator, save_simulator
from tests.envs.users.conftest import QUICK, Case, past_at_arrival, slate_log, world_of


@cache
def ensemble() -> tuple[EnsembleUsers, FitReport, Case]:
    case = slate_log(users=60)
    found = fit_ensemble(
        "recurrent",
        case.sequences,
        case.rows,
        case.vectors,
        case.profile,
        case.signals,
        members=2,
        groups=case.groups,
        config=QUICK,
    )
    return *found, case


def lanes(count: int, step: int = 0) -> Draw:
    lane = torch.arange(count)
    return Draw.at(0, lane, torch.zeros_like(lane), torch.full_like(lane, step))


def test_members_differ_and_their_disagreement_is_the_spread():
    users, report, case = ensemble()
    world = world_of(case)
    users.prepare(world, "cpu")
    rows = torch.arange(30)
    state, past, slate = users.arrive(rows, lanes(30)), past_at_arrival(world, rows), torch.tensor([[0, 4, 8]] * 30)
    found = users.expected(state, past, slate)
    each = torch.stack([m.expected(s, past, slate).mean for m, s in zip(users.members, state.states, strict=True)])
    assert torch.allclose(found.mean, each.mean(0))
    assert found.spread is not None
    assert torch.allclose(found.spread, (each[0] - each[1]).abs() / 2, atol=1e-6)
    assert found.farthest is not None
    assert torch.allclose(found.farthest, (each - each.mean(0)).abs().amax(0), atol=1e-6)
    assert float(found.spread.max()) > 0
    assert any("2 recurrent members" in sentence for sentence in report.learned)


def test_each_lane_is_answered_by_its_member():
    users, _, case = ensemble()
    world = world_of(case)
    users.prepare(world, "cpu")
    rows = torch.arange(40)
    state, past, slate = users.arrive(rows, lanes(40)), past_at_arrival(world, rows), torch.tensor([[0, 4, 8]] * 40)
    after, response = users.respond(state, past, slate, lanes(40, 1))
    assert set(state.member.tolist()) == {0, 1}
    for number, member in enumerate(users.members):
        alone = member.answer(state.states[number], past, slate, lanes(40, 1))
        mine = state.member == number
        assert torch.equal(response.signals[mine], alone.signals[mine])
        assert torch.equal(
            after.states[number].hidden, member.observe(state.states[number], slate, response.signals).hidden
        )


def test_states_are_picked_lane_by_lane():
    users, _, case = ensemble()
    users.prepare(world_of(case), "cpu")
    one, two = users.arrive(torch.arange(4), lanes(4)), users.arrive(torch.arange(4, 8), lanes(4))
    mask = torch.tensor([True, False, True, False])
    mixed = one.where(mask, two)
    assert torch.equal(mixed.states[1].hidden[0], two.states[1].hidden[0])
    assert torch.equal(mixed.states[1].hidden[1], one.states[1].hidden[1])
    both = one.concatenate([one, two])
    assert torch.equal(both.rows(torch.tensor([5])).states[0].hidden, two.rows(torch.tensor([1])).states[0].hidden)


def test_an_ensemble_keeps_its_promises_and_its_bits(tmp_path: Path):
    users, _, case = ensemble()
    world = world_of(case)
    save_simulator(users, tmp_path / "users")
    again = load_simulator(tmp_path / "users")
    assert isinstance(again, EnsembleUsers)
    for simulator in (users, again):
        simulator.prepare(world, "cpu")
    rows, slate = torch.arange(10), torch.tensor([[0, 4, 8]] * 10)
    past = past_at_arrival(world, rows)
    answers = [u.respond(u.arrive(rows, lanes(10)), past, slate, lanes(10))[1].signals for u in (users, again)]
    assert torch.equal(*answers)


def test_no_members_is_an_error():
    with pytest.raises(UserSimulatorError, match="no members"):
        EnsembleUsers([])


class TestPropensities:
    def case(self, propensity: np.ndarray) -> Case:
        case = slate_log(users=20, slates=4)
        slates = replace(case.sequences.slates, propensity=propensity.astype(np.float32))
        return replace(case, sequences=replace(case.sequences, slates=slates))

    def test_weights_are_inverse_and_clipped(self):
        propensity = np.full((80, 3), 0.5)
        propensity[0, 0] = 1e-6
        weights = propensity_weights(self.case(propensity).sequences)
        assert weights.mean() == pytest.approx(1, rel=1e-4)
        assert weights[0, 0] / weights[1, 1] == pytest.approx(10)

    def test_a_log_without_them_is_an_error(self):
        with pytest.raises(UserSimulatorError, match="no propensities"):
            propensity_weights(slate_log(users=10).sequences)

    def test_random_places_are_told_by_their_propensity(self):
        propensity = np.full((80, 3), 0.5)
        propensity[:40] = 1 / 36
        found = randomly_shown(self.case(propensity).sequences, np.arange(20))
        assert found[:40].all()
        assert not found[40:].any()

    def test_effective_sample_size(self):
        assert effective_sample_size(np.array([3.0, 1.0, 0.0])) == pytest.approx(1.6)

    @pytest.mark.parametrize("family", ["factor", "trees"])
    def test_auto_says_which_way_was_likelier(self, family):
        propensity = np.where(np.arange(80)[:, None] % 2 == 0, 1 / 36, 0.3) * np.ones((80, 3))
        case = self.case(propensity)
        config = replace(QUICK, epochs=2, propensity="auto")
        _, report = fit_ensemble(
            family,
            case.sequences,
            case.rows,
            case.vectors,
            case.profile,
            case.signals,
            members=1,
            groups=case.groups,
            config=config,
        )
        assert any("propensity weights are" in sentence for sentence in report.learned)


def test_one_choice_a_slate_is_found_by_likelihood():
    """Where every slate has one consumption, the places' scores compete; where slates have several, they do not."""
    users, _, case = ensemble()
    member = users.members[0]
    kept = member.heads.scale.clone(), member.heads.shift.clone()
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(400, 3, generator=generator)
    noise = -torch.log(-torch.log(torch.rand(400, 3, generator=generator)))
    values = torch.nn.functional.one_hot((2 * scores + noise).argmax(1), 3).float()
    held = torch.ones(400, 3, dtype=torch.bool)
    try:
        assert choose(member, (scores, scores, torch.ones(400, 3), held)) is None
        found = choose(member, (scores, scores, values, held))
        assert found is not None
        assert found[1] > found[0]
        assert bool(member.heads.one_at_most)
        slate = torch.tensor([[0, 4, 8]] * 200)
        maker = WindowMaker(case.sequences, QUICK.history, QUICK.lead, QUICK.window, member.memory.looks_back)
        figures = score(member, maker, case.rows[:20], case.vectors, case.profile, None, generator)
        chance = torch.sigmoid(figures.scores[0] * member.heads.scale[0] + member.heads.shift[0])
        assert float(chance.view(-1, 3).sum(1).max()) < 1 + 1e-5  # of three places, one is chosen at most
        drawn, _ = member.heads.sample(torch.randn(200, 3, len(case.signals), generator=generator), slate, lanes(200))
        assert float(drawn[..., 0].sum(1).max()) == 1
    finally:
        member.heads.one_at_most.fill_(False)
        member.heads.scale.copy_(kept[0])
        member.heads.shift.copy_(kept[1])


def test_the_conformance_kit_passes():
    users, _, case = ensemble()
    check_users(users, world_of(case))


def test_lanes_of_an_ensemble_are_put_as_they_are_taken() -> None:
    users, _, case = ensemble()
    users.prepare(world_of(case), "cpu")
    state, other = users.arrive(torch.arange(6), lanes(6)), users.arrive(torch.arange(6, 8), lanes(2))
    index, rest = torch.tensor([4, 1]), torch.tensor([0, 2])
    mixed = state.put(index, other)
    for taken, expected in ((mixed.rows(index), other), (mixed.rows(rest), state.rows(rest))):
        assert torch.equal(taken.member, expected.member)
        for mine, theirs in zip(taken.states, expected.states, strict=True):
            held = {name: value for name, value in vars(theirs).items() if value is not None}
            assert all(torch.equal(getattr(mine, name), value) for name, value in held.items())
