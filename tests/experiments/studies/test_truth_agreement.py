"""The truth study: units that resume, and one that really runs."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import RecloopError, WorldError
from recloop.envs.evidence.verdict import GateOutcome, Verdict
from recloop.envs.truth import truth_world
from recloop.experiments.commands.agreement import FIXED_POLICIES, agreement_of
from recloop.experiments.comparison.claims import ClaimRules
from recloop.experiments.comparison.policy_values import PolicyValues
from recloop.experiments.studies.truth import study as truth_agreement
from recloop.experiments.studies.truth.study import QUICK, StudyConfig, main
from recloop.experiments.studies.truth.unit import TruthUnitConfig, as_the_truth, run_unit


def made_up(unit: TruthUnitConfig) -> tuple[dict[str, Any], PolicyValues]:
    """A unit without the work."""
    worth = np.array([2.0, 1.0])[:, None] + np.random.default_rng(unit.draw).normal(size=(2, 30)) * 0.01
    gates = tuple(GateOutcome("replay gate", name, Verdict.passed) for name in ("train", "judge", "judge-2"))
    values = PolicyValues(("a", "b"), worth[None], np.stack([worth, worth]), worth, gates=gates)
    facts = {
        **{name: getattr(unit, name) for name in ("world", "log", "draw")},
        "config": asdict(unit),
        "commit": "abc",
        "fidelity": {"likelihood_gain": 0.5},
        "agreement": agreement_of(values).as_dict(),
    }
    return facts, values


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the units that were run, in order."""
    names: list[str] = []

    def run(unit: TruthUnitConfig, worlds: Path) -> tuple[dict[str, Any], PolicyValues]:
        if unit.draw == 2:
            raise KeyboardInterrupt
        names.append(unit.name)
        return made_up(unit)

    monkeypatch.setattr(truth_agreement, "run_unit", run)
    return names


def test_a_study_goes_on_where_it_was(ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = StudyConfig(tmp_path, worlds=("boredom", "clickbait"), logs=("mixed",), draws=3)
    with pytest.raises(KeyboardInterrupt):
        main(study)
    assert ran == ["boredom-mixed-0", "clickbait-mixed-0", "boredom-mixed-1", "clickbait-mixed-1"]
    ran.clear()
    rows = main(replace(study, draws=2))
    assert ran == []
    tau = next(row for row in rows if (row.world, row.measure) == ("pooled", "tau_judges_truth"))
    assert (tau.value, tau.low, tau.high, tau.met) == (1.0, 1.0, 1.0, True)
    assert "pooled over 4 units" in capsys.readouterr().out
    table = (tmp_path / "truth_agreement.csv").read_text().splitlines()
    assert table[0] == "world,log,measure,value,low,high,aim,command,commit"
    assert all(",units abc; pooled " in line for line in table[1:])


def test_units_of_other_sizes_are_run_again(ran: list[str], tmp_path: Path) -> None:
    study = StudyConfig(tmp_path, worlds=("boredom",), logs=("narrow",), draws=1)
    main(study)
    main(replace(study, episodes=100))
    assert ran == ["boredom-narrow-0"] * 2
    main(replace(study, pool_only=True))  # pools what is there, whatever its sizes
    main(replace(study, episodes=100, fresh=True))
    assert len(ran) == 3


def test_pooling_follows_the_constants(ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = StudyConfig(tmp_path, worlds=("boredom",), logs=("narrow",), draws=1)

    def made() -> float:
        return next(row.value for row in main(study) if row.measure == "claims_made")

    assert made() == 1.0
    strict = partial(agreement_of, rules=ClaimRules(margin=0.9))
    monkeypatch.setattr(truth_agreement, "agreement_of", strict)
    assert made() == 0.0
    assert len(ran) == 1


def test_bad_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecloopError, match="did you mean 'boredom'"):
        StudyConfig(tmp_path, worlds=("boredum",))
    with pytest.raises(RecloopError, match="kind of log 'broad'"):
        StudyConfig(tmp_path, logs=("broad",))
    with pytest.raises(RecloopError, match="no finished unit"):
        main(StudyConfig(tmp_path, pool_only=True))


def test_a_world_with_other_rows_is_no_match_for_the_truth() -> None:
    truth = truth_world("boredom", users=20, items=30)
    assert as_the_truth(replace(truth, max_steps=3), truth).max_steps == truth.max_steps
    turned = replace(truth, users=replace(truth.users, ids=truth.users.ids[::-1]))
    with pytest.raises(WorldError, match="other rows of users or items"):
        as_the_truth(turned, truth)


@pytest.mark.slow
def test_a_unit_fits_ranks_and_can_be_run_again_to_the_bit(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    unit = TruthUnitConfig("boredom", "mixed", 1, **{**QUICK, "rl_steps": 128})
    facts, values = run_unit(unit, tmp_path / "worlds")
    json.dumps(facts, allow_nan=False)
    found = facts["agreement"]
    assert found["policies"] == [*FIXED_POLICIES, "ppo"]
    assert set(found["truth"]) == set(found["policies"])
    assert {"calibration_click", "likelihood_gain", "two_sample_auc"} <= set(facts["fidelity"])
    assert facts["planner"] > max(found["truth"].values())
    assert torch.equal(before, torch.random.get_rng_state())
    assert values.train.shape[:2] == (len(values.train), 10)
    anew, _ = run_unit(unit, tmp_path / "anew")
    kept, _ = run_unit(unit, tmp_path / "anew")
    assert "build" not in kept["seconds"], "its fitted users were kept"
    for again in (anew, kept):
        assert again["agreement"] == found
        assert again["fidelity"] == facts["fidelity"]
