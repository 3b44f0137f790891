"""TensorBoard: the table and the code agree, and what is written is in the table."""

import re
from pathlib import Path

import pytest
import torch

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy
from recloop.envs.world.world import World
from recloop.experiments.comparison import tracking
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.tracking import LEARNERS_TAGS, Run, Tags, contract_tag, kept_start


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar in the event files of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def matches(tag: str) -> bool:
    patterns = (re.escape(t).replace("SIMULATOR", r"[\w.-]+").replace("NAME", r"[\w./-]+") for t in Tags.all())
    return any(re.fullmatch(pattern, tag) for pattern in patterns)


def test_the_table_in_the_docs_lists_the_tags_of_the_code() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", tracking.__doc__ or "", flags=re.MULTILINE)
    table = [tag for row in rows for tag in re.findall(r"`([^`]+)`", row)]
    assert sorted(table) == sorted(Tags.all())
    assert len(set(table)) == len(table) <= 20


def test_every_learners_tag_has_a_place_in_the_table() -> None:
    assert all(matches(tag) for tag in LEARNERS_TAGS.values())
    for tag in ("train/clip_fraction", "rollout/exploration_rate", "anything", "validation/return"):
        assert matches(contract_tag(tag)), tag


def test_a_run_that_goes_on_keeps_every_point_once(tmp_path: Path) -> None:
    """Killed after the loop's last checkpoint, before or after `train` validated what came out, at the same step."""
    points = [(10, 0.1), (20, 0.3), (20, 1.25)]
    for killed_after in (1, 2, 3):
        folder = tmp_path / str(killed_after)
        with Run(folder) as run:
            for step, value in points[:killed_after]:
                run.log("validation/return", value, step)
        with Run(folder) as again:
            again.go_on(points[min(killed_after, 2) - 1][0])
            for step, value in points[min(killed_after, 2) - 1 :]:
                again.log("validation/return", value, step)
        expected = {
            "validation/return": [(step, pytest.approx(value)) for step, value in points],
            "validation/gain": [(step, pytest.approx(value - 0.1, abs=1e-6)) for step, value in points],
        }
        assert written(folder) == expected
        assert again.curves == expected


def test_a_run_writes_and_keeps_its_curves(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log("rollout/ep_rew_mean", 1.5, 10)
        run.log("rollout/ep_rew_mean", 2.5, 20)
    assert run.curves == {Tags.train_return: [(10, 1.5), (20, 2.5)]}
    assert run.last_step == 20
    assert written(tmp_path / "run") == {Tags.train_return: [(10, 1.5), (20, 2.5)]}
    with Run(tmp_path / "run") as again:
        again.log("loss", 3.0, 5)
    assert written(tmp_path / "run") == {"train/loss": [(5, 3.0)]}, "an earlier run in the folder is gone"


def test_a_training_that_found_nothing_better_than_its_start_is_known(tmp_path: Path) -> None:
    gains: dict[str, list[float]] = {}
    for name, returns in {"worse": [2.0, 1.0, 2.0], "better": [2.0, 1.0, 2.5], "untried": [2.0]}.items():
        with Run(tmp_path / name) as run:
            for step, value in enumerate(returns):
                run.log("validation/return", value, step)
        gains[name] = [value for _, value in run.curves[Tags.validation_gain]]
        assert kept_start(run.curves) == (name == "worse")
    assert gains == {"worse": [0.0, 0.0, 0.0], "better": [0.0, 0.0, 0.5], "untried": [0.0]}


def test_a_training_is_watched_in_the_first_of_the_very_episodes_it_is_evaluated_on(
    judged: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "WATCHED", 9)
    policy = make_policy("random", judged)
    watch = tracking.training_watch(judged, episodes=24, seed=5)
    whole = Evaluator(judged, "train", episodes=24, seed=5).run(policy)
    assert watch(policy) == watch(policy) == {"evaluate/train/return": pytest.approx(whole.value[:9].mean())}


@pytest.mark.parametrize("agent", ["recloop-ppo", "a2c", "sb3:A2C"])
def test_an_agent_is_watched_whenever_it_is_validated_and_learns_nothing_from_it(judged: World, agent: str) -> None:
    """Own learners and those of Stable-Baselines3; the policy is the same to the bit without."""
    asked: dict[str, list[int]] = {}

    def log(tag: str, value: float, step: int) -> None:
        asked.setdefault(tag, []).append(step)

    watch = tracking.training_watch(judged, episodes=8, seed=5)
    settings = {"num_envs": 4, "validations": 3}
    watched, alone = (
        make_policy(agent, judged, FitOptions(steps=160, log=log, watch=one, settings=settings))
        for one in (watch, None)
    )
    half = len(asked["validation/return"]) // 2
    assert len(asked["evaluate/train/return"]) == half > 1
    assert asked["evaluate/train/return"] == asked["validation/return"][:half]
    for name, tensor in watched.tensors().items():
        assert torch.equal(tensor, alone.tensors()[name]), name
