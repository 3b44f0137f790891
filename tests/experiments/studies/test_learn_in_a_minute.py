"""The experiment of a minute, on a world and a budget small enough for a test."""

import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.envs.truth.built_in import built_in_world
from recloop.envs.truth.worlds import truth_world
from recloop.experiments.studies.learn_in_a_minute import (
    BASELINES,
    LEARNER,
    MinuteConfig,
    learn_in_a_minute,
    minute_row,
    minute_table,
)


@pytest.mark.slow
def test_everybody_meets_the_same_lanes_and_the_nearest_baseline_makes_the_row() -> None:
    world = built_in_world()
    found = learn_in_a_minute(world, MinuteConfig(steps=2_000, seeds=1, episodes=60, progress=False))
    lanes = {tuple(rollout.users) for rollout in found.comparison.rollouts.values()}
    assert len(lanes) == 1
    assert len(found.seconds) == 1
    assert 0 < found.seconds[0] < 60
    margins = {name: found.margin(name) for name in BASELINES}
    assert margins["random"].sign == 1
    row = minute_row(found)
    assert row.value == min(margin.low for margin in margins.values())
    assert found.nearest in row.reference
    assert minute_table(found).row_count == len(BASELINES) + 1
    ours = found.comparison.values(LEARNER, "truth").mean()
    theirs = found.comparison.values(found.nearest, "truth").mean()
    assert row.ratio == pytest.approx(ours / theirs)


def test_a_world_without_a_user_model_is_refused() -> None:
    with pytest.raises(RecloopError, match="world 'clicks' has no user model for greedy"):
        learn_in_a_minute(truth_world("clicks", users=20, items=20), MinuteConfig(progress=False))
