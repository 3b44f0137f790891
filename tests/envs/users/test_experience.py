"""What users felt: the same along a log and in the loop, right by hand, and no group with a place of its own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.envs.users.fitted import FitConfig
from recloop.envs.users.fitted.felt.examples import examples
from recloop.envs.users.fitted.felt.users import TreeUsers
from recloop.envs.users.fitted.fitting.prepared import Prepared, prepared
from recloop.envs.users.fitted.fitting.windows import WindowMaker
from recloop.envs.users.fitted.inputs.experience import Experience
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.item_facts import CONTENT, PLACE, item_facts
from recloop.envs.users.fitted.inputs.slate_context import Recalled
from tests.envs.users.conftest import ITEMS, QUICK, Case, cold, past_at_arrival, slate_log, world_of


def told_of(case: Case, config: FitConfig = QUICK) -> Prepared:
    return prepared(case.sequences, case.rows, case.vectors, case.profile, case.signals, case.groups, config, None)


def experience(case: Case, groups: Tensor | None = None) -> Experience:
    told = told_of(case)
    of = Groups(ITEMS, told.sizes.groups)
    of.fill(case.groups if groups is None else groups)
    facts = item_facts(case.vectors, case.sequences, told.users, case.signals, 0.1)
    return Experience(case.signals, told.sizes, of, facts)


def without_trees(case: Case) -> TreeUsers:
    told = told_of(case)
    return TreeUsers(case.signals, told.sizes, told.leaving, memory=experience(case))


def walked(memory: Experience, case: Case, slates: Tensor, taken: Tensor) -> Any:
    """The state of one user after slates (T, K) of which `taken` (T, K) was taken."""
    columns = memory.columns(case.vectors)
    state = memory.blank(case.profile[:1])
    for slate, took in zip(slates, taken, strict=True):
        signals = torch.stack([took.float(), torch.zeros(len(took))], dim=-1).unsqueeze(0)
        step = memory.inputs(columns[slate].unsqueeze(0), slate.unsqueeze(0), signals, shown=True)
        state = replace(memory.advance(state, step), steps=state.steps + 1)
    return state


@pytest.fixture(scope="module")
def case() -> Case:
    return slate_log(users=30, slates=14, cut=6)


def test_inputs_along_a_log_are_those_of_the_loop(case: Case) -> None:
    """Every user is walked from the log's first slate: the fit's rows are what the loop reads at each step."""
    users = without_trees(case)
    world = world_of(cold(case), history=40, shown=5)
    users.prepare(world, "cpu")
    told, rows = told_of(case), np.arange(4)
    maker = WindowMaker(case.sequences, 40, 5, 50, True)
    columns, generator = users.memory.columns(case.vectors), torch.Generator().manual_seed(0)
    found = examples(users, columns, told.profile, maker, rows, 10**6, generator, False, None, 0)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))  # in which the windows were walked
    slates = case.sequences.slates
    assert slates is not None
    state, past = users.arrive(order, None), past_at_arrival(world, order)  # type: ignore[arg-type]
    for step in range(14):
        at = slates.offsets[order.numpy()] + step
        slate, answers = torch.from_numpy(slates.items[at]), torch.from_numpy(slates.answers[at])
        opens = step == 0 or bool((slates.session[at] != slates.session[at - 1]).all())
        state = users.resume(state, torch.zeros(4), None) if opens else state  # type: ignore[arg-type]
        felt = users.memory.felt(state)
        recalled = Recalled(past.history, past.feedback, past.shown, past.answers)
        read = users.item_inputs(felt, recalled, slate, columns[slate])
        wanted = torch.from_numpy(found.inputs[4 * step : 4 * step + 4][..., : read.shape[2]])
        assert torch.allclose(read, wanted, atol=1e-4), step
        ended = users.slate_inputs(
            felt, slate, columns[slate], answers, torch.ones_like(answers) > 0, answers[..., 0] * 0
        )
        assert ended.shape[1] == found.ended.shape[1]
        state = users.observe(state, slate, answers)
        shown = torch.cat([past.shown[:, 1:], slate.unsqueeze(1)], dim=1)
        taken = torch.where(answers[..., 0] > 0.5, slate, ITEMS)
        history = torch.stack([torch.cat([h, t[t < ITEMS]])[-40:] for h, t in zip(past.history, taken, strict=True)])
        told_of_them = torch.cat([past.answers[:, 1:], answers.unsqueeze(1)], dim=1)
        past = replace(past, shown=shown, answers=told_of_them, history=history, step=past.step + 1)


def test_windows_and_peaks_by_hand(case: Case) -> None:
    """Items 0, 3, 6 are of one group; two of them are taken, a slate later one of another group."""
    memory = experience(case)
    slates = torch.tensor([[0, 3, 1], [1, 2, 5]])
    taken = torch.tensor([[1, 1, 0], [1, 0, 0]])
    felt = memory.felt(walked(memory, case, slates, taken))
    group = felt.by_group[0, 1:]  # by taste, without the group of everything
    shown, took, before = group[:, :5], group[:, 5:10], group[:, 10:18]
    assert shown.tolist() == [[0, 2, 2, 2, 2], [1, 2, 2, 2, 2], [2, 2, 2, 2, 2]]
    assert took.tolist() == [[0, 2, 2, 2, 2], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert before[0].tolist() == [2, 0, 0, 0, 2, 0, 0, 0]  # a slate ago two were taken; further back nothing was
    peaks = felt.users["peaks over groups"][0]
    assert peaks[:5].tolist() == [2, 1, 2, 2, 2]  # of ten slates; of one, two, three and five
    assert peaks[5:7].tolist() == [1, 1]  # the second most taken, of five and of ten


def test_no_group_has_a_place_of_its_own(case: Case) -> None:
    """Numbering the groups otherwise changes no input."""
    renamed = torch.where(case.groups < 3, (case.groups + 1) % 3, case.groups)
    slates, taken = torch.tensor([[0, 3, 1], [1, 2, 5]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    found = []
    for groups in (case.groups, renamed):
        memory = experience(case, groups)
        felt = memory.felt(walked(memory, case, slates, taken))
        columns = memory.columns(case.vectors)
        blank = torch.full((1, 4), ITEMS)
        items = torch.tensor([[4, 7, 12]])
        nothing = Recalled(blank, torch.zeros(1, 4, 2), blank.unsqueeze(1), torch.zeros(1, 1, 4, 2))
        parts = memory.of_items(felt, nothing, items, columns[items], columns)
        found.append(torch.cat([*(p.flatten() for p in parts.values()), *(p.flatten() for p in felt.users.values())]))
    assert torch.allclose(found[0], found[1], atol=1e-6)


def test_the_online_taste_is_the_ridge_regression(case: Case) -> None:
    memory = experience(case)
    slates = torch.tensor([[0, 3, 1], [1, 2, 5], [7, 8, 9]])
    taken = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]])
    felt = memory.felt(walked(memory, case, slates, taken))
    rows = memory.columns(case.vectors)[slates.flatten()][:, :PLACE].double()
    rows = torch.cat([torch.ones(9, 1), rows], dim=1).double()
    prior = torch.diag(torch.tensor([5.0, *[2.0] * PLACE])).double()
    centre = torch.zeros(1 + PLACE, dtype=torch.float64)
    centre[0] = float(memory.rate)
    wanted = torch.linalg.solve(rows.T @ rows + prior, rows.T @ taken.flatten().double() + prior @ centre)
    assert torch.allclose(felt.taste[0].double(), wanted, atol=1e-5)


def test_rates_of_similar_items_by_hand(case: Case) -> None:
    """Two slates were shown, of one item each that counts: the first was taken, the second was not."""
    memory = experience(case)
    columns = memory.columns(case.vectors)
    felt = memory.felt(memory.blank(case.profile[:1]))
    shown, answers = torch.tensor([[[4, ITEMS], [9, ITEMS]]]), torch.zeros(1, 2, 2, 2)
    answers[0, 0, 0, 0] = 1
    past = Recalled(torch.tensor([[ITEMS, 4]]), torch.zeros(1, 2, 2), shown, answers)
    items = torch.tensor([[4, 9, 20]])
    found = memory.of_items(felt, past, items, columns[items], columns)["similar items"][0]
    place = columns[:, :CONTENT]
    for number, item in enumerate(items[0].tolist()):
        apart = [float((place[item] - place[other]).norm()) for other in (4, 9)]
        for w, width in enumerate(memory.widths.tolist()):
            near = [np.exp(-(d**2) / (2 * width**2)) for d in apart]
            rate = (near[0] + float(memory.rate)) / (sum(near) + 1)
            assert found[number, 6 * w : 6 * w + 6].tolist() == pytest.approx(
                [rate, rate, sum(near), near[0], near[0], near[0]], abs=1e-4
            )
        assert found[number, -3:].tolist() == pytest.approx([apart[0], apart[1], apart[0]], abs=1e-2)


def test_a_new_session_forgets_its_sums_and_nothing_else(case: Case) -> None:
    memory = experience(case)
    state = walked(memory, case, torch.tensor([[0, 3, 1]]), torch.tensor([[1, 1, 0]]))
    assert float(state.session[0, -3]) == 3  # places shown
    assert float(state.session[0, -2]) == 1  # one refused
    fresh = memory.at(state, torch.zeros(1), torch.tensor([4.0]))
    assert float(fresh.session.abs().sum()) == 0
    assert float(fresh.away) == 4
    assert torch.equal(fresh.totals, state.totals)
    assert torch.equal(memory.at(state, torch.ones(1)).session, state.session)


def test_the_cost_of_a_state_does_not_grow(case: Case) -> None:
    memory = experience(case)
    one = walked(memory, case, torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3))
    many = walked(memory, case, torch.zeros(40, 3, dtype=torch.int64), torch.zeros(40, 3))
    assert {k: v.shape for k, v in vars(one).items()} == {k: v.shape for k, v in vars(many).items()}
