"""What README and docs show is true: their code runs, and their commands take the options they are given."""

import csv
import importlib.util
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import tyro

from recloop.agents.registry import make_policy
from recloop.envs import built_in_world, check_users
from recloop.envs.logs.schema import LoggedBehavior
from recloop.envs.users.registry import find_simulator
from recloop.experiments.cli import COMMANDS
from recloop.experiments.commands.check_log import CheckLogConfig
from recloop.experiments.comparison.evaluate import Evaluator

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES if "_build" not in page.parts}
BLOCKS = [
    (page, kind, code)
    for page, text in TEXTS.items()
    for kind, code in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL)
]
MOST_README_LINES = 150


def _block(first_line: str) -> str:
    return next(text for _, kind, text in BLOCKS if kind == "python" and text.startswith(first_line))


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


def test_the_logs_of_the_page_are_read_as_it_says(tmp_path: Path) -> None:
    page = TEXTS["docs/guides/own_log.md"]
    pairs = re.findall(r"```text\n(.*?)```\n+```sh\nrecloop check-log (\S+)([^\n]*)\n", page, flags=re.DOTALL)
    assert len(pairs) == 6
    kinds = {}
    for text, name, flags in pairs:
        (tmp_path / name).write_text(text, encoding="utf-8")
        config = tyro.cli(CheckLogConfig, args=[str(tmp_path / name), *shlex.split(flags)], use_underscores=False)
        log, _ = config.read()
        kinds[name] = (len(log.users), len(log.interactions), log.has_exposures, [s.name for s in log.signals])
    assert kinds == {
        "anime.csv": (2, 4, False, ["consume", "rating"]),
        "impressions.csv": (2, 4, True, ["click"]),
        "lists.csv": (2, 4, True, ["clicks"]),
        "events.csv": (2, 3, True, ["click", "purchase"]),
        "sessions.csv": (2, 3, False, ["consume"]),
        "bare.csv": (2, 3, False, ["consume"]),
    }


def test_twenty_lines_and_ten() -> None:
    def count(name: str) -> int:
        lines = _block(f"# {name}.py").splitlines()
        return len([line for line in lines if line.strip() and not line.startswith(("#", "import", "from"))])

    assert count("my_users") <= 20
    assert count("my_policy") <= 10


@pytest.mark.parametrize("code", [code for _, kind, code in BLOCKS if kind == "python" and "import" in code])
def test_code_runs_as_it_stands(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= MOST_README_LINES


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", TEXTS[page])
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def _named() -> dict[str, set[str]]:
    """Modules that pages, docstrings, messages and the tables of results tell one to run, and commands of `recloop`."""
    texts = list(TEXTS.values())
    rooms = ("recloop", "encoders", "envs", "agents", "experiments", "examples")
    texts += [source.read_text(encoding="utf-8") for room in rooms for source in (ROOT / room).rglob("*.py")]
    for table in (ROOT / "experiments" / "results").glob("*.csv"):
        with table.open(encoding="utf-8", newline="") as file:
            texts += sorted({f"    {row['command']}" for row in csv.DictReader(file)})
    text = "\n".join(texts)
    return {
        "modules": set(re.findall(r"python3? -m (recloop[\w.]*)", text)),
        "scripts": set(re.findall(r"python3? ([\w./-]+\.py)", text)),
        "commands": set(re.findall(r"(?:^ {4}|`)recloop ([a-z-]+)", text, flags=re.MULTILINE)),
    }


def test_what_one_is_told_to_run_exists() -> None:
    named = _named()
    assert [name for name in named["modules"] if importlib.util.find_spec(name) is None] == []
    assert [path for path in named["scripts"] if not (ROOT / path).exists()] == []
    assert sorted(named["commands"] - set(COMMANDS)) == []


def test_a_truth_world_writes_its_log() -> None:
    found: dict[str, object] = {}
    exec(_block("from recloop.envs.truth"), found)
    log = found["log"]
    assert isinstance(log, LoggedBehavior)
    assert log.has_exposures
    assert {"policy", "propensity", "session_end"} <= set(log.interactions.columns)


def _commands() -> list[str]:
    lines = "\n".join(text for _, kind, text in BLOCKS if kind == "sh").splitlines()
    return sorted({line.split("#")[0].strip() for line in lines if line.startswith("recloop ")})


@pytest.mark.parametrize("line", _commands())
def test_commands_take_what_the_pages_give_them(line: str) -> None:
    import tyro

    _, name, *arguments = shlex.split(line)
    module, _, settings = COMMANDS[name][0].partition(":")
    tyro.cli(getattr(import_module(module), settings), args=arguments, use_underscores=False)


def test_torch_threads_are_left_alone() -> None:
    before = torch.get_num_threads()
    import_module("recloop.envs.truth.built_in")
    assert torch.get_num_threads() == before
