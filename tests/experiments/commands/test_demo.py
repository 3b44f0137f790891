"""The demo: what it says is what the numbers say."""

from dataclasses import replace
from pathlib import Path

import pytest

from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.commands.demo import gap_closed, gap_sentence
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


def test_the_sentence_is_what_the_numbers_say(comparison: Comparison) -> None:
    first = comparison.contenders[1]
    pretended = replace(
        comparison,
        contenders=tuple(replace(first, label=name) for name in ("greedy", "ppo", "planner")),
        rollouts={
            (name, 0, "truth"): comparison.rollouts["planner" if name == "planner" else "popularity", 0, "truth"]
            for name in ("greedy", "ppo", "planner")
        },
    )
    assert gap_sentence(pretended).startswith("ppo closes 0%")
