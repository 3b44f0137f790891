"""Plugging in: what is there is listed, and the template passes its check and trains PPO."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from recloop.envs.users import registry
from recloop.envs.users.checks import check_users
from recloop.envs.world.world import World
from recloop.experiments.cli import main
from recloop.experiments.template_users import MoodyUsers, TemplateConfig
from recloop.experiments.template_users import main as run_template

TEMPLATE = "recloop.experiments.template_users:MoodyUsers"


def test_everything_there_is_listed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = [
        _point("moody", TEMPLATE, MoodyUsers),
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


def test_the_template_keeps_the_contract(truth: World) -> None:
    check_users(MoodyUsers(), truth)


@pytest.mark.slow
def test_the_template_trains_ppo() -> None:
    values = run_template(TemplateConfig())
    assert values["ppo"] > 1.2 * values["random"]


def _point(name: str, path: str, found: object) -> SimpleNamespace:
    def load() -> object:
        if isinstance(found, Exception):
            raise found
        return found

    return SimpleNamespace(name=name, value=path, load=load)
