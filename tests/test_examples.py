"""The examples run, in small."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL: dict[str, dict[str, Any]] = {
    "plain_sb3": {"steps": 1024},
    "cleanrl_loop": {"updates": 3},
    "own_users": {"steps": 512, "episodes": 20},
    "own_reward": {"episodes": 20},
    "own_policy": {"episodes": 100},
    "own_log": {"passes": 1},
}
LONGEST = 60


def _load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_an_example_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= LONGEST
    found = _load(name, monkeypatch).main(**SMALL[name])
    values = found.values() if isinstance(found, dict) else found if isinstance(found, list) else [found]
    assert all(value == value for value in values)


def test_an_own_policy_beats_random(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _load("own_policy", monkeypatch).main(300)
    assert found["Nearest"] > found["random"]


def test_the_notebook_runs() -> None:
    cells = json.loads((EXAMPLES / "first_look.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["values"]["random"] < names["values"]["popularity"]


@pytest.mark.slow
def test_ppo_learns_in_users_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    values = _load("own_users", monkeypatch).main()
    assert values["ppo"] > 1.2 * values["random"]
