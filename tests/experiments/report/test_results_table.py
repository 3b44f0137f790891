import csv
from pathlib import Path

from recloop.experiments.report.results_table import keep_rows


def test_rows_of_other_data_stay(tmp_path: Path) -> None:
    path = tmp_path / "kept.csv"
    columns = ("data", "mean")
    keep_rows(path, columns, "a", [{"mean": 1}, {"mean": 2, "not asked for": 0}])
    keep_rows(path, columns, "b", [{"mean": 3}])
    keep_rows(path, columns, "a", [{"mean": 4}])
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["data", "mean"], ["b", "3"], ["a", "4"]]
