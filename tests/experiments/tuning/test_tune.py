"""The search of settings: what is searched, trials that are trainings of `train`, stopping, going on, and helpers."""

import csv
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.encoders.base.locks import one_writer
from recloop.envs.world.world import World
from recloop.experiments.commands.train import TrainConfig, train
from recloop.experiments.settings import read_settings
from recloop.experiments.tuning import search
from recloop.experiments.tuning.command import TuneConfig, main
from recloop.experiments.tuning.space import Searched, searched

optuna = pytest.importorskip("optuna")


def test_ranges_and_lists_are_read_by_what_a_setting_takes() -> None:
    space = searched("recloop-ppo", ["learning_rate=1e-4..1e-2", "rollout=4..32", "network.hidden=32,64"], {})
    assert space == (
        Searched("learning_rate", (), 1e-4, 1e-2),
        Searched("rollout", (), 4, 32, whole=True),
        Searched("network.hidden", ("32", "64")),
    )
    assert [one.name for one in searched("recloop-ppo", [], {"entropy": "0"})] == [
        "learning_rate", "gamma", "gae_lambda",
    ]  # fmt: skip
    rate = searched("recloop-ppo", [], {})[0]
    assert (rate.low, rate.high) == pytest.approx((0.0003, 0.0075))
    assert rate.given(0.0015) == 0.0015
    assert rate.given(0.5) is None


@pytest.mark.parametrize(
    ("agent", "text", "line"),
    [
        ("recloop-ppo", "learning_rat=1..2", "did you mean 'learning_rate'"),
        ("recloop-ppo", "learning_rate", "--space learning_rate names no values; write name=1e-4..1e-2"),
        ("recloop-ppo", "gamma=0.9..0.8", "a range rises"),
        ("recloop-ppo", "scale_rewards=0..1", "scale_rewards takes bool"),
        ("recloop-ppo", "gamma=low..high", "is no range of numbers"),
        ("recloop-ppo", "rollout=four,eight", "it takes int"),
        ("recloop-ppo", "entropy=0.1,0.2", "--space entropy is fixed by --set or --config"),
        ("popularity", "anything=1..2", "has no settings to search"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_line(agent: str, text: str, line: str) -> None:
    with pytest.raises(RecloopError, match=line):
        searched(agent, [text], {"entropy": "0.1"})


def config_in(world: Path, out: Path, **changes: Any) -> TuneConfig:
    base = TuneConfig(
        world, out, "a2c", ("learning_rate=1e-4..1e-2", "gamma=0.8,0.9"), ("num_envs=4",), trials=3, steps=160,
        episodes=8, early=False, progress=False,
    )  # fmt: skip
    return replace(base, **changes)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "trials.csv").open()))


def test_the_best_trial_is_what_train_makes_of_its_settings_and_a_search_goes_on(
    folder: Path, judged: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    found = main(config_in(folder, out))
    rows = rows_of(out)
    assert [(row["trial"], row["state"]) for row in rows] == [(str(n), "trained") for n in range(3)]
    assert (rows[0]["learning_rate"], rows[0]["gamma"]) == ("0.002", "0.9"), "the defaults first"
    best = max(rows, key=lambda row: float(row["value"]))
    assert {name: best[name] for name in ("learning_rate", "gamma")}.items() <= found.items()
    said = capsys.readouterr().out
    assert f"--set num_envs=4 learning_rate={best['learning_rate']} gamma={best['gamma']}" in said
    assert read_settings(out / "best.yaml") == found
    asked = TrainConfig(folder, tmp_path / "p", agent="a2c", config=out / "best.yaml", steps=160, progress=False)
    again = train(judged, replace(asked, episodes=8))
    assert again.validation.mean == pytest.approx(float(best["value"]), abs=1e-6)
    main(config_in(folder, out, trials=4))
    assert rows_of(out)[:3] == rows, "what was tried is kept"
    assert len(rows_of(out)) == 4
    with pytest.raises(RecloopError, match="holds another search: its steps is 160"):
        main(config_in(folder, out, steps=200))
    with pytest.raises(PolicyError, match="there is nothing to search"):
        main(config_in(folder, out, agent="popularity"))


def test_worse_trials_are_stopped_early(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy whose validation is its setting: trials come worse and worse, and all but the first are cut."""
    steps: list[int] = []

    def made(name: str, world: World, options: FitOptions) -> None:
        assert options.log is not None
        rate = float(options.settings["learning_rate"])
        for step in range(0, 91, 10):
            options.log("validation/return", -rate, step)
            steps[-1:] = [step]
        raise PolicyError("no policy here")

    monkeypatch.setattr(search, "make_policy", made)
    steps.append(0)
    task = search.Search(
        folder, tmp_path, "a2c", (Searched("learning_rate", tuple("123456789")),), {}, 90, 0, 4, trials=9, early=True
    )
    study = search.study_of(task)
    for value in "123456789":
        study.enqueue_trial({"learning_rate": value})
    reached = []
    for number in range(9):
        search.try_once(search.Unit(task, number))
        reached.append(steps[-1])
    assert reached[0] == 90
    assert max(reached[1:]) < 90
    assert [t.state.name for t in search.study_of(task).trials] == ["FAIL", *["PRUNED"] * 8]


def test_a_trial_of_a_dead_process_is_made_good_and_one_of_a_living_process_is_left_to_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_tried", lambda task, trial, settings: float(settings["learning_rate"]))
    task = search.Search(folder, tmp_path, "a2c", (Searched("learning_rate", ("1", "2")),), {}, 90, 0, 4, 2, False)
    dead, living = (search.study_of(task).ask().number for _ in range(2))
    assert dead < living
    begun, over = threading.Event(), threading.Event()

    def other() -> None:
        with one_writer(search._lock_of(tmp_path, living)):
            begun.set()
            over.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(60)
    for number in range(3):
        search.try_once(search.Unit(task, number))
    over.set()
    thread.join()
    states = [t.state.name for t in search.study_of(task).trials]
    assert states == ["FAIL", "RUNNING", "COMPLETE"], "two trials are asked for, and another process is at one"


def test_a_helper_in_the_same_folder_shares_the_trials(folder: Path, tmp_path: Path) -> None:
    config = config_in(folder, tmp_path / "shared", trials=4, jobs=2)
    main(config)
    rows = rows_of(config.out)
    assert len(rows) == 4
    assert len({row["learning_rate"] for row in rows}) == 4, "no two processes propose the same"
    assert np.isfinite([float(row["value"]) for row in rows]).all()
