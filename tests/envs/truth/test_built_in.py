"""The built-in truth world: its log, its propensities, its planner."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recloop.agents.baselines.planner import PlannerPolicy
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import PolicyError, WorldError
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns, SessionEnd, Times
from recloop.envs.simulation.core import Core
from recloop.envs.truth.boredom import BoredomUsers
from recloop.envs.truth.built_in import QUICK, BoredomWorldConfig, boredom_world, built_in_world, written_log
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import by_user, t_interval


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


def test_a_world_from_the_disk_reads_no_history_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.save(tmp_path / "w")
    worked_out = world.warm_states

    def never(*_: object, **__: object) -> None:
        raise AssertionError("histories were read again")

    again = World.load(tmp_path / "w")
    monkeypatch.setattr(type(again.state_encoder), "start", never)
    assert all(torch.equal(value, worked_out.held()[name]) for name, value in again.warm_states.held().items())
    (tmp_path / "w" / "warm_states.safetensors").unlink()
    with pytest.raises(WorldError, match="warm_states"):  # the manifest knows it
        World.load(tmp_path / "w")


def test_the_log_keeps_what_happened(world: World) -> None:
    log = written_log(world, BoredomWorldConfig(sessions=2, logged_slates=6))
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


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_knowing_the_user_is_worth_more_than_knowing_the_hits(world: World, seed: int) -> None:
    """In the truth, which is the world's own simulator, greedy earns more than popularity by the whole interval."""
    made = world if seed == 0 else boredom_world(replace(QUICK, seed=seed))
    assert made.training_simulator == "truth"
    arena = Evaluator(made, "truth", episodes=400, users="evaluate", seed=1)
    found = {name: arena.run(make_policy(name, made)) for name in ("greedy", "popularity", "random")}
    value = {name: by_user(one.value, one.users) for name, one in found.items()}
    assert t_interval(value["greedy"] - value["popularity"]).low > 0
    assert t_interval(value["popularity"] - value["random"]).low > 0


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
