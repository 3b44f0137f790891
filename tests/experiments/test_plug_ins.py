"""Plugged-in code that misbehaves ends a command in one line that names it, and exit code 2."""

import sys
from pathlib import Path

import pytest

from recloop.experiments.cli import main

PLUGGED = """
import sys
from recloop.agents.policy import Policy
from recloop.envs.logs.schema import Signal
from recloop.envs.users.contract import UserSimulator
from dataclasses import dataclass
from torch import Tensor
from recloop.envs.interaction.response import State

@dataclass(frozen=True)
class Hidden(State):
    users: Tensor

class Raising(Policy):
    def act(self, observation, carry, k, draw):
        return self.wanted(k)

    def wanted(self, k):
        raise KeyError("nobody knows this one")

class Leaving(Policy):
    def act(self, observation, carry, k, draw):
        sys.exit(0)

class Unmade(Policy):
    @classmethod
    def fit(cls, world, options):
        return open("/nowhere/weights")

class Users(UserSimulator):
    signals = (Signal("click"), Signal("rating", "ordinal", levels=(1, 2, 3, 4, 5), given_on="click"))
    def arrive(self, users, draw):
        return Hidden(users)
    def respond(self, state, past, slate, draw):
        pass

def reward(outcome):
    return [1.0]
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plugged", raising=False)
    return tmp_path / "plugged.py"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip()


def compared(folder: Path, *more: str) -> tuple[str, ...]:
    return ("compare", str(folder), "--out", "runs", "--episodes", "4", "--seeds", "1", "--no-progress", *more)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--policies", "plugged:Raising"),
            "plugged:Raising.act(observation, carry=None, k=3, draw) raised KeyError: 'nobody knows this one' "
            "(plugged.py, line 19)",
        ),
        (
            ("--policies", "plugged:Leaving"),
            "plugged:Leaving.act(observation, carry=None, k=3, draw) raised SystemExit(0)",
        ),
        (("--policies", "plugged:Unmade"), "plugged:Unmade.fit(world, options) raised FileNotFoundError"),
        (
            ("--policies", "random", "--users", "plugged:Users"),
            "Users breaks its contract: (1) respond returns None; it must answer",
        ),
        (("--policies", "random", "--reward", "plugged:reward"), "plugged:reward(outcome) returned a list of 1"),
    ],
)
def test_who_misbehaves_is_named(
    plugged: Path, folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str
) -> None:
    plugged.write_text(PLUGGED)
    found = said(capsys, *compared(folder, *arguments))
    assert line in found
    assert len(found.splitlines()) == 1


def test_a_module_that_fails_to_import_is_named(
    plugged: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugged.write_text("import sys\nsys.exit(0)\n")
    found = said(capsys, *compared(folder, "--policies", "plugged:Mine"))
    assert found == "recloop: importing plugged raised SystemExit(0) (plugged.py, line 2); --debug shows the traceback"


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")])
def test_debug_shows_the_traceback_of_the_plugged_in_code_alone(
    plugged: Path, folder: Path, capsys: pytest.CaptureFixture[str], jobs: tuple[str, ...]
) -> None:
    plugged.write_text(PLUGGED)
    found = said(capsys, "--debug", *compared(folder, "--policies", "plugged:Leaving", "random", *jobs)).splitlines()
    assert found[0].startswith("Traceback")
    assert 'plugged.py", line 23, in act' in found[1]
    assert found[-1].startswith("recloop: plugged:Leaving.act(")
    assert sum("File " in line for line in found) == 1
