"""A report passes the truth, fails what is broken, and says what a log cannot support."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.evidence.fidelity import FidelityConfig, FidelityReport, failures, fidelity_of, marked, reports_on
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.truth import logging_policy, truth_log, truth_world
from recloop.envs.truth.boredom import BoredomState, BoredomUsers
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.studies.gates.planted_faults import FAULTS, FrozenUsers, NobodyLeaves, second_sigmoid
from tests.envs.evidence.fidelity.conftest import Case, all_equal, spoiled


@pytest.fixture(scope="module")
def truth_report(small: Case) -> FidelityReport:
    return fidelity_of(small.world, "truth", pick=small.pick)


def test_the_truth_passes_every_line_in_both_loops(truth_report: FidelityReport) -> None:
    assert truth_report.failed == (), truth_report.verdict
    assert truth_report.outcome is Verdict.cannot_tell  # 80 users are too few for the whole interval of every line
    line = truth_report.line("calibration_click")
    assert line is not None
    assert line.passed
    assert truth_report.users == 80
    names = {(line.name, line.loop) for line in truth_report.lines}
    for name in ("calibration_click", "likelihood_gain_click", "auc_click", "rmse_ratio_rating", "auc_leave"):
        assert (name, "answers") in names
    for loop in ("open", "closed"):
        for name in ("session_length_ks", "consumed_popularity_js", "two_sample_auc"):
            assert (name, loop) in names
    assert ("repeats_ks", "closed") in names
    assert ("repeats_ks", "open") not in names
    assert all(line.low <= line.value <= line.high for line in truth_report.lines)


def test_kuaisims_second_sigmoid_fails_the_world(small: Case) -> None:
    report = fidelity_of(small.world, second_sigmoid(small.truth))
    failed = {line.name for line in report.failed}
    assert {"calibration_click", "likelihood_gain_click", "two_sample_auc"} <= failed
    world = marked(small.world, replace(report, simulator="train"))
    assert len(failures(world.card)) == 1
    assert "FAILED" in failures(world.card)[0]


def test_nobody_leaving_is_seen_in_leaving_and_in_session_length(small: Case) -> None:
    report = fidelity_of(small.world, NobodyLeaves(small.truth))
    assert {"likelihood_gain_leave", "session_length_ks", "two_sample_auc"} <= {line.name for line in report.failed}
    assert "calibration_click" not in {line.name for line in report.failed}


def test_frozen_users_fail_calibration_though_their_order_is_good(small: Case) -> None:
    report = fidelity_of(small.world, FrozenUsers(small.truth))
    found = {line.name: line.verdict for line in report.lines if line.loop == "answers"}
    assert found["calibration_click"] is Verdict.failed
    assert found["auc_click"] is Verdict.passed


def test_a_few_users_pass_nothing_and_a_line_from_before_cannot_tell(small: Case) -> None:
    report = fidelity_of(small.world, "truth", config=FidelityConfig(users=12, steps=8))
    assert report.failed == ()
    assert report.verdict.startswith("CANNOT TELL")
    facts = json.loads(json.dumps(asdict(report)))
    for line in facts["lines"]:
        line["passed"] = line.pop("verdict") == "passed"
    old = FidelityReport.from_facts(facts)
    assert {line.verdict for line in old.lines} <= {Verdict.cannot_tell, Verdict.failed}


def test_one_seed_one_report(small: Case) -> None:
    config = FidelityConfig(users=30, steps=12, seed=3)
    assert fidelity_of(small.world, "truth", config=config) == fidelity_of(small.world, "truth", config=config)


def test_a_report_survives_the_disk_and_the_card(truth_report: FidelityReport, small: Case, tmp_path: Path) -> None:
    truth_report.save(tmp_path / "fidelity.json")
    assert FidelityReport.load(tmp_path / "fidelity.json") == truth_report
    world = marked(small.world, truth_report)
    world.save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    assert reports_on(again.card) == (replace(truth_report, curves=()),)
    assert failures(again.card) == ()


def test_without_exposures_only_next_answers_are_measured(small: Case) -> None:
    report = fidelity_of(small.world, "truth", sequences=replace(small.world.sequences, slates=None))
    assert {line.loop for line in report.lines} == {"answers"}
    assert {"auc_click", "rmse_ratio_rating"} <= {line.name for line in report.lines}
    assert "calibration_click" not in {line.name for line in report.lines}
    assert report.sessions == 0
    assert any("no exposures" in sentence for sentence in report.unsupported)


def test_without_session_ends_nothing_is_said_of_length_and_leaving(small: Case) -> None:
    slates = small.world.sequences.slates
    assert slates is not None
    log = spoiled(
        small.world.sequences,
        left=all_equal(slates.left, -1),
        session=all_equal(slates.session, 0),
        days_away=None,
    )
    report = fidelity_of(small.world, "truth", sequences=log)
    names = {line.name for line in report.lines}
    assert not {"session_length_ks", "return_gaps_ks", "auc_leave"} & names
    assert "two_sample_auc" in names
    said = " ".join(report.unsupported)
    for words in ("how sessions ended", "stretches of 10 slates", "days between sessions"):
        assert words in said


def test_a_signal_of_one_value_is_named_and_left_out(small: Case) -> None:
    slates = small.world.sequences.slates
    assert slates is not None
    answers = slates.answers.copy()
    answers[..., 1] = np.where(slates.given[..., 1], 4.0, 0.0)
    report = fidelity_of(small.world, "truth", sequences=spoiled(small.world.sequences, answers=answers))
    assert report.line("rmse_ratio_rating") is None
    assert any("'rating' has one value only (4)" in sentence for sentence in report.unsupported)


class Mute(BoredomUsers):
    """Users who neither say what they expect nor can be told the log's answers."""

    observe = None  # type: ignore[assignment]

    def respond(self, state: BoredomState, past: Past, slate: Tensor, draw: Draw) -> tuple[BoredomState, Response]:
        signals, given = self._answer(state, slate, draw)
        left = draw.uniform("leave") < self._leaving(state, slate, signals)
        return BoredomUsers.observe(self, state, slate, signals), Response(signals=signals, given=given, left=left)

    def expected(self, state: BoredomState, past: Past, slate: Tensor) -> None:  # type: ignore[override]
        return None


