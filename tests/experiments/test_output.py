"""Where commands write: nothing of other settings is replaced, and what cannot be written is known before a fit."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.locks import one_writer
from recloop.encoders.base.manifest import Manifest
from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.commands.train import TrainConfig, train
from recloop.experiments.output import replacing_output, writing


@pytest.fixture
def policy(judged: World, tmp_path: Path) -> TrainConfig:
    config = TrainConfig(tmp_path, tmp_path / "policy", agent="random", episodes=4, progress=False)
    train(judged, config)
    return config


def test_the_same_settings_are_written_anew(judged: World, policy: TrainConfig) -> None:
    train(judged, policy)
    train(judged, replace(policy, episodes=6))  # decides nothing about the policy


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "its seed is 0, here it is 1"),
        ({"agent": "popularity"}, "its agent is random, here it is popularity"),
        ({"steps": 5}, "its steps is None, here it is 5"),
    ],
)
def test_a_policy_of_other_settings_is_not_replaced(
    judged: World, policy: TrainConfig, change: dict[str, object], says: str
) -> None:
    before = (policy.out / "manifest.json").read_bytes()
    other = replace(policy, **change)  # type: ignore[arg-type]
    with pytest.raises(RecloopError, match=f"holds another policy: {says}; add --overwrite") as error:
        train(judged, other)
    assert "\n" not in str(error.value)
    assert (policy.out / "manifest.json").read_bytes() == before
    train(judged, replace(other, overwrite=True))
    manifest = Manifest.read(policy.out)
    assert manifest is not None
    assert {name: manifest.made_with[name] for name in change} == change


def test_a_policy_of_another_world_or_of_unknown_settings_is_not_replaced(judged: World, policy: TrainConfig) -> None:
    with pytest.raises(RecloopError, match="holds another policy: its world is"):
        train(replace(judged, max_steps=judged.max_steps + 1), policy)
    (policy.out / "manifest.json").unlink()
    with pytest.raises(RecloopError, match="holds another policy: nobody knows its settings"):
        train(judged, policy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"episodes": 6}, "its episodes is 4, here it is 6"),
        ({"evaluation_seed": 1}, "its evaluation_seed is 20000, here it is 1"),
        ({"slate_size": 2}, "its slate_size is None, here it is 2"),
    ],
)
def test_a_run_of_other_settings_is_not_mixed_with(
    judged: World, tmp_path: Path, change: dict[str, object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_pictures(monkeypatch)
    config = CompareConfig(tmp_path, policies=("random",), seeds=1, episodes=4, out=tmp_path / "run", progress=False)
    compare(judged, config)
    (config.out / "finished" / "old").mkdir()
    other = replace(config, **change)  # type: ignore[arg-type]
    with pytest.raises(RecloopError, match=f"holds another run: {says}; add --overwrite"):
        compare(judged, other)
    compare(judged, replace(config, policies=("random", "popularity"), seeds=2))  # they join
    compare(judged, replace(other, overwrite=True))
    assert not (config.out / "finished" / "old").exists(), "nothing of the old run is left among the new"
    assert (
        json.loads((config.out / "run.json").read_text())["made_with"] | change
        == json.loads((config.out / "run.json").read_text())["made_with"]
    )


def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recloop.experiments.commands.compare.write_report", lambda *given: None)
    monkeypatch.setattr("recloop.experiments.commands.compare.picture", lambda comparison: b"")


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond a megabyte, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_noticed_before_the_fit(tmp_path: Path) -> None:
    with pytest.raises(RecloopError, match=r"cannot be written \(File too large\); make room there"):
        replacing_output(tmp_path / "world", "world.json", "world", {}, False).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_noticed_before_the_fit() -> None:
    with pytest.raises(OSError, match="sys"):
        writing(Path("/sys/recloop/world")).__enter__()


@pytest.mark.parametrize("start", [train, compare])
def test_a_second_writer_is_refused(judged: World, tmp_path: Path, start: Callable[..., object]) -> None:
    code = f"""
import sys, time
from pathlib import Path
from recloop.encoders.base.locks import one_writer
with one_writer(Path({str(tmp_path / "out")!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    config = (
        TrainConfig(tmp_path, tmp_path / "out", agent="random", progress=False)
        if start is train
        else CompareConfig(tmp_path, policies=("random",), out=tmp_path / "out", progress=False)
    )
    try:
        with pytest.raises(RecloopError, match=f"is being written by process {other.pid}"):
            start(judged, config)
    finally:
        other.kill()
        other.wait()
    with one_writer(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == []
