"""`recloop transfer`: it measures, keeps a policy that `recloop compare` takes, and refuses in one line."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy, save_policy
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.envs.truth.catalogue import CLIPS, RECIPES
from recloop.envs.truth.logs import lived_world
from recloop.envs.truth.worlds import truth_world
from recloop.envs.world.world import World
from recloop.experiments.cli import main as cli
from recloop.experiments.policy_table import COLUMNS
from recloop.experiments.transfer.command import TransferConfig, main
from recloop.experiments.transfer.measure import users_of

SETTINGS = {"items": ("text",), "backbone": "mean", "dim": 384, "epochs": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("transfer")
    for seed, (name, theme) in enumerate((("clips", CLIPS), ("recipes", RECIPES))):
        world = replace(truth_world("clicks", users=120, items=60, seed=seed, theme=theme), name=name)
        lived_world(replace(world, consumes_twice=False), seed=seed).save(root / name)
        if name == "clips":
            lived = lived_world(world)
            save_policy(make_policy("sasrec", lived, FitOptions(settings=SETTINGS)), root / "policy")
            save_policy(make_policy("popularity", lived), root / "popularity")
    return root


def test_it_measures_and_keeps_a_policy_of_the_other_world(folders: Path, tmp_path: Path) -> None:
    config = TransferConfig(
        folders / "policy", folders / "recipes", users=("0", "8"), seeds=1, k=5, episodes=20, out=tmp_path / "moved",
        table=tmp_path / "transfer.csv",
    )  # fmt: skip
    rows = main(config)
    table = pd.read_csv(tmp_path / "transfer.csv")
    assert tuple(table.columns) == COLUMNS
    assert len(table) == len(rows)
    assert set(table["world"]) == {"clips -> recipes"}
    told = {(what, policy) for what, policy in zip(table["what"], table["policy"], strict=True)}
    for metric in ("ndcg@5", "recall@5", "return"):
        who = ("transferred", "untrained", "random", "popularity of all")
        assert {(f"{metric}, 0 users", policy) for policy in who} <= told
        few = ("transferred", "from scratch", "popularity")
        assert {(f"{metric}, 8 users", policy) for policy in few} <= told
        assert (f"{metric}, 8 users, to from scratch", "transferred") in told
    assert (table["low"] <= table["mean"]).all()
    moved = make_policy(tmp_path / "moved", World.load(folders / "recipes"))
    assert moved.name == "sasrec"
    with pytest.raises(RecloopError, match="holds another policy"):
        main(replace(config, users=("0",)))


def test_what_cannot_be_transferred_ends_in_one_line(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli(["transfer", str(folders / "popularity"), str(folders / "recipes"), "--users", "0"])
    assert stop.value.code == 2
    assert "knows the items of its own world" in capsys.readouterr().err
    with pytest.raises(PolicyError, match=r"users=5000 of the \d+ train users"):
        main(TransferConfig(folders / "policy", folders / "recipes", users=("0", "5000")))


def test_numbers_of_users_are_read() -> None:
    assert users_of(("0", "20", "all")) == (0, 20, None)
    for wrong in (("five",), ("-1",), ()):
        with pytest.raises(PolicyError, match="give numbers of train users from 0, or all"):
            users_of(wrong)
    with pytest.raises(RecloopError, match="--episodes 1;"):
        TransferConfig(Path("p"), Path("w"), episodes=1)
