"""`recloop fidelity`: what it prints, writes and marks."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.envs.evidence.fidelity import FidelityLine, FidelityReport, fidelity_of, marked, reports_on
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.world.world import World
from recloop.experiments.commands.fidelity import FidelityCommand, main
from recloop.experiments.report.fidelity_pictures import fidelity_picture
from recloop.experiments.report.tables import fit_rows, plain_figures
from recloop.experiments.studies.gates.planted_faults import second_sigmoid

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def broken(truth: World) -> World:
    """A world whose card holds the report of a simulator with a second sigmoid."""
    report = fidelity_of(truth, second_sigmoid(truth.simulators["truth"]), truth.users.rows("all"))
    return marked(truth, replace(report, simulator="train"))


def test_the_command_writes_report_and_picture_and_says_the_verdict(
    truth: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth.save(tmp_path / "world")
    main(FidelityCommand(tmp_path / "world", part="all", out=tmp_path / "out", mark=True))
    report = FidelityReport.load(tmp_path / "out" / "fidelity.json")
    assert report.simulator == "truth"
    assert report.users == len(truth.users)
    said = capsys.readouterr().out
    assert "calibration_click" in said
    assert report.verdict.partition(":")[0] in said
    assert (tmp_path / "out" / "fidelity.png").read_bytes().startswith(PNG)
    assert World.load(tmp_path / "world").card.figures["fidelity"]["truth"]["users"] == report.users


def test_an_unknown_simulator_is_named(truth: World, tmp_path: Path) -> None:
    truth.save(tmp_path / "world")
    with pytest.raises(RecloopError, match="truht"):
        main(FidelityCommand(tmp_path / "world", simulator="truht", out=tmp_path / "out"))


def test_reports_on_the_card_are_no_rows_of_fits(broken: World) -> None:
    figures = {**broken.card.figures, "gates": {"train": {"mode": "open loop", "users": 3, "lines": []}}}
    assert not {"fidelity", "gates"} & {row[0] for row in fit_rows(figures)[1]}
    assert not any("fidelity" in name or "gates" in name for name in plain_figures(figures))


def test_a_card_with_numbers_nobody_knows_is_equal_from_the_disk(truth: World, tmp_path: Path) -> None:
    line = FidelityLine("two_sample_auc", "open", math.nan, math.nan, math.nan, "<= 0.650", Verdict.failed, "one class")
    report = FidelityReport(truth.name, "truth", 3, 9, 3, (line,), ("nothing",), (("length", 0.5),), {"rate": math.nan})
    world = marked(truth, report)
    world.save(tmp_path / "world")
    card = World.load(tmp_path / "world").card
    assert card == world.card
    found = reports_on(card)[0]
    assert math.isnan(found.lines[0].value)
    assert math.isnan(found.figures["rate"])
    assert found.told_by == report.told_by


def test_a_report_without_curves_has_no_picture() -> None:
    assert fidelity_picture(FidelityReport("w", "s", 0, 0, 0, ())) is None
