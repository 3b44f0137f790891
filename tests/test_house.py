"""The house stands: imports point one way, every package is listed, and the examples in docstrings are true."""

import ast
import doctest
import pkgutil
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("encoders", "envs", "agents", "experiments")
"""Each may import itself and those before it."""


def _imports(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    later = ROOMS[ROOMS.index(room) + 1 :]
    wrong = [
        (str(source.relative_to(ROOT)), name)
        for source in (ROOT / room).rglob("*.py")
        for name in _imports(source)
        if name.split(".")[0] == "recloop" and len(name.split(".")) > 1 and name.split(".")[1] in later
    ]
    assert wrong == []


def test_every_package_on_disk_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {
        "recloop." + ".".join(source.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for source in (ROOT / room).rglob("*.py")
    }
    assert sorted(on_disk) == sorted(listed)


def test_no_drawers_without_a_name() -> None:
    nameless = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [s for room in ROOMS for s in (ROOT / room).rglob("*.py") if {s.stem, s.parent.name} & nameless] == []


@pytest.mark.parametrize("room", ROOMS)
def test_examples_in_docstrings(room: str) -> None:
    package = import_module(f"recloop.{room}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        failed, _ = doctest.testmod(import_module(module.name))
        assert failed == 0, module.name
