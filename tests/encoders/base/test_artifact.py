"""One way to disk: what is saved comes back, and what cannot be read is refused in one line."""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor

import recloop
from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import EncoderError, RecloopError
from recloop.encoders.base.manifest import Manifest


class Pair(Artifact):
    """Two numbers, and a smaller pair inside. Format 1 called the number `size`."""

    artifact_file = "pair"
    artifact_format = 3

    def __init__(self, number: int, table: Tensor, inner: "Pair | None" = None) -> None:
        self.number, self.table, self.inner = number, table, inner

    def stored_facts(self) -> dict[str, Any]:
        return {"number": self.number, "nested": self.inner is not None}

    def stored_tensors(self) -> dict[str, Tensor]:
        return {"table": self.table}

    def stored_children(self) -> dict[str, Artifact]:
        return {} if self.inner is None else {"inner": self.inner}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        inner = cls.load(folder / "inner") if facts["nested"] else None
        return cls(facts["number"] + context.get("more", 0), tensors["table"], inner)

    @classmethod
    def migrated(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], found: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if found != 1:
            return super().migrated(facts, tensors, found)
        return {"number": facts["size"], "nested": False}, tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Pair(3, torch.arange(4.0), Pair(5, torch.ones(2))).save(tmp_path / "pair")
    return tmp_path / "pair"


def _change(folder: Path, **facts: Any) -> None:
    path = folder / "pair.json"
    kept = {**json.loads(path.read_text()), **facts}
    path.write_text(json.dumps({name: value for name, value in kept.items() if value is not None}))
    Manifest.of(folder).write(folder)


def test_it_comes_back_with_what_is_inside(folder: Path) -> None:
    pair = Pair.load(folder, more=10)
    assert pair.number == 13
    assert torch.equal(pair.table, torch.arange(4.0))
    assert pair.inner is not None
    assert pair.inner.number == 5
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_saving_replaces_the_folder_whole(folder: Path) -> None:
    (folder / "left over").write_text("")
    Pair(1, torch.zeros(1)).save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "pair.json", "pair.safetensors"]


def test_an_older_format_is_migrated_and_one_without_a_number_is_the_first(folder: Path) -> None:
    _change(folder, format=None, number=None, size=8)
    assert Pair.load(folder).number == 8


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"format": 4}, "has format 4, this recloop reads up to 3; upgrade recloop"),
        ({"format": 2}, "format 2 is no longer read, this recloop reads 3"),
        ({"number": None}, "lack 'number'; make the folder anew"),
        ({"number": "three"}, "do not fit: .*; make the folder anew"),
        ({"format": "new"}, "does not hold the facts of Pair"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(folder: Path, facts: dict[str, Any], said: str) -> None:
    _change(folder, **facts)
    with pytest.raises(EncoderError, match=said) as error:
        Pair.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["pair.json", "pair.safetensors", "inner/pair.json"])
def test_half_a_file_is_said_in_one_line(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecloopError) as error:
        Pair.load(folder)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_every_artifact_names_its_file_and_says_how_it_is_read_back() -> None:
    for room in ("encoders", "envs", "agents"):
        package = importlib.import_module(f"recloop.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    waiting, found = [Artifact], []
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found += [kind] if kind is not Artifact and kind.__module__.startswith("recloop.") else []
    assert len(found) > 10
    assert [kind for kind in found if not getattr(kind, "artifact_file", "")] == []
    assert [kind for kind in found if kind.restored.__func__ is Artifact.restored.__func__] == []  # type: ignore[attr-defined]


def test_a_world_is_made_of_artifacts_that_refuse_newer_formats(tmp_path: Path) -> None:
    world = recloop.built_in_world()
    world.save(tmp_path / "world")
    held = [path for path in (tmp_path / "world").rglob("*.json") if "format" in json.loads(path.read_text())]
    assert len(held) > 3
    for path in held:
        kept = path.read_text()
        path.write_text(json.dumps({**json.loads(kept), "format": 99}))
        Manifest.of(tmp_path / "world").write(tmp_path / "world")
        with pytest.raises(RecloopError, match="has format 99") as error:
            recloop.World.load(tmp_path / "world")
        assert "\n" not in str(error.value)
        path.write_text(kept)
        Manifest.of(tmp_path / "world").write(tmp_path / "world")
    assert recloop.World.load(tmp_path / "world").fingerprint == world.fingerprint


def _artifacts_of(root: object) -> list[Artifact]:
    """All artifacts that hang together, by attributes and in containers."""
    found: dict[int, Artifact] = {}
    waiting, seen = [root], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, str | int | float | Tensor | type | None):
            continue
        seen.add(id(one))
        if isinstance(one, Artifact):
            found[id(one)] = one
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif type(one).__module__.startswith("recloop."):
            waiting += vars(one).values()
    return list(found.values())


def test_what_a_world_holds_comes_back_equal(tmp_path: Path) -> None:
    world = recloop.built_in_world()
    held = _artifacts_of(world)
    assert len({type(one) for one in held}) >= 3
    for number, one in enumerate(held):
        one.save(tmp_path / f"{number}")
        context = {"item_vectors": world.item_vectors} if "support" in one.artifact_file else {}
        type(one).load(tmp_path / f"{number}", **context).save(tmp_path / f"{number} again")
        for path in (tmp_path / f"{number}").rglob("*.*"):
            again = tmp_path / f"{number} again" / path.relative_to(tmp_path / f"{number}")
            assert path.read_bytes() == again.read_bytes(), (type(one).__name__, path.name)
