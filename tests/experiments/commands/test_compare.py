"""A comparison, from policies to its folder: rows, resuming, equal bytes, errors before anything is written."""

import csv
import io
import json
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from recloop.agents.policy import Carry, FitOptions, Policy
from recloop.agents.registry import load_policy
from recloop.agents.sequence.config import SequenceConfig
from recloop.agents.settings import with_settings
from recloop.encoders.base.errors import PolicyError, RecloopError, UserSimulatorError
from recloop.encoders.base.locks import one_writer
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response, State
from recloop.envs.logs.schema import Signal
from recloop.envs.truth.boredom import BoredomUsers
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare, join
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.intervals import t_interval
from recloop.experiments.comparison.verdict import verdict_of
from recloop.experiments.settings import read_settings


class Learner(Policy):
    """Learns which of the first items to show from its seed alone, and counts its trainings."""

    trainings: ClassVar[list[int]] = []

    def __init__(self, first: int = 0) -> None:
        self.first = first

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> "Learner":
        cls.trainings.append(options.seed)
        if options.log is not None:
            for step in (10, 20):
                options.log("rollout/ep_rew_mean", float(step + options.seed), step)
        return cls(options.seed * 3)

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        return torch.arange(self.first, self.first + k).expand(len(observation["state"]), -1), None

    def config(self) -> dict[str, int]:
        return {"first": self.first}


class Interrupted(Learner):
    """Is stopped by its user at the second seed."""

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> "Interrupted":
        if options.seed == 1:
            raise KeyboardInterrupt
        return cls()


@dataclass(frozen=True)
class Patience(State):
    left: Tensor


class Mine(UserSimulator):
    """Clicks on everything and leaves after three slates."""

    signals = BoredomUsers.signals

    def arrive(self, users: Tensor, draw: Draw) -> Patience:
        return Patience(torch.full_like(users, 3))

    def respond(self, state: Patience, past: Past, slate: Tensor, draw: Draw) -> tuple[Patience, Response]:
        given = torch.zeros(*slate.shape, len(self.signals), dtype=torch.bool)
        given[..., 0] = slate < 40
        after = Patience(state.left - 1)
        return after, Response(given.float(), given, after.left == 0)


class OtherSignals(Mine):
    signals = (Signal("other"),)


LEARNER = f"{__name__}:Learner"


