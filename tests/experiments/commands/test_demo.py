"""The demo: what it says is what the numbers say."""

from pathlib import Path

import numpy as np
import pytest

from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.commands.demo import gap_closed, verdicts
from recloop.experiments.comparison.results import Comparison


@pytest.fixture(scope="module")
def comparison(truth: World, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Popularity stands for each of the others, so that nothing has to be trained."""
    config = CompareConfig(
        world=Path("w"),
        policies=("random", "popularity", "planner"),
        seeds=1,
        episodes=40,
        out=tmp_path_factory.mktemp("demo"),
        progress=False,
    )
    return compare(truth, config)


def test_the_share_of_the_gap_is_a_ratio_of_means(comparison: Comparison) -> None:
    share = gap_closed(comparison, policy="popularity", floor="random", top="planner")
    mean = {name: comparison.values(name, "truth").mean() for name in comparison.labels}
    assert share.mean == pytest.approx((mean["popularity"] - mean["random"]) / (mean["planner"] - mean["random"]))
    assert share.low < share.mean < share.high < 1


def test_verdicts_follow_the_intervals(comparison: Comparison) -> None:
    from dataclasses import replace

    first = comparison.contenders[1]
    names = ("random", "popularity", "greedy", "sasrec", "ppo", "planner")
    source = {"greedy": "popularity", "sasrec": "random", "ppo": "popularity"}
    pretended = replace(
        comparison,
        contenders=tuple(replace(first, label=name) for name in names),
        rollouts={(name, 0, "truth"): comparison.rollouts[source.get(name, name), 0, "truth"] for name in names},
    )
    lines = verdicts(pretended)
    assert any(line.startswith("popularity beats random: +") for line in lines)
    assert any(line.startswith("greedy is not told apart from popularity") for line in lines)
    assert any(line.startswith("sasrec loses to popularity") for line in lines)
    assert lines[-1].startswith("ppo closes 0%")
    assert np.isfinite(gap_closed(pretended).high)