def test_users_who_do_not_say_what_they_expect_are_measured_by_their_sessions(small: Case) -> None:
    truth = small.truth
    report = fidelity_of(small.world, Mute(truth.preference, truth.topic, truth.traits, truth.rules))
    assert {line.loop for line in report.lines} == {"open"}
    assert any("does not say what it expects" in sentence for sentence in report.unsupported)


class Restless(BoredomUsers):
    """Users who say how long they stay away."""

    def respond(self, state: BoredomState, past: Past, slate: Tensor, draw: object) -> tuple[BoredomState, Response]:
        state, response = super().respond(state, past, slate, draw)  # type: ignore[arg-type]
        return state, replace(response, days_away=torch.full_like(past.days_away, 9.0))


def test_return_gaps_are_compared_where_both_sides_know_them(small: Case) -> None:
    truth = small.truth
    report = fidelity_of(small.world, Restless(truth.preference, truth.topic, truth.traits, truth.rules))
    line = report.line("return_gaps_ks")
    assert line is not None
    assert line.value == pytest.approx(1.0)
    assert not line.passed


def test_users_who_come_back_are_not_told_from_themselves_by_absences_that_the_log_cut() -> None:
    made = truth_world("retention", users=400, items=60, seed=1)
    world = replace(made, sequences=compile_sequences(truth_log(made, "mixed", seed=1))[0])
    config = FidelityConfig(users=400, seed=1)
    report = fidelity_of(world, "truth", range(400), pick=logging_policy(world, "mixed", 1), config=config)
    assert report.failed == (), report.verdict
    assert [line.loop for line in report.lines if line.name == "return_gaps_ks"] == ["closed"]


def test_users_without_a_log_give_a_report_without_lines(small: Case) -> None:
    log = replace(small.world.sequences, offsets=np.zeros(121, dtype=np.int64), slates=None)
    report = fidelity_of(small.world, "truth", sequences=log)
    assert not report.passed
    assert report.verdict.startswith("NOTHING MEASURED")


@pytest.mark.parametrize(
    ("rows", "said"), [([], "no users to measure on"), ([0, 500], "rows 0 to 119")], ids=["none", "outside"]
)
def test_rows_that_are_not_there(small: Case, rows: list[int], said: str) -> None:
    with pytest.raises(RecloopError, match=said):
        fidelity_of(small.world, "truth", rows)


def two_sample_auc(case: Case, users: UserSimulator, seed: int) -> float:
    report = fidelity_of(case.world, users, config=FidelityConfig(users=450, seed=seed))
    line = report.line("two_sample_auc")
    assert line is not None
    return line.value


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_two_sample_test_finds_each_planted_fault(large: Case, fault: str) -> None:
    assert two_sample_auc(large, FAULTS[fault](large.truth), seed=1) >= 0.9
