"""When a value is printed and when it is refused; bad input is one line."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from recloop.agents.baselines.random_items import RandomPolicy
from recloop.encoders.base.errors import LogError, RecloopError
from recloop.experiments.off_policy.choices import LoggedChoices
from recloop.experiments.off_policy.diagnostics import effective_sample_size
from recloop.experiments.off_policy.evaluation import DELTA, LOGGED, Estimate, OffPolicyOptions, evaluate_targets
from recloop.experiments.off_policy.targets import PlaceShares

Make = Callable[..., LoggedChoices]
FEW = OffPolicyOptions(resamples=200)


def shares(*chance: float) -> PlaceShares:
    return PlaceShares(torch.tensor([chance]).double(), "shares")


def of(found: list[Estimate], target: str, estimator: str) -> Estimate:
    return next(one for one in found if (one.target, one.estimator) == (target, estimator))


def test_values_intervals_and_paired_differences(bandit: Make) -> None:
    log = bandit(2000, 0)
    found = evaluate_targets(log, {"best": shares(0.1, 0.2, 0.7), "random": RandomPolicy()}, FEW)
    assert {one.verdict for one in found} == {"ok"}
    mean = of(found, LOGGED, "mean")
    assert mean.value == pytest.approx(log.rewards.mean())
    for one in found:
        if one.estimator == "dm":  # no resampling tells how wrong its model is
            assert one.interval == "none"
            assert np.isnan([one.low, one.high, one.difference_low, one.difference_high]).all()
            assert not np.isnan([one.value, one.difference]).any()
        else:
            assert one.low <= one.value <= one.high, one.estimator
    snips, delta = of(found, "best", "snips"), of(found, "best", DELTA)
    assert snips.difference == pytest.approx(snips.value - mean.value)
    assert delta.value == pytest.approx(0.49 - 0.26, abs=0.06)
    assert delta.high - delta.low < of(found, "best", "ips").high - of(found, "best", "ips").low
    against = evaluate_targets(
        log, {"a": shares(0.1, 0.2, 0.7), "b": shares(0.1, 0.2, 0.7)}, replace(FEW, reference="b")
    )
    same = of(against, "a", "snips")
    assert (same.difference, same.difference_low, same.difference_high) == (0, 0, 0)


def test_a_bernstein_interval_is_of_clipped_weights_alone(bandit: Make) -> None:
    found = evaluate_targets(bandit(2000, 0), {"random": RandomPolicy()}, replace(FEW, interval="bernstein"))
    assert {one.estimator for one in found if one.interval == "bernstein"} == {"clipped-ips"}
    one, boot = of(found, "random", "clipped-ips"), of(found, "random", "ips")
    assert one.low < boot.low
    assert boot.high < one.high


@pytest.mark.parametrize(
    ("rows", "logged", "target", "reason"),
    [
        (90, (0.4, 0.3, 0.3), (0.4, 0.3, 0.3), r"effective sample size is 90\.0 of 90 episodes \(at least 100\)"),
        (4000, (0.5, 0.5, 0.0), (0.4, 0.4, 0.2), r"20% of what the target shows was never logged \(at most 5%\)"),
        (4000, (0.5, 0.5, 0.0), (0.0, 0.0, 1.0), r"the target would have made 0 logged episodes"),
        (4000, (0.4998, 0.4998, 0.0004), (0.3, 0.3, 0.4), r"one user has \d\d% of all weight \(at most 10%\)"),
    ],
)
def test_what_the_log_does_not_carry_is_refused(
    rows: int, logged: tuple[float, ...], target: tuple[float, ...], reason: str, bandit: Make
) -> None:
    found = evaluate_targets(bandit(rows, 5, np.array(logged)), {"target": shares(*target)}, FEW)
    own, *rest = found
    assert own.verdict == "ok"
    for one in rest:
        assert one.verdict.startswith("refused: ")
        assert np.isnan([one.value, one.low, one.high, one.difference]).all(), one.estimator
    assert all(re.search(reason, one.verdict) for one in rest)


def test_weights_whose_mean_is_not_one_are_refused(bandit: Make) -> None:
    log = bandit(3000, 0)
    assert log.propensity is not None
    wrong = replace(log, propensity=np.minimum(log.propensity * 1.5, 1))
    found = of(evaluate_targets(wrong, {"random": RandomPolicy()}, FEW), "random", "dr")
    assert "the weights' mean is 0.6" in found.verdict
    assert "standard errors from 1 (at most 3)" in found.verdict


def test_a_doubt_about_propensities_refuses_everything(bandit: Make) -> None:
    log = replace(bandit(2000, 0), doubt="estimated propensities are off")
    found = evaluate_targets(log, {"random": RandomPolicy()}, FEW)[1:]
    assert {one.verdict for one in found} == {"refused: estimated propensities are off"}


def test_effective_sample_size_by_hand() -> None:
    assert effective_sample_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_sample_size(np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"propensity": 0.0}, r"the propensity of 1 of 50 places is 0; what was shown had a probability in \(0, 1\]"),
        ({"propensity": 1.5}, r"the propensity of 1 of 50 places is 1\.5; .*--propensities estimated"),
        ({"propensity": np.nan}, r"the propensity of 1 of 50 places is missing"),
        ({"rewards": np.nan}, r"the reward is nan at 1 of 50 places; it must be a finite number, .*--reward"),
    ],
)
def test_bad_input_is_named(change: dict[str, float], said: str, bandit: Make) -> None:
    log = bandit(50, 0)
    (name, value), *_ = change.items()
    table = np.array(getattr(log, name))
    table[3, 0] = value
    with pytest.raises(LogError, match=said):
        replace(log, **{name: table})


def test_an_empty_part_an_unknown_reference_and_no_propensities(bandit: Make) -> None:
    log = bandit(50, 0)
    with pytest.raises(LogError, match="0 slates are left to evaluate on; at least 1 is needed"):
        log.part(np.zeros(50, dtype=bool))
    with pytest.raises(RecloopError, match="unknown reference 'nobody'"):
        evaluate_targets(log, {"random": RandomPolicy()}, replace(FEW, reference="nobody"))
    with pytest.raises(RecloopError, match="tiny holds no propensities; have them estimated"):
        evaluate_targets(replace(log, propensity=None), {"random": RandomPolicy()}, FEW)
