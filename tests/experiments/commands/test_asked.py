"""What commands ask of a world beside its own: another reward, rules, users to train in."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from recloop.agents.observed import Observed
from recloop.agents.registry import load_policy, make_policy, save_policy
from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.truth.boredom import BoredomUsers
from recloop.envs.world.world import World
from recloop.experiments.asked import asked_world, in_own_users
from recloop.experiments.cli import main
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.comparison.evaluate import evaluate

RULES = "never: [category=cooking]\nat_most: {category: 3}\n"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def test_a_policy_keeps_the_reward_and_rules_it_was_trained_for(folder: Path, tmp_path: Path, rules: Path) -> None:
    out = tmp_path / "policy"
    command = ["train", str(folder), "--agent", "recloop-ppo", "--steps", "512", "--num-envs", "16", "--episodes", "4"]
    main([*command, "--no-progress", "--reward", "rating=0.5", "leaving=-1", "--rules", str(rules), "--out", str(out)])
    policy = load_policy(out)
    assert policy.serving is not None
    kept = policy.serving.world
    assert kept.reward == WeightedReward({"rating": 0.5}, leaving=-1.0)
    assert kept.rules.never == ("category=cooking",)
    assert json.loads((out / "policy.json").read_text())["rules"] == kept.rules.as_dict()
    cooking = _cooking(kept)
    found = policy.recommend_many([Observed(), Observed()], k=3)
    assert all(kept.catalogue.rows[item] not in cooking for items in found for item in items)
    free = policy.recommend(Observed(), k=3, rules={"only": ["category=cooking"]})
    assert all(kept.catalogue.rows[item] in cooking for item in free)


def _cooking(world: World) -> set[int]:
    found = world.catalogue.columns.labels["category"]
    return set((found.codes == found.names.index("cooking")).nonzero()[:, 0].tolist())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--reward", "clik=1"], "unknown reward term 'clik'; did you mean 'click'"),
        (["--reward", "click=1", "--rules", "no-such.yaml"], "--rules no-such.yaml cannot be read"),
        (["--users", "nobody:Users"], "cannot import nobody:Users"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    folder: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", str(folder), "--agent", "a2c", "--out", str(tmp_path / "policy"), *flags])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "policy").exists()


@pytest.mark.parametrize("name", ["random", "popularity", "greedy", "planner"])
def test_no_baseline_breaks_a_rule(truth: World, rules: Path, name: str) -> None:
    world = asked_world(truth, rules=rules)
    shown = evaluate(make_policy(name, world), world, "truth", episodes=20).shown
    assert sum(shown[row] for row in _cooking(world)) == 0
    assert shown.sum() > 0


def test_a_ranking_gives_its_own_next_best(truth: World) -> None:
    """Popularity under a cap shows its most popular items of each topic, not just anything."""
    world = truth.with_rules({"at_most": {"category": 2}})
    popular = world.catalogue.popularity
    codes = world.catalogue.columns.labels["category"].codes
    slate = evaluate(make_policy("popularity", world), world, "truth", episodes=4).trace_slate[0].tolist()
    best = []
    for row in popular.argsort(descending=True, stable=True).tolist():
        if sum(int(codes[other] == codes[row]) for other in best) < 2:
            best.append(row)
    assert slate == best[:3]


def test_a_comparison_says_what_a_policy_was_made_for(truth: World, tmp_path: Path, rules: Path) -> None:
    save_policy(make_policy("popularity", truth), tmp_path / "made")
    config = CompareConfig(
        world=tmp_path, policies=("random", str(tmp_path / "made")), seeds=1, episodes=4, out=tmp_path / "run",
        reward=("rating=1",), rules=rules, progress=False,
    )  # fmt: skip
    found = compare(truth, config)
    assert [one.note for one in found.contenders] == [
        "",
        "was made for the reward click=1 and is judged by rating=1; "
        "it was made under other rules than it is judged under",
    ]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "made was made for the reward click=1 and is judged by rating=1" in report
    assert "Never shown: category=cooking." in report
    assert "Places that the rules filled and not the policy: random " in report
    assert "reward:\n- rating=1" in (tmp_path / "run" / "config.yaml").read_text()


def _eager(truth: World, broken: bool) -> type[BoredomUsers]:
    users = truth.simulators["truth"]
    assert isinstance(users, BoredomUsers)

    class Eager(BoredomUsers):
        def __init__(self) -> None:
            super().__init__(users.preference, users.topic, users.traits, users.rules)

        def respond(self, state: object, past: Past, slate: Tensor, draw: Draw) -> tuple[object, Response]:
            state, response = super().respond(state, past, slate, draw)  # type: ignore[arg-type]
            return state, replace(response, signals=response.signals * torch.nan) if broken else response

    return Eager


def test_training_in_users_of_ones_own(truth: World, judged: World, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_users")
    module.Eager, module.Broken = _eager(truth, False), _eager(truth, True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_users", module)
    world = in_own_users(judged, "my_users:Eager", "cpu")
    assert [type(world.simulators[name]).__name__ for name in ("train", "validation", "judge")] == [
        "Eager",
        "Eager",
        "BoredomUsers",
    ]
    with pytest.raises(UserSimulatorError, match="Eager breaks its contract") as error:
        in_own_users(judged, "my_users:Broken", "cpu")
    assert len(str(error.value).splitlines()) == 1


def test_agents_that_meet_no_users_are_told_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", str(folder), "--agent", "sasrec", "--users", "x:Y", "--out", str(tmp_path / "policy")])
    assert "'sasrec' learns nothing in the loop, where users answer; leave --users out" in capsys.readouterr().err