@pytest.fixture(autouse=True)
def counted_anew() -> None:
    Learner.trainings.clear()


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what tests of their own look at, and what takes longest."""
    for name in ("write_report", "write_runs"):
        monkeypatch.setattr(f"recloop.experiments.commands.compare.{name}", lambda *arguments: None)


def config_in(folder: Path, **changes: object) -> CompareConfig:
    base = CompareConfig(
        world=Path("worlds/judged"),
        policies=("random", "popularity", LEARNER),
        seeds=2,
        out=folder,
        episodes=24,
        progress=False,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))


@pytest.mark.usefixtures("no_pictures")
def test_a_row_for_each_policy_seed_and_simulator(judged: World, tmp_path: Path) -> None:
    comparison = compare(judged, config_in(tmp_path))
    rows = rows_of(tmp_path)
    assert [(r["policy"], r["seed"], r["simulator"]) for r in rows] == [
        (policy, seed, simulator)
        for policy in ("random", "popularity", "Learner")
        for seed in ("0", "1")
        for simulator in ("train", "judge")
    ]
    row = rows[-1]
    expected = t_interval(comparison.difference("Learner", "popularity", "judge", 1))
    assert float(row["difference"]) == pytest.approx(expected.mean, abs=1e-6)
    assert float(row["difference_low"]) == pytest.approx(expected.low, abs=1e-6)
    assert row["reference"] == "popularity"
    assert not any("time" in name or "second" in name for name in row), "equal runs must give equal bytes"
    signals = [name for name in row if name.startswith("signal:")]
    assert signals == [f"signal:{s.name}" for s in judged.signals]


def test_the_run_folder_holds_what_is_promised(judged: World, tmp_path: Path) -> None:
    compare(judged, config_in(tmp_path))
    assert {p.name for p in tmp_path.iterdir()} == {
        "config.yaml", "run.json", "results.csv", "claims.json", "report.html", "report.md", "picture.png",
        "tensorboard", "policies", "finished",
    }  # fmt: skip
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["state"] == "finished"
    assert {"command", "commit", "versions", "device", "seeds", "seconds", "seconds_by_policy"} <= set(facts)
    settings = read_settings(tmp_path / "config.yaml")
    assert with_settings(CompareConfig(Path("other")), settings, "compare") == config_in(tmp_path)
    assert {p.name for p in (tmp_path / "policies").iterdir()} == {
        "random", "popularity", "Learner-seed0", "Learner-seed1",
    }  # fmt: skip
    kept = load_policy(tmp_path / "policies" / "Learner-seed1", trust=True)
    assert isinstance(kept, Policy)
    assert kept.config() == {"first": 3}


@pytest.mark.usefixtures("no_pictures")
def test_equal_runs_give_equal_bytes(judged: World, tmp_path: Path) -> None:
    for name in ("one", "two"):
        compare(judged, config_in(tmp_path / name))
    assert (tmp_path / "one" / "results.csv").read_bytes() == (tmp_path / "two" / "results.csv").read_bytes()
    assert (tmp_path / "one" / "claims.json").read_bytes() == (tmp_path / "two" / "claims.json").read_bytes()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.slow
def test_trainings_side_by_side_give_the_results_of_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    """Four trainings, in two processes that start with nothing; then the same command again only reads."""
    rows = []
    for jobs in (1, 2, 2):
        out = tmp_path / f"jobs-{jobs}"
        config = CompareConfig(
            folder, ("popularity", "a2c", "recloop-ppo"), 2, out, steps=600, episodes=4, jobs=jobs, progress=False
        )
        compare(World.load(folder), config, world_folder=folder)
        rows.append((out / "results.csv").read_bytes())
    assert rows[0] == rows[1] == rows[2]


def test_what_is_finished_is_kept_and_more_seeds_join(judged: World, tmp_path: Path) -> None:
    compare(judged, config_in(tmp_path, seeds=1))
    first = (tmp_path / "results.csv").read_bytes()
    compare(judged, config_in(tmp_path, seeds=1))
    assert Learner.trainings == [0]
    assert (tmp_path / "results.csv").read_bytes() == first
    compare(judged, config_in(tmp_path, seeds=3))
    assert Learner.trainings == [0, 1, 2]
    assert len(rows_of(tmp_path)) == 3 * 3 * 2
    compare(judged, config_in(tmp_path, seeds=1, episodes=26, overwrite=True))
    assert Learner.trainings == [0, 1, 2, 0], "other lanes are another result"
    compare(judged, config_in(tmp_path, seeds=1, episodes=26, fresh=True))
    assert Learner.trainings == [0, 1, 2, 0, 0]


@pytest.mark.usefixtures("no_pictures")
def test_another_process_joins_and_nothing_is_done_twice(judged: World, folder: Path, tmp_path: Path) -> None:
    """A run that was cut short, a helper that makes what is missing, and the run that gathers it."""
    alone = config_in(tmp_path / "alone", world=folder)
    compare(judged, alone, folder)
    Learner.trainings.clear()
    shared = config_in(tmp_path / "shared", world=folder)
    shared.out.mkdir()
    made_with = json.loads((alone.out / "run.json").read_text())
    (shared.out / "run.json").write_text(json.dumps(made_with))
    assert join(judged, shared, folder) == 5, "random and Learner twice, popularity once"
    assert Learner.trainings == [1, 0], "what the run comes to last is helped with first"
    assert join(judged, shared, folder) == 0
    compare(judged, shared, folder)
    assert Learner.trainings == [1, 0]
    assert (shared.out / "results.csv").read_bytes() == (alone.out / "results.csv").read_bytes()


@pytest.mark.usefixtures("no_pictures")
def test_what_a_helper_is_at_is_waited_for_and_made_once_it_is_gone(judged: World, tmp_path: Path) -> None:
    config, begun, over = config_in(tmp_path, seeds=1), threading.Event(), threading.Event()

    def helper() -> None:
        with one_writer(tmp_path / "finished" / "Learner-seed0"):
            begun.set()
            over.wait(60)  # and dies with nothing done

    other = threading.Thread(target=helper)
    other.start()
    begun.wait(60)
    threading.Timer(1.5, over.set).start()
    compare(judged, config)
    other.join()
    assert over.is_set(), "it waited"
    assert Learner.trainings == [0]


def test_there_is_no_joining_of_what_is_not_there_or_is_another(judged: World, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecloopError, match="holds no run to join"):
        join(judged, config_in(tmp_path, world=folder), folder)
    compare(judged, config_in(tmp_path, world=folder, policies=("popularity",), seeds=1), folder)
    with pytest.raises(RecloopError, match="holds another run: its episodes is 24"):
        join(judged, config_in(tmp_path, world=folder, policies=("popularity",), seeds=1, episodes=30), folder)
    facts = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**facts, "threads": 77}))
    before = {p: p.read_bytes() for p in (tmp_path / "finished").rglob("*") if p.is_file()}
    with pytest.raises(RecloopError, match="is made with threads 77, here it is"):
        join(judged, config_in(tmp_path, world=folder, policies=("popularity",), seeds=1), folder)
    assert {p: p.read_bytes() for p in (tmp_path / "finished").rglob("*") if p.is_file()} == before
    assert not list((tmp_path / "finished").glob(".*"))


@pytest.mark.usefixtures("no_pictures")
def test_a_damaged_result_is_made_anew(judged: World, tmp_path: Path) -> None:
    compare(judged, config_in(tmp_path, seeds=1))
    before = (tmp_path / "results.csv").read_bytes()
    (tmp_path / "finished" / "Learner-seed0" / "0.safetensors").write_bytes(b"half")
    compare(judged, config_in(tmp_path, seeds=1))
    assert Learner.trainings == [0, 0]
    assert (tmp_path / "results.csv").read_bytes() == before


def test_an_interrupted_run_says_what_it_kept_and_goes_on(judged: World, tmp_path: Path) -> None:
    config = config_in(tmp_path, policies=("popularity", f"{__name__}:Interrupted"))
    with pytest.raises(KeyboardInterrupt, match="2 of 3 results are kept"):
        compare(judged, config)
    assert {p.name for p in (tmp_path / "finished").iterdir()} == {"popularity-seed0", "Interrupted-seed0"}
    assert not (tmp_path / "results.csv").exists()
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "running"


class Endless(Learner):
    """Trains until the alarm of its budget rings, which it brings on; once it is `quick`, at once."""

    quick: ClassVar[bool] = False

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> "Endless":
        if options.seed == 1 and not cls.quick:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            time.sleep(60)
        return cls(options.seed * 3)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm there")
def test_a_budget_ends_cleanly_says_what_it_did_not_reach_and_goes_on(judged: World, tmp_path: Path) -> None:
    endless = f"{__name__}:Endless"
    config = config_in(tmp_path, policies=("popularity", endless, LEARNER), budget="1h")
    comparison = compare(judged, config)
    assert comparison.seeds == (0,)
    assert comparison.unreached == {"Endless": (1,), "Learner": (1,)}
    said = "Not reached in the time given: Endless (seed 1), Learner (seed 1); the same command goes on from here."
    assert verdict_of(comparison, claims_of(comparison)).endswith(said)
    assert said in (tmp_path / "report.md").read_text()
    assert said in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "out of time"
    assert {row["seed"] for row in rows_of(tmp_path)} == {"0"}
    Endless.quick = True
    try:
        comparison = compare(judged, config)
    finally:
        Endless.quick = False
    assert (comparison.seeds, comparison.unreached) == ((0, 1), {})
    assert Learner.trainings == [0, 1], "what was finished is kept"
    alone = config_in(tmp_path / "alone", policies=(LEARNER, "popularity"), seeds=2, reference="popularity")
    with pytest.raises(RecloopError, match="--budget 1s was over before anything was finished"):
        compare(judged, replace(alone, policies=(f"{__name__}:Waiting",), reference=None, budget="1s"))


class Waiting(Learner):
    @classmethod
    def fit(cls, world: World, options: FitOptions) -> "Waiting":
        time.sleep(60)
        return cls()


class Steady(Learner):
    """Shows the same items whatever its seed, as a training that always succeeds."""

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> "Steady":
        cls.trainings.append(options.seed)
        return cls(20)


@pytest.mark.usefixtures("no_pictures")
def test_seeds_are_added_until_no_pair_waits_for_them(judged: World, tmp_path: Path) -> None:
    """Steady is the same with every seed; Learner shows other items each time, and its pair may stay open."""
    steady = compare(judged, config_in(tmp_path / "a", policies=("random", f"{__name__}:Steady"), seeds="3:8"))
    assert Learner.trainings == list(range(len(steady.seeds)))
    waiting = [claim for claim in claims_of(steady) if claim.waits]
    assert not waiting or len(steady.seeds) == 8
    Learner.trainings.clear()
    comparison = compare(judged, config_in(tmp_path / "b", policies=("popularity", LEARNER), seeds="3:5"))
    looks = [replace(comparison, seeds=comparison.seeds[:n]) for n in (3, 5)]
    stopped = not any(claim.waits for claim in claims_of(looks[0]))
    assert len(comparison.seeds) == len(Learner.trainings) == (3 if stopped else 5)
    assert len(rows_of(tmp_path / "b")) == 2 * len(comparison.seeds) * 2


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seeds": "3-10"}, "--seeds 3-10 is no number of seeds; write 3, or 3:10"),
        ({"seeds": "2:10"}, "--seeds 2:10 is no range of seeds; it begins at 3 or more"),
        ({"seeds": "5:4"}, "--seeds 5:4 is no range of seeds"),
        ({"seeds": 0}, "--seeds 0 is too few"),
        ({"budget": "half an hour"}, "--budget half an hour is no time; write 90s, 30m"),
        ({"budget": "0m"}, "--budget 0m is no time"),
    ],
)
def test_seeds_and_budgets_that_are_none_are_refused(tmp_path: Path, changes: dict[str, object], line: str) -> None:
    with pytest.raises(RecloopError, match=line):
        config_in(tmp_path, **changes)


@pytest.mark.usefixtures("no_pictures")
def test_a_saved_policy_joins_under_its_folders_name(judged: World, tmp_path: Path) -> None:
    compare(judged, config_in(tmp_path / "a"))
    saved = tmp_path / "a" / "policies" / "Learner-seed1"
    config = config_in(tmp_path / "b", policies=("popularity", str(saved)), trust=True)
    compare(judged, config)
    again = [r["value"] for r in rows_of(tmp_path / "b") if r["policy"] == "Learner-seed1"]
    first = [r["value"] for r in rows_of(tmp_path / "a") if (r["policy"], r["seed"]) == ("Learner", "1")]
    assert again == first * 2
    with pytest.raises(PolicyError, match="--trust"):
        compare(judged, replace(config, trust=False))


class Wide(Learner):
    """As many items along as its settings say."""

    config_class = SequenceConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> "Wide":
        return cls(options.over(SequenceConfig(), "Wide", "epochs").length)


@pytest.mark.usefixtures("no_pictures")
def test_settings_reach_the_policy_they_name(judged: World, tmp_path: Path) -> None:
    wide = f"{__name__}:Wide"
    (tmp_path / "wide.yaml").write_text("Wide:\n  length: 3\n  epochs: 7\n")
    config = config_in(
        tmp_path / "run", policies=("random", wide, wide), seeds=1, config=tmp_path / "wide.yaml",
        set=("Wide-2.length=5",),
    )  # fmt: skip
    compare(judged, config)
    kept = tmp_path / "run" / "policies"
    firsts = [load_policy(kept / f"{label}-seed0", trust=True).config() for label in ("Wide", "Wide-2")]
    assert firsts == [{"first": 3}, {"first": 5}]
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["settings"] == {"Wide": {"length": 3, "epochs": 7}, "Wide-2": {"length": "5"}}
    assert read_settings(tmp_path / "run" / "config.yaml")["set"] == ["Wide-2.length=5"]


@pytest.mark.usefixtures("no_pictures")
def test_one_class_twice_has_two_labels(judged: World, tmp_path: Path) -> None:
    comparison = compare(judged, config_in(tmp_path, policies=(LEARNER, LEARNER), seeds=1))
    assert comparison.labels == ("Learner", "Learner-2")
    assert comparison.reference == "Learner", "without popularity the first is the reference"


@pytest.mark.usefixtures("no_pictures")
def test_own_users_are_evaluated_in_too(judged: World, tmp_path: Path) -> None:
    comparison = compare(judged, config_in(tmp_path, users=(f"{__name__}:Mine",), seeds=1))
    assert comparison.simulators == ("train", "judge", "Mine")
    mine = [r for r in rows_of(tmp_path) if r["simulator"] == "Mine"]
    assert [r["signal:click"] for r in mine] == ["9.000000"] * 3, "three clicks on each of three slates"
    with pytest.raises(UserSimulatorError, match=r"its signals are \['other'\], the world's are"):
        compare(judged, config_in(tmp_path, users=(f"{__name__}:OtherSignals",)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"policies": ("popularty",)}, "unknown policy 'popularty'; did you mean 'popularity'"),
        ({"policies": ("planner", "random")}, "needs a world whose users are written down"),
        ({"policies": ("policies/none-there",)}, "policies/none-there"),
        ({"policies": ("no_such_module:Mine",)}, "cannot import no_such_module:Mine"),
        ({"set": ("sasrec.rollout=16",)}, "unknown policy 'sasrec'"),
        ({"set": ("random",)}, "--set random names no value; write it as name=value"),
        ({"set": ("random.gamma=1",)}, "policy 'random' has no settings, not even gamma"),
        ({"policies": ("a2c",), "set": ("a2c.rolout=1",)}, "unknown setting of a2c 'rolout'; did you mean 'rollout'"),
        ({"policies": ("a2c",), "set": ("a2c=1",)}, "write policy.setting=value"),
        ({"reference": "greedy"}, "unknown reference policy 'greedy'"),
        ({"slate_size": 400}, "slate_size=400 does not fit a catalogue of 40 items"),
        ({"device": "cuda:7"}, "device 'cuda:7' is not usable"),
        ({"users": ("no_such_module:Mine",)}, "cannot import no_such_module:Mine"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    judged: World, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(RecloopError, match=says) as error:
        compare(judged, config_in(out, **changes))
    assert "\n" not in str(error.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": 0}, "--seeds 0 is too few; it must be at least 1"),
        ({"episodes": 1}, "--episodes 1 is too few; it must be at least 2"),
        ({"steps": 0}, "--steps 0"),
        ({"threads": 0}, "--threads 0"),
        ({"policies": ()}, "no policies to compare"),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(RecloopError, match=says):
        config_in(tmp_path, **changes)
