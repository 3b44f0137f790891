"""The benchmark's own arithmetic: worlds of any size, turns, counted bytes and operations, rows that are kept."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from recloop.encoders.base.errors import DeviceError, RecloopError
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World
from recloop.experiments.bench import quick_world
from recloop.experiments.bench import timing as bench_timing
from recloop.experiments.bench.bench import BenchCommand, growth_picture, main
from recloop.experiments.bench.bounds import Cost, Machine, cost, numpy_loop, tensor_bytes
from recloop.experiments.bench.env import BenchEnvConfig, _plan, bench_env
from recloop.experiments.bench.steps import StepSubject, paced
from recloop.experiments.bench.text import BenchTextConfig
from recloop.experiments.bench.timing import COLUMNS, Pace, Paced, Row, against, keep
from recloop.experiments.bench.worlds import bench_world, stretched


@pytest.fixture(scope="module")
def truth(tiny_truth: World) -> World:
    return stretched(tiny_truth, 500, 40)


@pytest.fixture(scope="module")
def tiny_truth() -> World:
    from recloop.envs.truth.built_in import built_in_world

    return built_in_world()


def test_a_stretched_world_is_one_to_act_in(tiny_truth: World, truth: World) -> None:
    assert len(truth.catalogue) == len(set(truth.catalogue.ids)) == 500
    assert len(truth.users) == 40
    vectors = truth.item_vectors
    assert vectors.shape[0] == 501
    assert vectors[-1].abs().sum() == 0
    n = len(tiny_truth.catalogue)
    torch.testing.assert_close(vectors[:n], tiny_truth.item_vectors[:n])
    near = torch.cosine_similarity(vectors[n : 2 * n], tiny_truth.item_vectors[:n], dim=1)
    assert 0.99 < float(near.min()) < float(near.max()) < 1.0
    copies = [set((user[user < 500] // n).tolist()) for user in truth.users.history]
    assert max(map(len, copies)) == 1  # each user stays in one copy of the catalogue
    core = Core(truth, batch=4, device="cpu")
    assert core.step(torch.randint(500, (4, core.slate_size))).reward.shape == (4,)


def test_a_catalogue_may_be_cut(tiny_truth: World) -> None:
    short = stretched(tiny_truth, 100, 20)
    assert len(short.catalogue) == 100
    assert int(short.users.history.max()) <= 100
    assert torch.equal(short.catalogue.groups[:-1], tiny_truth.catalogue.groups[:100])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"items": 5}, "items=5"), ({"members": 0}, "members=0"), ({"family": "recurent"}, "did you mean 'recurrent'")],
)
def test_sizes_of_worlds_are_checked(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(RecloopError, match=said):
        bench_world(**arguments)


def test_turns_are_paired_and_medians_count(monkeypatch: pytest.MonkeyPatch) -> None:
    took = {"fast": iter([0.1, 0.1, 1.0, 1.0, 9.0]), "slow": iter([0.1, 0.1, 2.0, 4.0, 9.0])}  # first the warm-up
    monkeypatch.setattr(bench_timing, "_seconds", lambda side, calls: next(took[side.name]))
    sides = [Paced(name, 8, lambda: None) for name in ("fast", "slow")]
    mine, theirs, ratio = against(*sides, Pace(3, 0.0))
    assert (mine, theirs) == (8.0, 2.0)
    assert ratio == 2.0  # of the ratios 2, 4 and 1: a turn that was slow for both says nothing


def test_operations_and_bytes_are_counted() -> None:
    left, right, table = torch.ones(4, 8), torch.ones(8, 2), torch.ones(1000, 3)
    rows = torch.tensor([5, 6])

    def step() -> object:
        return (left @ right).t(), table[rows]

    found = cost(step, 4, compulsory=320)
    assert found.flops == 2 * 4 * 8 * 2 / 4
    assert found.kernels == 2  # a transposition moves nothing
    product, gather = 4 * (4 * 8 + 8 * 2 + 4 * 2), 2 * (2 * 3 * 4)  # of the table, two rows are read
    assert found.traffic == (product + gather) / 4
    assert found.compulsory == 320


def test_a_bound_is_what_takes_longest() -> None:
    of = Machine(flops=1e9, bandwidth=1e6)
    assert Cost(1e3, 1e3, 10, 1).bound(of) == pytest.approx(1e5)  # 1 µs of products, 10 µs of memory
    assert Cost(1e5, 1e3, 10, 1).bound(of) == pytest.approx(1e4)
    assert Cost(1e3, 1e3, 10, 1).bound(of, traffic=True) == pytest.approx(1e3)


def test_bytes_of_what_an_object_holds() -> None:
    shared = torch.zeros(7, 2)
    held = {"a": [shared, shared], "b": (torch.zeros(3),), "c": "text"}
    assert tensor_bytes(held) == 7 * 2 * 4 + 3 * 4
    assert tensor_bytes(held, rows=(7,)) == 7 * 2 * 4


def test_the_numpy_loop_answers_every_place() -> None:
    answers = numpy_loop(5, 3).step()
    assert answers.shape == (5, 3)  # type: ignore[attr-defined]
    assert answers.dtype == bool  # type: ignore[attr-defined]


@pytest.mark.parametrize("skin", ["core", "single", "vector", "tensors", "sb3"])
def test_every_skin_steps(truth: World, skin: Any) -> None:
    subject = paced(StepSubject(truth, 1 if skin == "single" else 3, observation="no state"), skin, skin)
    for _ in range(25):  # past the end of an episode
        subject.step()


def test_rows_take_the_place_of_what_measured_the_same(tmp_path: Path) -> None:
    path = tmp_path / "speed.csv"
    row = Row("step", 64, 1000, 10, "cpu", 1, 5.0, reference="loop: 10", ratio=0.5, aim=0.025)
    other = Row("step", 128, 1000, 10, "cpu", 1, 7.0)
    keep([row, other], path)
    keep([Row("step", 64, 1000, 10, "cpu", 1, 6.0)], path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(one["batch"], one["value"], one["ratio"]) for one in rows] == [("64", "6", ""), ("128", "7", "")]


def test_the_plan_holds_every_aim_of_the_environment() -> None:
    points = list(_plan(BenchEnvConfig()))
    assert sorted({point.aim for point in points if point.aim}) == [1 / 40, 1 / 20, 1 / 17, 0.7, 0.8, 10]
    assert {point.batch for point in points} == {1, 16, 64, 256, 1024, 4096, 16384}
    assert {point.items for point in points if point.items} == {1_000, 10_000, 100_000, 1_000_000}
    assert len({(p.what, p.batch, p.items) for p in points}) == len(points)  # no row replaces another
    compiled = list(_plan(BenchEnvConfig(compiled=True)))
    assert {p.family for p in compiled if p.compiled and p.aim == 1 / 40} == {"recurrent", "attentive", "factor"}
    assert [p.aim for p in compiled if p.compiled and p.skin == "single"] == [1 / 20]


def test_a_benchmark_of_a_world_on_disk(truth: World, tmp_path: Path) -> None:
    folder, out = tmp_path / "world", tmp_path / "bench"
    truth.save(folder)
    config = BenchEnvConfig(
        folder, ("truth",), (2, 8), skins=("core", "single"), quick=True, out=out, keep=out / "k.csv", progress=False
    )
    rows = main(BenchCommand(config))
    assert {"bench.json", "bench.csv", "growth.png", "k.csv"} == {file.name for file in out.iterdir()}
    measured = [row for row in rows if row.reference]
    assert all(row.value > 0 and row.ratio and row.items == 500 for row in measured)
    assert [row.batch for row in measured if row.what.startswith("gym.make")] == [1, 1], "natively, and by torch"
    assert [(row.what, row.batch) for row in rows if not row.reference and row.what != "SARDINE"] == [
        ("bare NumPy loop", 1024), ("bare NumPy loop", 4096), ("CartPole-v1", 1)
    ]  # fmt: skip


def test_nothing_grows_nothing_is_drawn() -> None:
    assert growth_picture([Row("step", 64, 1000, 10, "cpu", 1, 5.0)]) is None
    grown = [Row("step", lanes, 1000, 10, "cpu", 1, 5.0, reference="loop: 9", ratio=0.5) for lanes in (64, 128)]
    picture = growth_picture(grown)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batches": (0,)}, "--batches 0"),
        ({"items": (20_000_000,)}, "--items 20000000"),
        ({"families": ("recurent",)}, "did you mean 'recurrent'"),
        ({"skins": ()}, "no skin is named"),
        ({"threads": 0}, "--threads 0"),
    ],
)
def test_settings_are_checked(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(RecloopError, match=said):
        BenchEnvConfig(**arguments)


def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(DeviceError):
        bench_env(BenchEnvConfig(device="cuda:7"))
    with pytest.raises(RecloopError, match="did you mean 'float32'"):
        BenchTextConfig(dtypes=("float23",))  # type: ignore[arg-type]


def test_the_quick_world_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = quick_world.main(quick_world.QuickWorldConfig(seeds=1, episodes=20))
    assert seconds[0] > 0
    assert f"seed 0: made in {seconds[0]:.1f} s; random" in capsys.readouterr().out
