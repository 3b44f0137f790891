"""What policies do to their users."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.agents.policy import Policy
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import RecloopError
from recloop.envs.truth.worlds import truth_world
from recloop.experiments.comparison.evaluate import evaluate
from recloop.experiments.guidance.command import GuidanceConfig, main
from recloop.experiments.guidance.effects import EFFECTS, effects, entropy_of, halves


class OneTopic(Policy):
    """Shows one topic for some slates, then another."""

    name = "one-topic"

    def __init__(self, after: int) -> None:
        self.after = after

    def act(self, observation, carry, k, draw):  # type: ignore[no-untyped-def]
        later = observation["context"][:, 0] * 20 >= self.after
        rows = torch.arange(k).expand(len(later), -1) * 6
        return rows + later.long().unsqueeze(1), None


def test_halves_and_entropy_against_a_loop() -> None:
    items = torch.tensor([[1, 9, 2, 3, 9, 4], [9, 9, 9, 5, 9, 9]])
    first, second = halves(items, 9)
    assert first.int().tolist() == [[1, 0, 1, 0, 0, 0], [0] * 6]
    assert second.int().tolist() == [[0, 0, 0, 1, 0, 1], [0, 0, 0, 1, 0, 0]]
    groups = torch.tensor([[0, 1, 1, 2]])
    shares = np.array([0.25, 0.5, 0.25])
    found = entropy_of(groups, torch.ones(1, 4, dtype=torch.bool), 3)
    assert float(found) == pytest.approx(-(shares * np.log(shares)).sum())
    assert bool(entropy_of(groups, torch.zeros(1, 4, dtype=torch.bool), 3).isnan())


def test_effects_tell_one_topic_from_all() -> None:
    world = truth_world("clickbait", users=80, items=60, seed=1)
    narrow = effects(OneTopic(99), world, "truth", episodes=80, users=range(80))
    moved = effects(OneTopic(2), world, "truth", episodes=80, users=range(80))
    wide = effects(make_policy("random", world), world, "truth", episodes=80, users=range(80))
    assert np.nanmax(narrow["entropy"]) == pytest.approx(0.0, abs=1e-9)
    assert np.nanmean(wide["entropy"]) > 0.5
    assert np.nanmean(narrow["bubble"]) > np.nanmean(moved["bubble"]) + 0.05
    assert set(wide) == set(EFFECTS) - {"days away"}
    alone = evaluate(make_policy("popularity", world), world, "truth", episodes=80, users=range(80), seed=0)
    mine = effects(make_policy("popularity", world), world, "truth", episodes=80, users=range(80), seed=0)
    assert mine["return"].mean() == pytest.approx(alone.value.mean())
    assert mine["slates"].mean() == pytest.approx(alone.length.mean())


def test_the_command_keeps_a_table_and_a_picture(tmp_path: Path) -> None:
    config = GuidanceConfig(
        ("retention",), ("popularity", "greedy"), seeds=1, steps=3000, episodes=40, out=tmp_path, progress=False
    )
    rows = main(config)
    what = {row["what"] for row in rows}
    assert {"return", "return, to greedy", "days away", "well-being", "liking"} <= what
    assert (tmp_path / "guidance.csv").read_text().startswith("what,world,policy,seeds")
    assert (tmp_path / "frontier-retention.png").stat().st_size > 10_000


def test_bad_input() -> None:
    with pytest.raises(RecloopError, match="--floors are given of nothing"):
        GuidanceConfig(("clicks",), floors=(0.5,), floor_of="nothing")
    with pytest.raises(RecloopError, match="does not train in the loop"):
        GuidanceConfig(("clicks",), floors=(0.5,), constrained="popularity")
