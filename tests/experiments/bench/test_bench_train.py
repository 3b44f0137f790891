"""The race of our PPO against Stable-Baselines3's: who is held against what, and what stands in the rows."""

import math
from pathlib import Path

import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.bench.train import BenchTrainConfig, TrainingBench, bench_train


def test_a_return_is_reached_where_three_validations_in_a_row_have_it_in_the_mean() -> None:
    run = TrainingBench([(1.0, 2.0), (2.0, 6.0), (3.0, 4.0), (4.0, 5.0)], seconds=4.5, steps=100)
    assert run.final == 5.0
    assert run.reaches(4.0) == 3.0
    assert run.reaches(5.0) == 4.0
    assert run.reaches(6.0) == math.inf


def test_more_candidates_than_items_are_refused(folder: Path) -> None:
    with pytest.raises(RecloopError, match="--candidates 5000 is more than the 40 items"):
        bench_train(BenchTrainConfig(world=folder, candidates=5000))


@pytest.mark.slow
def test_a_race_has_a_row_for_each_rate_each_time_each_update_and_retrieval(folder: Path) -> None:
    rows = bench_train(
        BenchTrainConfig(world=folder, steps=2048, seeds=1, candidates=20, validations=3, progress=False)
    )
    *race, first, second, retrieval = rows
    assert [row.unit for row in race] == ["steps/s", "steps/s", "s", "steps/s", "s"]
    assert [row.aim for row in race] == [None, None, 1.2, None, 4.0]
    assert (retrieval.what, retrieval.unit, retrieval.batch) == ("retrieval of 20", "lanes/s", 64)
    for update in (first, second):
        assert update.unit == "transitions/s"
        assert update.ratio is not None
        assert 0 < update.ratio < 1
