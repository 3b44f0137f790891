"""The study of intervals counts what it says: a law that is known, and intervals made too narrow."""

import csv
from pathlib import Path

import numpy as np
import pytest

from recloop.experiments.comparison import intervals
from recloop.experiments.studies import interval_coverage
from recloop.experiments.studies.interval_coverage import CoverageConfig, _row, main


def test_intervals_of_normal_differences_cover_as_they_say() -> None:
    rng = np.random.default_rng(0)
    pool = rng.normal(1.0, 2.0, 20_000)
    row = _row("normal", pool + rng.normal(0.3, 1.0, 20_000), pool, rng.integers(20_000, size=(400, 100)))
    assert 0.92 <= float(row["covered"]) <= 0.98
    assert float(row["width_paired"]) == pytest.approx(2 * 1.984 * 1.0 / 10, rel=0.05)
    assert float(row["width_unpaired"]) > 2 * float(row["width_paired"]), "pairs share their users' spread"


def test_intervals_half_as_wide_are_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = CoverageConfig(("boredom",), ("random",), 60, 100, 2000, 3, keep=tmp_path / "rows.csv")
    honest = main(config)
    monkeypatch.setattr(intervals, "LEVEL", 0.5)
    planted = main(config)
    assert float(honest[0]["covered"]) >= 0.9
    assert float(planted[0]["covered"]) <= 0.65
    kept = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [row["policy"] for row in kept] == ["random", "ties"]
    assert tuple(kept[0]) == interval_coverage.COLUMNS
