"""The house stands: imports point one way, every package is listed, and the examples in docstrings are true."""

import ast
import doctest
import pkgutil
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("encoders", "envs", "agents", "experiments")
"""Each may import itself and those before it."""
CHECKOUT_ONLY = ("recloop.experiments.studies", "recloop.experiments.bench")
"""What measures recloop itself is not installed with it."""
MOST_FILES = 15


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
    installed = {name for name in on_disk if not name.startswith(CHECKOUT_ONLY)}
    assert sorted({"recloop", *installed}) == sorted(listed)


@pytest.mark.parametrize("top", [*ROOMS, "tests"])
def test_a_folder_can_be_taken_in_at_a_glance(top: str) -> None:
    files = Counter(str(source.parent.relative_to(ROOT)) for source in (ROOT / top).rglob("*.py"))
    assert {folder: count for folder, count in files.items() if count > MOST_FILES} == {}


def test_the_front_door_leads_somewhere() -> None:
    import recloop

    assert all(getattr(recloop, name) is not None for name in recloop.__all__)
    assert set(recloop.__all__) <= set(dir(recloop))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = recloop.nothing


_LOADING = "from recloop.encoders.base.artifact import Bounded, Path; Bounded(Path('nothing'))"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import recloop", ("torch", "gymnasium", "numpy")),
        ("import recloop.envs", ("torch", "sklearn", "pandas")),
        ("from recloop.envs import Core, World, built_in_world", ("sklearn", "torch._dynamo", "matplotlib", "numba")),
        ("from recloop import load_policy, make_policy", ("sklearn", "torch._dynamo", "matplotlib")),
        ("import recloop.experiments.comparison.workers", ("torch", "numpy")),  # until then a worker cannot die
        (f"{_LOADING}.__enter__(); import torch; torch.zeros(2)", ("torch._dynamo",)),
        ("from recloop.experiments.cli import main; main(['--help'])", ("torch", "gymnasium", "numpy", "tyro")),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_used(code: str, absent: tuple[str, ...]) -> None:
    check = f"{code}; import sys; print([name for name in {absent} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_supervised_fits_share_one_loop() -> None:
    """Only the learners of RL move weights themselves; every other fit goes through `encoders/base/fit.py`."""
    rooms = ("encoders", "envs", "agents/baselines", "experiments")
    sources = [source for room in rooms for source in (ROOT / room).rglob("*.py")]
    loops = [str(source.relative_to(ROOT)) for source in sources if ".backward(" in source.read_text(encoding="utf-8")]
    assert loops == ["encoders/base/fit.py"]


def test_no_drawers_without_a_name() -> None:
    nameless = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [s for room in ROOMS for s in (ROOT / room).rglob("*.py") if {s.stem, s.parent.name} & nameless] == []


@pytest.mark.parametrize("room", ROOMS)
def test_examples_in_docstrings(room: str) -> None:
    package = import_module(f"recloop.{room}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        failed, _ = doctest.testmod(import_module(module.name))
        assert failed == 0, module.name


def _modules() -> dict[str, Path]:
    sources = [source for room in ROOMS for source in (ROOT / room).rglob("*.py")]
    named = {"recloop." + ".".join(s.relative_to(ROOT).with_suffix("").parts): s for s in sources}
    return {name.removesuffix(".__init__"): source for name, source in named.items()}


def test_no_import_cycle() -> None:
    """Imports inside functions and for type checkers count; what an `__init__` re-exports only for these does not."""
    modules = _modules()
    graph: dict[str, set[str]] = {}
    for name, source in modules.items():
        found = set()
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & modules.keys()) or {node.module}
        graph[name] = found - {name}
    TopologicalSorter(graph).prepare()  # CycleError names the modules of a cycle


def test_a_class_name_stands_for_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for name, source in _modules().items():
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_a_core_is_stepped_in_few_places() -> None:
    """Everybody else acts through the one rollout."""
    simulation = {f"envs/simulation/{name}.py" for name in ("driver", "rollout", "ahead/expected_step")}
    allowed = {*simulation, "agents/learners/loop.py"}
    calls = {
        str(source.relative_to(ROOT))
        for room in ROOMS
        for source in (ROOT / room).rglob("*.py")
        if "core.step(" in source.read_text(encoding="utf-8")
    }
    assert {path for path in calls - allowed if not path.startswith(("envs/skins/", "experiments/bench/"))} == set()
