"""Plugging in: what is there is listed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from recloop.envs.users import registry
from recloop.envs.users.per_user import PerUserSimulator
from recloop.experiments.cli import main


class MoodyUsers(PerUserSimulator):
    """Stands for what an installed package offers."""


def test_everything_there_is_listed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = [
        _point("moody", "own_users:MoodyUsers", MoodyUsers),
        _point("torn", "gone:Users", ImportError("No module named 'gone'")),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: offered)
    main(["users", "--world", str(folder)])
    said = " ".join(capsys.readouterr().out.split())
    assert all(kind in said for kind in registry.KINDS)
    assert all(name in said for name in ("train", "validation", "judge", "language", "moody", "MoodyUsers"))
    assert "click (binary)" in said
    assert "broken: cannot import gone:Users" in said


def test_without_entry_points_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(["users"])
    assert "No installed package offers any (entry points in recloop.users)" in capsys.readouterr().out


def _point(name: str, path: str, found: object) -> SimpleNamespace:
    def load() -> object:
        if isinstance(found, Exception):
            raise found
        return found

    return SimpleNamespace(name=name, value=path, load=load)
