"""The demo: what it says is what the numbers say."""

from dataclasses import replace
from pathlib import Path

import pytest

from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.commands.demo import AGENT, gap_closed, gap_sentence
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


def test_the_table_says_who_learned_from_what_and_who_kept_their_start(truth: World, tmp_path: Path) -> None:
    policies = ("popularity", "encoder", "a2c")
    config = CompareConfig(
        Path("w"), policies, 1, tmp_path, ("a2c.learning_rate=0",), steps=512, episodes=12, progress=False
    )
    a2c = compare(truth, config).contenders[2]
    slates = truth.sequences.slates
    assert slates is not None
    train = truth.users.rows("train").tolist()
    logged = sum(int(slates.offsets[row + 1] - slates.offsets[row]) for row in train)
    assert a2c.note == (
        f"learned from 512 slates in the truth itself; the log holds {logged:,}; KEPT ITS START: nothing it learned "
        "was better in validation"
    )
    assert a2c.note in (tmp_path / "report.html").read_text()


def test_the_sentence_is_what_the_numbers_say(comparison: Comparison) -> None:
    first = comparison.contenders[1]
    pretended = replace(
        comparison,
        contenders=tuple(replace(first, label=name) for name in ("greedy", AGENT, "planner")),
        rollouts={
            (name, 0, "truth"): comparison.rollouts["planner" if name == "planner" else "popularity", 0, "truth"]
            for name in ("greedy", AGENT, "planner")
        },
    )
    assert gap_sentence(pretended).startswith("slate-ppo closes 0%")
