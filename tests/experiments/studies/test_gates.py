"""The study of the gates: what it counts, on a log small enough for a test."""

import csv
from pathlib import Path

import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.studies.gates.study import COLUMNS, GatesConfig, main


def test_every_gate_is_counted_for_the_truth_and_for_a_fault(tmp_path: Path) -> None:
    table = tmp_path / "gates.csv"
    config = GatesConfig(worlds=("boredom",), draws=1, users=160, table=table, progress=False)
    main(config)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 4
    ended = {(row["users"], row["gate"]): row for row in rows}
    for row in rows:
        assert int(row["passed"]) + int(row["failed"]) + int(row["cannot_tell"]) == 1
    assert ended["truth", "replay"]["failed"] == "0"
    assert ended["base rate + 50 %", "replay"]["passed"] == "0"
    assert ended["base rate + 50 %", "fidelity"]["failed"] == "1"


@pytest.mark.parametrize(
    ("given", "said"),
    [({"worlds": ("boredem",)}, "truth world 'boredem'"), ({"faults": ("frozen user",)}, "fault 'frozen user'")],
)
def test_names_that_nobody_knows_are_refused(given: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(RecloopError, match=said):
        GatesConfig(**given)  # type: ignore[arg-type]
