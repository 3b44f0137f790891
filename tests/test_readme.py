"""What the README shows is true: its code runs, and its commands take the options it gives them."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from recloop.agents.registry import make_policy
from recloop.envs import built_in_world, check_users
from recloop.envs.logs.schema import LoggedBehavior
from recloop.envs.users.registry import find_simulator
from recloop.experiments.cli import COMMANDS
from recloop.experiments.comparison.evaluate import Evaluator

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def _block(first_line: str) -> str:
    return next(text for kind, text in BLOCKS if kind == "python" and text.startswith(first_line))


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("my_users", "my_policy"):
        (tmp_path / f"{name}.py").write_text(_block(f"# {name}.py"), encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_your_own_users_keep_the_contract(modules: Path) -> None:
    simulator = find_simulator("my_users:MoodyUsers")()
    check_users(simulator, built_in_world())
    arena = Evaluator(built_in_world(), simulator, episodes=20)
    assert arena.run(make_policy("popularity", built_in_world())).length.mean() > 1


def test_your_own_policy_beats_random(modules: Path) -> None:
    world = built_in_world()
    arena = Evaluator(world, "truth", episodes=300)
    mine, random = (arena.run(make_policy(name, world)).value.mean() for name in ("my_policy:Nearest", "random"))
    assert mine > random


def test_twenty_lines_and_ten() -> None:
    def count(name: str) -> int:
        lines = _block(f"# {name}.py").splitlines()
        return len([line for line in lines if line.strip() and not line.startswith(("#", "import", "from"))])

    assert count("my_users") <= 20
    assert count("my_policy") <= 10


def test_the_environment_snippet_runs() -> None:
    code = _block("import gymnasium as gym")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_truth_world_writes_its_log() -> None:
    found: dict[str, object] = {}
    exec(_block("from recloop.envs.truth"), found)
    log = found["log"]
    assert isinstance(log, LoggedBehavior)
    assert log.has_exposures
    assert {"policy", "propensity", "session_end"} <= set(log.interactions.columns)


def _commands() -> list[str]:
    lines = "\n".join(text for kind, text in BLOCKS if kind == "sh").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("recloop ")]


@pytest.mark.parametrize("line", _commands())
def test_commands_take_what_the_readme_gives_them(line: str) -> None:
    import tyro

    _, name, *arguments = shlex.split(line)
    module, _, settings = COMMANDS[name][0].partition(":")
    tyro.cli(getattr(import_module(module), settings), args=arguments, use_underscores=False)


def test_torch_threads_are_left_alone() -> None:
    before = torch.get_num_threads()
    import_module("recloop.envs.truth.built_in")
    assert torch.get_num_threads() == before
