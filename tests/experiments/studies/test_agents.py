"""The study of agents, on a world and a budget small enough for a test."""

import csv
from pathlib import Path

import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.envs.world.world import World
from recloop.experiments.studies.agents import COLUMNS, AgentsConfig, Place, study


def test_rows_are_what_policies_earn_and_the_share_of_the_way_from_greedy_to_the_planner(
    truth: World, tmp_path: Path
) -> None:
    kept = tmp_path / "agents.csv"
    config = AgentsConfig(
        agents=("random", "a2c"), seeds=2, steps=512, episodes=40, keep=kept, logs=tmp_path / "logs", progress=False
    )
    place = Place("demo", truth, truth, truth.simulators["truth"])
    rows = {row["agent"]: row for row in study(place, config)}
    study(place, config)
    with kept.open() as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == COLUMNS
    assert [row["agent"] for row in found] == ["greedy", "planner", "random", "a2c"], "a row anew takes the place"
    value = {name: float(row["return_mean"]) for name, row in rows.items()}
    for name in ("random", "a2c"):
        share = (value[name] - value["greedy"]) / (value["planner"] - value["greedy"])
        assert float(rows[name]["share_of_gap"]) == pytest.approx(share, abs=0.02)
    assert (rows["a2c"]["action_mode"], rows["a2c"]["steps"], rows["a2c"]["seeds"]) == ("candidates", 512, 2)
    assert int(rows["a2c"]["steps_per_second"]) > 0
    assert (tmp_path / "logs" / "demo" / "a2c-seed1").is_dir()


def test_worlds_that_nobody_knows_are_refused() -> None:
    with pytest.raises(RecloopError, match="unknown world 'boredem'; did you mean 'boredom'"):
        AgentsConfig(worlds=("boredem",))
