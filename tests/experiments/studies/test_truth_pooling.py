"""Pooling of the truth study, on units made by hand."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest

from recloop.experiments.studies.truth.pooling import COLUMNS, PooledRow, TruthUnit, pool, write_table

FACTS = {
    "world": "boredom",
    "log": "mixed",
    "draw": 2,
    "commit": "abc",
    "fidelity": {"calibration_click": 0.05, "likelihood_gain": 0.9, "session_length_ks": None},
    "agreement": {
        "policies": ["greedy", "random"],
        "judges": {"greedy": [6.0, 4.0], "random": [2.0, 2.0]},
        "truth": {"greedy": 4.0, "random": 1.0},
        "flagged": ["random"],
        "brackets": {
            "greedy": {"value": 5.0, "pessimistic": 3.0, "optimistic": 6.0, "outside": 0.1, "flag": ""},
            "random": {"value": 2.0, "pessimistic": 1.5, "optimistic": 3.0, "outside": 0.4, "flag": "outside"},
        },
        "gates": [{"gate": "replay gate", "simulator": "train", "verdict": "passed", "sentence": ""}],
        "effects": [2.0, 0.5, -1.0],
        "taus": {"judges-truth": {"value": 1.0, "low": 1.0, "high": 1.0}, "judges-training": {"value": None}},
        "counted": {"pairs": 1, "made": 1, "right": 1, "opposite": 0, "in_world": 0},
    },
}
UNIT = TruthUnit.of(FACTS)


def found(units: list[TruthUnit], world: str = "pooled", log: str = "mixed") -> dict[str, PooledRow]:
    return {row.measure: row for row in pool(units) if (row.world, row.log) == (world, log)}


def test_a_unit_is_read_from_its_file() -> None:
    assert UNIT.simulated == (5.0, 2.0)
    assert UNIT.ratios == [1.25, 2.0]
    assert UNIT.off == [False, True]
    assert UNIT.taus == {"judges-truth": 1.0}
    assert UNIT.fidelity == {"calibration_click": 0.05, "likelihood_gain": 0.9}


def test_measures_of_one_unit() -> None:
    rows = found([UNIT])
    values = {name: row.value for name, row in rows.items() if math.isfinite(row.value)}
    assert values == pytest.approx(
        {
            "calibration_click": 0.05,
            "likelihood_gain": 0.9,
            "tau_judges_truth": 1.0,
            "direction_forced": 2 / 3,
            "effect_recovered": 0.5,
            "claims_opposite": 0.0,
            "value_ratio_low": 1.25,
            "value_ratio_high": 1.25,
            "value_ratio_near": 1.0,
            "claims_right": 1.0,
            "claims_made": 1.0,
            "flag_recall": 1.0,
            "flag_precision": 1.0,
            "unflagged": 0.5,
            "bracket_coverage": 0.5,
            "bracket_width": (3 / 5 + 1.5 / 2) / 2,
        }
    )
    assert math.isnan(rows["tau_judges_truth"].low)  # one cluster has no interval
    assert (rows["tau_judges_truth"].aim, rows["tau_judges_truth"].met) == (">= 0.8", True)
    assert rows["calibration_click"].met
    assert rows["two_sample_auc"].met is False  # cannot be said


def test_recall_counts_gates_and_precision_flags_alone() -> None:
    wild = replace(UNIT, simulated=(8.0, 1.0), flagged=(False, True))  # greedy is off and unflagged, random is right
    assert found([wild])["flag_recall"].value == 0.0
    assert found([wild])["flag_precision"].value == 0.0
    gated = replace(wild, held_back=True)
    assert found([gated])["flag_recall"].value == 1.0
    assert found([gated])["flag_precision"].value == 0.0


def test_shares_are_pooled_over_claims_and_intervals_over_clusters() -> None:
    units = [
        replace(UNIT, pairs=10, made=8, right=8),
        replace(UNIT, draw=3, pairs=10, made=2, right=1, taus={"judges-truth": 0.0}),
        replace(UNIT, world="drift", pairs=20, made=0, right=0),
    ]
    rows = found(units)
    assert rows["claims_made"].value == 10 / 40
    assert rows["claims_right"].value == 9 / 10
    assert rows["tau_judges_truth"].value == pytest.approx(2 / 3)
    assert rows["tau_judges_truth"].low == pytest.approx(0.0)
    assert rows["tau_judges_truth"].high == pytest.approx(1.0)
    assert found(units, "drift")["claims_made"].value == 0.0
    assert math.isnan(found(units, "drift")["claims_right"].value)  # no claim at all
    assert found(units, "drift")["claims_right"].met is False


def test_worlds_that_no_constant_was_tuned_on_are_pooled_apart() -> None:
    units = [UNIT, replace(UNIT, world="cascade", pairs=10, made=5, right=4)]
    assert found(units, "pooled-unseen")["claims_made"].value == 0.5
    assert found(units)["claims_made"].value == 6 / 11
    assert found([UNIT], "pooled-unseen") == {}


def test_logs_are_kept_apart_and_pooled_rows_come_first() -> None:
    rows = pool([UNIT, replace(UNIT, log="switching")])
    assert [(r.world, r.log) for r in rows if r.measure == "unflagged"] == [
        ("pooled", "mixed"),
        ("boredom", "mixed"),
        ("pooled", "switching"),
        ("boredom", "switching"),
    ]


def test_the_table_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "truth_agreement.csv"
    write_table(pool([UNIT]), path, "python -m recloop.experiments.studies.truth.study", "abc")
    with path.open() as text:
        rows = list(csv.DictReader(text))
    assert tuple(rows[0]) == COLUMNS
    row = next(r for r in rows if r["measure"] == "claims_made")
    assert (row["world"], row["value"], row["low"], row["aim"]) == ("pooled", "1.0000", "", ">= 0.4")
    assert row["commit"] == "abc"
