"""Truth worlds: every one keeps the contract and its own laws, and the planner knows more than greedy."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents.baselines.planner import PlannerPolicy
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import PolicyError, RecloopError, UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.readers.published.kuairec import WatchTable
from recloop.envs.logs.schema import Columns
from recloop.envs.simulation.core import Core
from recloop.envs.truth import TRUTHS, matrix_world, truth_log, truth_world
from recloop.envs.truth.catalogue import truth_catalogue
from recloop.envs.truth.clickbait import ClickbaitRules, ClickbaitState, ClickbaitUsers
from recloop.envs.truth.clicks import CascadeRules, CascadeUsers, ClickRules, ClickUsers
from recloop.envs.truth.drift import DriftRules, DriftUsers
from recloop.envs.truth.matrix import MatrixRules, MatrixState, MatrixUsers
from recloop.envs.truth.retention import RetentionRules, RetentionUsers
from recloop.envs.truth.tastes import TasteState
from recloop.envs.users.checks import check_users
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator

NOTHING = Past(*[torch.zeros(1)] * 6)
PREFERENCE = torch.tensor([[0.8, 0.4]])
TOPIC = torch.tensor([0, 0, 1, 1])
EMPTY = 4
QUALITY = {"quality": torch.tensor([1.0, 0.5, 1.0, 0.25])}
LURES = {"bait": torch.tensor([1.0, 0.5, 0.2, 0.2]), "good": torch.tensor([0.1, 0.5, 0.9, 1.0])}


def draws(lanes: int) -> Draw:
    lane = torch.arange(lanes)
    return Draw.at(0, lane, torch.zeros_like(lane), torch.zeros_like(lane))


def clicked(*clicks: float) -> Tensor:
    """Signals of one slate with these clicks, and no like."""
    return torch.stack([torch.tensor([clicks]), torch.zeros(1, len(clicks))], dim=2)


@pytest.mark.parametrize("name", TRUTHS)
def test_every_truth_keeps_the_contract(name: str) -> None:
    world = truth_world(name, users=12, items=24)
    check_users(world.simulator("truth"), world)


def test_text_and_graph_tell_topic_and_quality() -> None:
    catalogue = truth_catalogue(4, 200, seed=0)
    texts, graph = catalogue.items[Columns.text], catalogue.knowledge
    assert all(name in text for name, text in zip(catalogue.items[Columns.category], texts, strict=True))
    grade, topic = graph.relation("grade"), graph.relation("topic")
    told = {(head, relation): graph.entities[tail] for head, relation, tail in graph.triples.tolist()}
    rows = graph.entity_rows(list(catalogue.items[Columns.entity])).tolist()
    assert [told[row, topic] for row in rows] == list(catalogue.items[Columns.category])
    grades = [told[row, grade] for row in rows]
    assert all(word.capitalize() in text for word, text in zip(grades, texts, strict=True))
    praised = torch.tensor([word in ("careful", "superb") for word in grades])
    assert catalogue.quality[praised].mean() > catalogue.quality[~praised].mean() + 0.1


@pytest.mark.parametrize("name", TRUTHS)
def test_draws_follow_expectations_and_observe_follows_answers(name: str) -> None:
    lanes = 12_000
    world = truth_world(name, users=12, items=24)
    users: Any = world.simulator("truth")
    state = users.arrive(torch.ones(lanes, dtype=torch.int64), draws(lanes))
    slate = torch.tensor([[7, 24, 3, 12, 21]]).expand(lanes, -1)
    after, response = users.respond(state, NOTHING, slate, draws(lanes))
    expected = users.expected(state, NOTHING, slate)
    given = response.given.sum(0)
    mean = (response.signals * response.given).sum(0) / given.clamp_min(1)
    spread = (response.signals.square().sum(0) / given.clamp_min(1) - mean.square()).clamp_min(1e-9).sqrt()
    error = 4.5 * spread / given.clamp_min(1).sqrt() + 1e-4
    seen = given > 30
    assert bool(seen[[0, 2, 3, 4], 0].all())
    assert bool(((mean - expected.mean[0]).abs() <= error)[seen].all())
    assert response.left.float().mean().item() == pytest.approx(expected.leave[0].item(), abs=0.012)
    observed = users.observe(state, slate, response.signals)
    assert all(torch.equal(getattr(observed, field), value) for field, value in vars(after).items())


@pytest.mark.parametrize("name", TRUTHS)
def test_a_truth_world_survives_the_disk(name: str, tmp_path: Path) -> None:
    world = truth_world(name, users=12, items=24)
    world.save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    assert (again.sessions, again.max_days) == (world.sessions, world.max_days)
    slate = torch.arange(5).expand(12, -1)
    for one, two in zip(_answers(world, slate), _answers(again, slate), strict=True):
        assert torch.equal(one, two)


def _answers(world: World, slate: Tensor) -> tuple[Tensor, Tensor]:
    users = world.simulator("truth")
    _, response = users.respond(users.arrive(torch.arange(12), draws(12)), NOTHING, slate, draws(12))
    return response.signals, response.left


def test_clicks_by_hand() -> None:
    users = ClickUsers(PREFERENCE, TOPIC, QUALITY, ClickRules(examine=0.5, leave=0.1, leave_empty=0.6))
    expected = users.expected(TasteState(PREFERENCE), NOTHING, torch.tensor([[0, 2, EMPTY]]))
    assert expected.mean[0, :, 0].tolist() == pytest.approx([0.8, 0.2, 0.0])
    assert expected.leave is not None
    assert expected.leave.item() == pytest.approx(0.1 + 0.5 * 0.2 * 0.8)


def test_cascade_by_hand() -> None:
    rules = CascadeRules(on_after_click=0.5, on_after_skip=0.75, leave=0.1, leave_abandoned=0.9)
    users = CascadeUsers(PREFERENCE, TOPIC, QUALITY, rules)
    expected = users.expected(TasteState(PREFERENCE), NOTHING, torch.tensor([[0, EMPTY, 2, 1]]))
    second = 0.8 * 0.5 + 0.2 * 0.75
    third = second * (0.4 * 0.5 + 0.6 * 0.75)
    assert expected.mean[0, :, 0].tolist() == pytest.approx([0.8, 0.0, second * 0.4, third * 0.4])
    abandoned = 0.2 * 0.25 + second * 0.6 * 0.25
    assert expected.leave is not None
    assert expected.leave.item() == pytest.approx(0.1 + 0.8 * abandoned)


def test_satisfaction_sinks_by_bait_and_rises_by_good() -> None:
    users = ClickbaitUsers(PREFERENCE, TOPIC, LURES, ClickbaitRules(move=0.25, floor=0.2, plain=0.5, examine=0.5))
    state = users.arrive(torch.tensor([0]), draws(1))
    slate = torch.tensor([[0, 3, 2]])
    assert users.observe(state, slate, clicked(1, 0, 0)).satisfaction.item() == pytest.approx(0.5 - 0.25 * 0.8)
    assert users.observe(state, slate, clicked(0, 1, 1)).satisfaction.item() == pytest.approx(0.5 + 0.25 * 1.8)
    assert users.observe(state, slate, clicked(0, 0, 0)).satisfaction.item() == pytest.approx(0.5)
    sour = users.expected(ClickbaitState(PREFERENCE, torch.zeros(1)), NOTHING, slate)
    assert sour.mean[0, :, 0].tolist() == pytest.approx([0.8 * 0.2, 0.5 * 0.4 * 0.6 * 0.2, 0.25 * 0.4 * 0.6 * 0.2])
    assert sour.leave is not None
    assert sour.leave.item() == pytest.approx(0.01 + 0.08)


def test_tastes_drift_towards_what_is_consumed() -> None:
    users = DriftUsers(PREFERENCE, TOPIC, QUALITY, DriftRules(grow=0.5, wither=0.25))
    state = users.arrive(torch.tensor([0]), draws(1))
    slate = torch.tensor([[0, 2, 3]])
    moved = users.observe(state, slate, clicked(0, 1, 1)).preference[0]
    assert moved.tolist() == pytest.approx([0.6, 1 - 0.6 * 0.25])
    assert torch.equal(users.observe(state, slate, clicked(0, 0, 0)).preference, PREFERENCE)


def test_good_sessions_bring_users_back_sooner() -> None:
    rules = RetentionRules(weight=0.5, filling=0.5, shortest=1.0, longest=9.0, noise=0.0)
    users = RetentionUsers(PREFERENCE, TOPIC, LURES, rules)
    state = users.arrive(torch.tensor([0]), draws(1))
    state = users.observe(state, torch.tensor([[2, 0]]), clicked(1, 1))
    state = users.observe(state, torch.tensor([[2, 0]]), clicked(0, 0))
    worth = 1 - torch.exp(torch.tensor(-(0.9 + 0.1) / 2 / 0.5)).item()
    rested = users.resume(state, torch.tensor([3.0]), draws(1))
    assert rested.mood.item() == pytest.approx(0.25 + 0.5 * worth)
    assert rested.slates.item() == 0
    _, response = users.respond(rested, NOTHING, torch.tensor([[EMPTY, EMPTY]]), draws(1))
    assert response.days_away is not None
    assert response.days_away.item() == pytest.approx(1 + 8 * (1 - 0.5 * rested.mood.item()) ** 2)


def test_retention_episodes_end_when_their_days_are_used_up() -> None:
    world = truth_world("retention", users=40, items=24)
    core = Core(world, batch=40, users="all", start="cold")
    core.reset(users=torch.arange(40))
    alive, ended = torch.ones(40, dtype=torch.bool), torch.zeros(40)
    assert world.max_days is not None
    for step in range(core.max_steps):
        before, days, session = core.state, core.days.clone(), core.session.clone()
        moved = core.step(torch.arange(5).expand(40, -1))
        away = moved.response.days_away
        assert away is not None
        over = days + away * moved.response.left > world.max_days
        assert not bool(moved.terminated.any())
        assert torch.equal(moved.truncated[alive], (over | (step + 1 == core.max_steps))[alive])
        stays = alive & ~moved.truncated
        assert torch.equal(core.session[stays], (session + moved.response.left)[stays])
        assert torch.equal(before.preference[stays], core.state.preference[stays])
        ended = ended + (alive & over)
        alive = stays
    assert ended.sum() > 10


def test_matrix_answers_from_its_table() -> None:
    table = torch.tensor([[0.5, 1.9, float("nan")], [1.5, 5.0, 0.8]])
    users = MatrixUsers.from_table(table, MatrixRules(threshold=0.7, top=2.0, noise=0.25))
    assert users.table.flatten().tolist() == pytest.approx([0.5, 1.9, 0.8, 1.5, 2.0, 0.8])
    expected = users.expected(MatrixState(torch.tensor([0])), NOTHING, torch.tensor([[0, 1, 2]]))
    grid = torch.linspace(-4, 6, 200_001, dtype=torch.float64)
    for place, mean in enumerate((0.5, 1.9, 0.8)):
        weight = torch.exp(-0.5 * ((grid - mean) / 0.25) ** 2) * (grid > 0.7)
        watched = (weight * grid.clamp(max=2.0)).sum() / weight.sum()
        assert expected.mean[0, place, 1].item() == pytest.approx(watched.item(), abs=2e-4)


def test_a_published_table_becomes_a_world_that_writes_logs() -> None:
    ratio = np.random.default_rng(0).uniform(0, 3, (20, 12)).astype(np.float32)
    ratio[0, 0] = np.nan
    users, items = tuple(f"u{i}" for i in range(20)), tuple(f"v{i}" for i in range(12))
    watched = WatchTable(users, items, ratio, ("a", "b", "") * 4, limit=5.0)
    world = matrix_world(watched, slate_size=3)
    check_users(world.simulator("truth"), world)
    assert world.catalogue.groups[:, 0].tolist() == [0, 1, 2] * 4 + [3]
    assert any("0.42%" in line for line in world.card.assumed)
    log = truth_log(world, "switching", seed=0)
    watch = log.interactions.loc[log.interactions["click"] == 1, "watch"]
    assert watch.between(0.7, 2.0).all()
    assert set(log.interactions["user"]) == set(users)


def test_where_nothing_changes_the_users_the_planner_finds_the_best_of_all_slates() -> None:
    for name in ("clicks", "cascade", "matrix"):
        world = truth_world(name, users=12, items=6, topics=3, slate_size=3)
        core = Core(world, batch=12, users="all", start="cold")
        planner = make_policy("planner", world)
        assert isinstance(planner, PlannerPolicy)
        mine = _clicks(core, planner.act_on_state(core, 3))
        slates = [torch.tensor([order]).expand(12, -1) for order in itertools.permutations(range(6), 3)]
        best = torch.stack([_clicks(core, slate) for slate in slates]).max(0).values
        assert torch.allclose(mine, best, atol=1e-6), name
        leaves = torch.stack([core.simulator.expected(core.state, core.past, slate).leave for slate in slates])
        assert torch.allclose(
            core.simulator.expected(core.state, core.past, planner.act_on_state(core, 3)).leave,
            leaves.min(0).values,
            atol=1e-6,
        ), name


def _clicks(core: Core, slate: Tensor) -> Tensor:
    expected = core.simulator.expected(core.state, core.past, slate)
    assert expected is not None
    return expected.mean[..., 0].sum(1)


@pytest.mark.parametrize("name", ["boredom", "clickbait", "retention"])
def test_greedy_on_the_truth_loses_to_planning(name: str) -> None:
    world = truth_world(name, users=220, topics=4)
    arena = Evaluator(world, "truth", episodes=220, users="all", seed=5, start="cold")
    planned = arena.run(make_policy("planner", world)).value
    greedy = arena.run(PlannerPolicy(farsighted=False)).value
    gain = planned - greedy
    assert gain.mean() >= 0.10 * greedy.mean()
    assert gain.mean() - 3 * gain.std() / len(gain) ** 0.5 > 0


def test_the_planner_says_what_it_cannot_plan_for() -> None:
    world = truth_world("clicks", users=8, items=24)
    planner = make_policy("planner", world)
    assert isinstance(planner, PlannerPolicy)
    with pytest.raises(PolicyError, match="signals alone"):
        planner.act_on_state(Core(world, batch=2, reward=WeightedReward({"click": 1.0}, leaving=-1.0)), 5)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(RecloopError, match="clicks"):
        truth_world("click")
    with pytest.raises(RecloopError, match="topics=40"):
        truth_world("clicks", topics=40)
    with pytest.raises(RecloopError, match="items=3"):
        truth_world("clicks", items=3)
    with pytest.raises(RecloopError, match="DriftRules"):
        truth_world("clicks", rules=DriftRules())
    with pytest.raises(UserSimulatorError, match=r"examine=1\.5"):
        ClickRules(examine=1.5)
    with pytest.raises(UserSimulatorError, match="good"):
        ClickbaitUsers(PREFERENCE, TOPIC, {"bait": LURES["bait"]}, ClickbaitRules())
    with pytest.raises(UserSimulatorError, match="quality must lie"):
        ClickUsers(PREFERENCE, TOPIC, {"quality": torch.zeros(4)}, ClickRules())
    with pytest.raises(UserSimulatorError, match="number them from 0"):
        ClickUsers(PREFERENCE, TOPIC + 1, QUALITY, ClickRules())
    with pytest.raises(UserSimulatorError, match="holes"):
        MatrixUsers(torch.tensor([[float("nan")]]), MatrixRules())
    with pytest.raises(UserSimulatorError, match="watch ratios"):
        MatrixUsers(torch.tensor([[3.0]]), MatrixRules())
