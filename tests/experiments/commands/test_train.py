"""`recloop train` with checkpoints: interrupted, gone on, refused."""

from pathlib import Path

import pytest
import torch

from recloop.agents.learners.on_policy.a2c import A2C
from recloop.agents.registry import load_policy
from recloop.encoders.base.storage import read_json
from recloop.experiments.cli import main
from recloop.experiments.comparison.tracking import logged_curves


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return ["train", str(folder), "--out", str(out), "--episodes", "4", "--no-progress", *more]


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
    curves = [logged_curves(tmp_path / f"{name}-tensorboard", last=10**6) for name in ("whole", "parts")]
    assert curves[0] == curves[1], "the run goes on where it was, and what lay beyond the checkpoint is purged"
    assert len(curves[1]["train/loss"]) == 5


def test_agents_without_checkpoints_say_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path / "policy", "--agent", "ppo", "--checkpoint", str(tmp_path / "kept")))
    said = capsys.readouterr().err
    assert "'ppo' keeps no checkpoints; leave --checkpoint out, or train one of a2c, bc, " in said
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


def test_settings_of_an_agent_are_set_and_kept(folder: Path, tmp_path: Path) -> None:
    """From YAML and from the command line, whose word is the last; sizes of the network within."""
    (tmp_path / "a2c.yaml").write_text("rollout: 2\ngamma: 0.5\nnetwork:\n  hidden: 8\n")
    given = ["--config", str(tmp_path / "a2c.yaml"), "--set", "gamma=0.25", "network.layers=1", "steps=128"]
    main(command(folder, tmp_path / "policy", "--agent", "a2c", *given))
    kept = read_json(tmp_path / "policy" / "policy.json")["config"]["training"]
    assert (kept["rollout"], kept["gamma"], kept["steps"]) == (2, 0.25, 128)
    assert (kept["network"]["hidden"], kept["network"]["layers"]) == (8, 1)


@pytest.mark.parametrize(
    ("agent", "given", "says"),
    [
        (
            "recloop-ppo",
            "learning_rat=1",
            "setting of recloop-ppo 'learning_rat'; did you mean 'learning_rate'",
        ),
        ("sasrec", "dim=wide", "dim=wide of sasrec does not fit: it takes int, not the str 'wide'"),
        ("sasrec", "dim=33", "dim=33 of a sequence model is no multiple of heads=2"),
        ("popularity", "gamma=1", "policy 'popularity' has no settings"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(
    folder: Path, tmp_path: Path, agent: str, given: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path / "policy", "--agent", agent, "--set", given))
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "policy").exists()


def test_an_agent_that_kept_its_start_is_told_of(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate of nothing learns nothing."""
    main(command(folder, tmp_path / "policy", "--agent", "a2c", "--steps", "1024", "--set", "learning_rate=0"))
    assert "a2c KEPT ITS START: nothing it learned was better in validation" in capsys.readouterr().out


@pytest.mark.parametrize(("agent", "tells"), [("slateq", "network.hidden (int, default 64): units"), ("random", "no")])
def test_help_tells_the_settings_of_the_agent(agent: str, tells: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--agent", agent, "--help"])
    assert tells in capsys.readouterr().out
