"""The command line: help is quick, bad input is one line and exit code 2, and nothing half-written is left."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy, save_policy
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.manifest import Manifest
from recloop.envs.world.world import FORMAT, World
from recloop.experiments.cli import COMMANDS, guarded, main

COMMON = ["--no-progress"]


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command fails with."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 2
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("recloop: ")
    return lines[0]


def test_the_overview_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from recloop.experiments.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'pandas', 'tyro', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: recloop {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_script_too(name: str) -> None:
    from importlib import import_module

    module = import_module(COMMANDS[name][0].partition(":")[0])
    assert callable(module.main)
    assert f"recloop {name}" in (module.__doc__ or ""), "the docstring begins with the commands"


def test_an_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown command 'comapre'; did you mean 'compare'?" in fails(capsys, "comapre")


def test_bad_arguments_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--seeds" in fails(capsys, "compare", "w", "--seeds", "abc")
    assert "--history" in fails(capsys, "recommend", "p", "--hitsory", "3")
    assert "--out" in fails(capsys, "train")
    assert "--seeds 0 is too few; it must be at least 1" in fails(capsys, "compare", "w", "--seeds", "0")
    assert "--k 0 is too few" in fails(capsys, "recommend", "p", "--k", "0")


def test_worlds_that_are_missing_half_written_or_newer(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    assert "does not exist; make it with `recloop build LOG" in fails(capsys, "inspect", tmp_path / "none")
    half = shutil.copytree(folder, tmp_path / "half")
    (half / "world.json").unlink()
    assert "is half-written: world.json is missing" in fails(capsys, "inspect", half)
    newer = shutil.copytree(folder, tmp_path / "newer")
    facts = json.loads((newer / "world.json").read_text())
    (newer / "world.json").write_text(json.dumps({**facts, "format": FORMAT + 1}))
    said = fails(capsys, "inspect", newer)
    assert f"has format {FORMAT + 1}, this recloop reads up to {FORMAT}; upgrade recloop" in said


def test_unknown_agents_and_devices(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "policy"
    assert "did you mean 'ppo'" in fails(capsys, "train", folder, "--agent", "pppo", "--out", out)
    assert "device 'cuda:9' is not usable" in fails(capsys, "train", folder, "--device", "cuda:9", "--out", out)
    said = fails(capsys, "compare", folder, "--policies", "popularty", "--out", out)
    assert "unknown policy 'popularty'; did you mean 'popularity'?" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_else_is_never_replaced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    said = fails(capsys, "train", folder, "--agent", "popularity", "--out", tmp_path)
    assert "exists and is no policy (policy.json is missing)" in said
    said = fails(capsys, "build", tmp_path / "log", "--out", tmp_path)
    assert "exists and is no world (world.json is missing)" in said
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_missing_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path / "none") in fails(capsys, "build", tmp_path / "none", "--out", tmp_path / "w")
    assert not (tmp_path / "w").exists()
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert "empty.csv" in fails(capsys, "build", empty, "--out", tmp_path / "w")
    assert "write WHAT=COLUMN" in fails(capsys, "build", empty, "--columns", "user", "--out", tmp_path / "w")
    assert "--signals rating:high" in fails(capsys, "build", empty, "--signals", "rating:high", "--out", tmp_path / "w")


def test_train_then_recommend_by_external_ids(
    folder: Path, judged: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"
    main(["train", str(folder), "--agent", "popularity", "--episodes", "20", "--out", str(out), *COMMON])
    said = capsys.readouterr().out
    assert "validation users: return" in said
    assert (tmp_path / "policy-tensorboard").is_dir()
    popular = judged.catalogue.popularity.argsort(descending=True, stable=True)[:4]
    ids = [judged.catalogue.ids[row] for row in popular.tolist()]
    main(["recommend", str(out), "--history", f"{ids[0]}, {ids[2]}", "--k", "2"])
    table = capsys.readouterr().out
    assert ids[1] in table
    assert ids[3] in table
    assert judged.catalogue.titles[int(popular[1])] in table
    main(["recommend", str(out), "--feedback", "rating=5,", "--history", f"{ids[0]},{ids[1]}", "--k", "1"])
    assert ids[2] in capsys.readouterr().out
    assert "holds item 'nobody'" in fails(capsys, "recommend", out, "--history", "nobody")
    assert "--feedback rating is not understood" in fails(capsys, "recommend", out, "--feedback", "rating")


def test_inspect_tells_the_card(folder: Path, judged: World, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", str(folder), "--top", "3"])
    said = capsys.readouterr().out
    for piece in (*judged.card.learned, *judged.card.assumed, *judged.card.not_claimed):
        assert piece in said
    assert "train, judge" in said
    assert "repeat_rate" in said
    assert judged.catalogue.titles[int(judged.catalogue.popularity.argmax())] in said


def test_compare_from_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    arguments = ["--policies", "random", "popularity", "--seeds", "2", "--episodes", "24", "--out", str(out)]
    main(["compare", str(folder), *arguments, *COMMON])
    said = capsys.readouterr().out
    assert "training users: return an episode" in said
    assert str(out / "report.html") in said
    with (out / "results.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 2 * 2 * 2


def test_an_interruption_ends_with_130_and_what_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt("interrupted; 3 of 4 results are kept in runs/x")

    with pytest.raises(SystemExit) as stop:
        guarded(stopped)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "recloop: interrupted; 3 of 4 results are kept in runs/x\n"


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(28, os.strerror(28), "runs/x/results.csv")
    with pytest.raises(SystemExit) as stop:
        guarded(Mock(side_effect=full))
    assert stop.value.code == 2
    assert "runs/x/results.csv: No space left on device" in capsys.readouterr().err


def test_more_threads_than_the_system_gives_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(capsys, "recommend", "policies/none", "--threads", "100000")
    assert "--threads 100000 is too many for" in line
    assert "give 1 to " in line


def test_threads_are_set(folder: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        main(
            [
                "train",
                str(folder),
                "--agent",
                "random",
                "--threads",
                "1",
                "--episodes",
                "8",
                "--out",
                str(tmp_path / "p"),
                *COMMON,
            ]
        )
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_check_users_names_each_broken_promise(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users_of_mine.py").write_text(
        "from recloop.envs.truth.boredom import BoredomUsers\n"
        "class NeedsArguments(BoredomUsers): pass\n"
        "class Nothing(BoredomUsers):\n"
        "    signals = ()\n"
        "    def __init__(self): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    said = fails(capsys, "check-users", "users_of_mine:NeedsArguments", "--world", folder)
    assert "cannot be made without arguments" in said
    said = fails(capsys, "check-users", "users_of_mine:Nothing", "--world", folder)
    assert "breaks its contract: (1) `signals` is no tuple of Signal" in said
    assert "cannot import users_of_mine:Missing" in fails(capsys, "check-users", "users_of_mine:Missing")


def test_what_an_output_cannot_show_is_replaced(folder: Path, judged: World, tmp_path: Path) -> None:
    """As on Windows, where a file takes the characters of cp1252 alone."""
    titles = tuple(f"日本 {row} \x1b[2J" for row in range(len(judged.catalogue)))
    world = replace(judged, name="Ёлки", catalogue=replace(judged.catalogue, titles=titles))
    world.save(tmp_path / "w")
    command = [sys.executable, "-m", "recloop.experiments.cli", "inspect", str(tmp_path / "w")]
    surroundings = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, capture_output=True, env=surroundings, timeout=120)
    assert done.returncode == 0, done.stderr
    assert b"?? 2 \\x1b[2J" in done.stdout
    done = subprocess.run([*command, "--user", "日本"], capture_output=True, env=surroundings, timeout=120)
    assert done.returncode == 2
    assert b"'??'" in done.stderr


def test_ids_with_commas_are_quoted_or_given_one_by_one(
    judged: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ("Cafe, noir", '12" single', "seen", *judged.catalogue.ids[3:])
    world = replace(judged, catalogue=replace(judged.catalogue, ids=ids))
    policy = str(tmp_path / "policy")
    save_policy(make_policy("popularity", world, FitOptions()), Path(policy))
    asked = ["recommend", policy, "--k", str(len(ids) - 2)]
    for history in (
        ["--history", '"Cafe, noir", "12"" single"'],
        ["--history", "Cafe, noir", "--history", '12" single'],
        ["--exclude", '"Cafe, noir","12"" single"'],
    ):
        main([*asked, *history])
        table = capsys.readouterr().out
        assert "Cafe, noir" not in table
        assert '12" single' not in table
        assert "seen" in table
    main(["recommend", policy, "--exclude", '"seen"', "--k", "1", "--candidates", "seen", "--candidates", "Cafe, noir"])
    assert "Cafe, noir" in capsys.readouterr().out
    assert "into double quotes" in fails(capsys, "recommend", policy, "--history", '"Cafe, noir')
    assert "holds item 'Cafe'" in fails(capsys, "recommend", policy, "--history", "Cafe, noir")
    assert "holds item '\\x1b[2J'" in fails(capsys, "recommend", policy, "--history", "\x1b[2J")


def test_simulators_that_are_called_like_paths_are_refused(
    folder: Path, judged: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    moved = shutil.copytree(folder, tmp_path / "worlds" / "moved")
    shutil.copytree(folder / "simulators" / "judge", tmp_path / "worlds" / "outside")
    facts = json.loads((moved / "world.json").read_text())
    facts["simulators"] = ["../../outside" if name == "judge" else name for name in facts["simulators"]]
    (moved / "world.json").write_text(json.dumps(facts))
    Manifest.of(moved).write(moved)
    assert "the name '../../outside' of a simulator cannot be a file's" in fails(capsys, "inspect", moved)
    wild = judged.with_simulators(**{"../../outside": judged.simulators["judge"]})
    with pytest.raises(RecloopError, match=r"the name '\.\./\.\./outside' of a simulator"):
        wild.save(tmp_path / "a" / "wild")
    assert not list((tmp_path / "a").iterdir())
