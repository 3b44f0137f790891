"""`recloop train` with checkpoints: interrupted, gone on, refused."""

from pathlib import Path

import pytest
import torch

from recloop.agents.learners.on_policy.a2c import A2C
from recloop.agents.registry import load_policy
from recloop.experiments.cli import main


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return ["train", str(folder), "--out", str(out), "--lanes", "4", "--no-progress", *more]


def test_an_interrupted_training_goes_on_when_the_same_command_is_run_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A2C, five updates of 64 lanes and 4 steps; somebody stops the second run in the fourth."""
    agent = ["--agent", "a2c", "--steps", "1280", "--checkpoint-every", "1"]
    main(command(folder, tmp_path / "whole", *agent, "--checkpoint", str(tmp_path / "kept-whole")))
    updates, update = [], A2C.update

    def counted(self: A2C, progress: float) -> dict[str, torch.Tensor]:
        updates.append(progress)
        if len(updates) == 4:
            raise KeyboardInterrupt
        return update(self, progress)

    monkeypatch.setattr(A2C, "update", counted)
    again = command(folder, tmp_path / "parts", *agent, "--checkpoint", str(tmp_path / "kept"))
    with pytest.raises(SystemExit) as stop:
        main(again)
    assert stop.value.code == 130
    assert f"3 of 5 updates are kept in {tmp_path / 'kept'}, the same command goes on" in capsys.readouterr().err
    main(again)
    assert updates[4:] == [0.6, 0.8]
    whole, parts = (load_policy(tmp_path / name).tensors() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_agents_without_checkpoints_say_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path / "policy", "--agent", "ppo", "--checkpoint", str(tmp_path / "kept")))
    said = capsys.readouterr().err
    assert "'ppo' keeps no checkpoints; leave --checkpoint out, or train one of a2c, ddpg, " in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("penalty", ["--pessimism", "--entropy-bonus"])
def test_agents_that_learn_from_the_log_alone_are_charged_nothing_and_say_so(
    folder: Path, tmp_path: Path, penalty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path / "policy", "--agent", "reinforce-logged", penalty, "0.5"))
    said = capsys.readouterr().err
    assert "'reinforce-logged' learns nothing in the loop, where penalties are charged; leave --pessimism and" in said
    assert len(said.splitlines()) == 1
