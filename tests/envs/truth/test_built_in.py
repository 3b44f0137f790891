"""The built-in truth world: its log, its propensities, its planner."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.agents.baselines.planner import PlannerPolicy
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns, SessionEnd, Times
from recloop.envs.simulation.core import Core
from recloop.envs.truth.boredom import BoredomUsers
from recloop.envs.truth.built_in import SoftFocus, TopicWorldConfig, built_in_world, write_log
from recloop.envs.truth.topics_catalogue import topic_catalogue
from recloop.envs.world.world import World


@pytest.fixture(scope="module")
def world() -> World:
    return built_in_world()


def truth_of(world: World) -> BoredomUsers:
    users = world.simulator("truth")
    assert isinstance(users, BoredomUsers)
    return users


def test_the_world_survives_the_disk(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "w")
    again = World.load(tmp_path / "w")
    assert again.fingerprint == world.fingerprint
    assert again.is_truth
    assert again.training_simulator == "truth"
    a, b = (Core(w, batch=8, seed=3) for w in (world, again))
    slate = torch.arange(5).expand(8, -1)
    assert torch.equal(a.step(slate).response.signals, b.step(slate).response.signals)


def test_text_and_graph_tell_topic_and_quality() -> None:
    catalogue = topic_catalogue(4, 50, seed=0)
    texts = catalogue.items[Columns.text]
    assert all(catalogue.topics[t] in text for t, text in zip(catalogue.topic.tolist(), texts, strict=True))
    praised = torch.tensor(["award-winning" in text or "superb" in text for text in texts])
    assert catalogue.quality[praised].min() > catalogue.quality[~praised].mean()
    maker = {h: t for h, r, t in catalogue.knowledge.triples.tolist() if catalogue.knowledge.relations[r] == "maker"}
    by_maker: dict[int, list[float]] = {}
    for clip, quality in zip(catalogue.items[Columns.entity], catalogue.quality.tolist(), strict=True):
        by_maker.setdefault(maker[catalogue.knowledge.entities.index(clip)], []).append(quality)
    between = np.var([np.mean(values) for values in by_maker.values()])
    assert between > 0.2 * catalogue.quality.var().item()
    with pytest.raises(RecloopError, match="topics=9"):
        topic_catalogue(9, 5, seed=0)


def test_the_log_keeps_what_happened(world: World) -> None:
    config = TopicWorldConfig(sessions=2, logged_slates=6)
    log = write_log(world, SoftFocus(truth_of(world)), config)
    rows = log.interactions
    assert log.times is Times.behavioural
    assert rows[Columns.propensity].between(0, 1, inclusive="neither").all()
    assert (rows.groupby([Columns.user, Columns.slate]).size() == 5).all()
    slates = rows.groupby(Columns.user)[Columns.slate].nunique()
    ends = rows.drop_duplicates([Columns.user, Columns.session]).set_index(Columns.user)
    cut = ends.index[ends[Columns.session_end] == SessionEnd.cut.value]
    assert 0 < len(cut) < len(slates)
    assert (slates[cut] == 6).all()  # only the time limit cuts
    assert (
        rows[rows[Columns.session_end] == SessionEnd.left.value].groupby(Columns.user)[Columns.session].max() < 2
    ).all()
    sequences, _, _ = compile_sequences(log)
    assert sequences.slates is not None
    assert int((sequences.slates.left == 1).sum()) == int((ends[Columns.session_end] == SessionEnd.left.value).sum())
    assert len(sequences.items) == int(rows["click"].sum())


def test_recorded_propensities_are_frequencies(world: World) -> None:
    lanes = 20_000
    lane = torch.arange(lanes)
    zero = torch.zeros_like(lane)
    focus = SoftFocus(truth_of(world))
    slate, propensity = focus({"state": torch.zeros(lanes, 1)}, 2, Draw.at(5, lane, zero, zero))
    n = len(world.catalogue)
    first = torch.bincount(slate[:, 0], minlength=n) / lanes
    told = torch.zeros(n).index_put_((slate[:, 0],), propensity[:, 0])
    shown = first > 0
    error = (first - told)[shown].abs() / (told[shown] * (1 - told[shown]) / lanes).sqrt()
    assert error.square().mean().item() == pytest.approx(1.0, abs=0.4)  # squared z-scores
    # The chance of a place sums to one over items, given the place above.
    assert told[shown].sum().item() == pytest.approx(1.0, abs=0.02)
    assert bool((slate[:, 0] != slate[:, 1]).all())


def test_the_planner_earns_the_computed_optimum(world: World) -> None:
    planner = make_policy("planner", world)
    assert isinstance(planner, PlannerPolicy)
    lanes = 2_000
    core = Core(world, "truth", batch=lanes, users="evaluate", seed=1)
    bound = planner.optimum(core, 5).double()
    earned, alive = torch.zeros(lanes, dtype=torch.float64), torch.ones(lanes, dtype=torch.bool)
    for _ in range(core.max_steps):
        step = core.step(planner.act_on_state(core, 5))
        earned += step.reward * alive
        alive &= ~(step.terminated | step.truncated)
        if not bool(alive.any()):
            break
    gap = earned - bound
    assert abs(gap.mean().item()) < 4 * gap.std().item() / lanes**0.5


def test_the_planner_refuses_where_it_does_not_know(world: World) -> None:
    planner = make_policy("planner", world)
    assert isinstance(planner, PlannerPolicy)
    with pytest.raises(PolicyError, match="one session"):
        planner.act_on_state(Core(world, "truth", batch=2, sessions=2), 5)
    with pytest.raises(PolicyError, match="callable reward"):
        planner.act_on_state(Core(world, "truth", batch=2, reward=lambda outcome: outcome.invalid.float()), 5)
    with pytest.raises(PolicyError, match="truth world"):
        make_policy("planner", replace(world, simulators={"train": truth_of(world)}))
    with pytest.raises(PolicyError, match="cannot be saved"):
        planner.save("anywhere")
