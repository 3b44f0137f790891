"""`recloop off-policy` on tiny logs and in a world; the study's figures."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recloop.encoders.base.errors import PolicyError
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.truth import truth_log, truth_world
from recloop.envs.world.world import World
from recloop.experiments.cli import main
from recloop.experiments.off_policy.choices import choices_of_log, choices_of_world
from recloop.experiments.studies.off_policy import OffPolicyStudyConfig, coat_choices, truth_rows

ARMS = {"a": 0.1, "b": 0.3, "c": 0.6}
SHARES = {"even": (0.4, 0.3, 0.3), "keen": (0.1, 0.2, 0.7), "shy": (0.998, 0.001, 0.001)}


def table(policy: str, rows: int = 3000, seed: int = 0) -> pd.DataFrame:
    """Users of three rows each, by one logging policy."""
    rng, shares = np.random.default_rng(seed), np.array(SHARES[policy])
    arm = rng.choice(3, rows, p=shares)
    return pd.DataFrame(
        {
            "user": [f"{policy}-{row // 3}" for row in range(rows)],
            "item": np.array(list(ARMS))[arm],
            "slate": [f"s{row}" for row in range(rows)],
            "click": (rng.random(rows) < np.array(list(ARMS.values()))[arm]).astype(int),
            "propensity": shares[arm],
            "policy": policy,
        }
    )


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder of one file a policy."""
    for number, policy in enumerate(SHARES):
        table(policy, seed=number).to_csv(tmp_path / f"{policy}.csv", index=False)
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the command fails with."""
    with pytest.raises(SystemExit) as stop:
        main(["off-policy", *map(str, arguments)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert (stop.value.code, len(lines)) == (2, 1), lines
    return lines[0]


def rows_of(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="") as file:
        return {(row["target"], row["estimator"]): row for row in csv.DictReader(file)}


def test_another_logs_policy_beside_what_it_earned(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = logs / "out.csv"
    arguments = ["--beside", logs / "keen.csv", "--targets", "keen", "uniform", "--out", out]
    main(["off-policy", *map(str, [logs / "even.csv", *arguments])])
    said, rows = capsys.readouterr().out, rows_of(out)
    assert "keen: weights worth" in said
    dr = rows["keen", "dr"]
    assert dr["verdict"] == "ok"
    assert float(dr["on_policy"]) == pytest.approx(table("keen", seed=1)["click"].mean())
    assert float(dr["low"]) < 0.49 < float(dr["high"])
    assert float(rows["uniform", "snips"]["value"]) == pytest.approx(1 / 3, abs=0.03)
    assert {estimator for target, estimator in rows if target == "keen"} == {
        *("dm", "ips", "clipped-ips", "snips", "dr", "switch-dr", "delta-ips")
    }


def test_no_number_is_shown_or_written_where_the_log_does_not_carry_one(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = logs / "out.csv"
    main(["off-policy", str(logs / "shy.csv"), "--targets", "uniform", "--out", str(out)])
    said = capsys.readouterr().out
    assert "of uniform: refused: the effective sample size is" in said
    refused = [row for (target, _), row in rows_of(out).items() if target == "uniform"]
    assert len(refused) == 7
    for row in refused:
        assert row["verdict"].startswith("refused: the effective sample size is")
        assert (row["value"], row["low"], row["high"], row["difference"]) == ("", "", "", "")


def test_estimated_propensities_are_said_to_be(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = logs / "bare.csv"
    table("even").drop(columns="propensity").to_csv(bare, index=False)
    assert "holds no propensities; have them estimated (--propensities estimated)" in fails(capsys, bare)
    main(["off-policy", str(bare), "--propensities", "estimated", "--out", str(logs / "out.csv")])
    assert "propensities are estimated, not logged" in capsys.readouterr().out
    assert float(rows_of(logs / "out.csv")["uniform", "dr"]["value"]) == pytest.approx(1 / 3, abs=0.04)


def test_bad_input_is_one_line(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    even = logs / "even.csv"
    assert "unknown target 'kene'" in fails(capsys, even, "--targets", "kene")
    assert "policies of ours need a world" in fails(capsys, even, "--targets", "ppo")
    assert "unknown logging policy 'keen'" in fails(capsys, even, "--logged", "keen")
    assert "--horizon 2 counts slates of a session; add --unit session" in fails(capsys, even, "--horizon", 2)
    assert "--epsilon 2 must lie between 0 and 1" in fails(capsys, even, "--epsilon", 2)
    assert "--segment age=3: unknown column of users 'age'" in fails(capsys, even, "--segment", "age=3")
    assert "needs a world" in fails(capsys, even, "--reward", "leaving=1")
    assert "nothing to evaluate" in fails(capsys, even, "--targets")
    for value, said in ((0.0, "propensity"), (1.5, "propensity")):
        wrong = table("even")
        wrong.loc[4, "propensity"] = value
        wrong.to_csv(logs / "wrong.csv", index=False)
        line = fails(capsys, logs / "wrong.csv")
        assert said in line
        assert "(0, 1]" in line
    lost = table("even")
    lost["like"] = 1.0
    lost.loc[7, "like"] = np.nan
    lost.to_csv(logs / "lost.csv", index=False)
    line = fails(capsys, logs / "lost.csv", "--signals", "click", "like", "--reward", "like=1")
    assert "the reward 'like' is missing (NaN) at 1 places" in line


@pytest.fixture(scope="module")
def logged() -> World:
    """A truth world of few users and items with a log of its own."""
    world = truth_world("boredom", users=200, items=12, slate_size=2, max_steps=6)
    return replace(world, sequences=compile_sequences(truth_log(world, "narrow", seed=0))[0])


def test_a_world_and_its_log_tell_the_same(logged: World) -> None:
    world = choices_of_world(logged, "all")
    log = choices_of_log(truth_log(logged, "narrow", seed=0))
    np.testing.assert_array_equal(world.items, log.items)
    np.testing.assert_allclose(world.rewards, log.rewards)
    np.testing.assert_allclose(world.propensity, log.propensity)  # type: ignore[arg-type]
    np.testing.assert_array_equal(world.policies, log.policies)  # type: ignore[arg-type]
    np.testing.assert_array_equal(world.session, log.session)


def test_policies_of_ours_in_a_world(logged: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged.save(tmp_path / "world")
    line = fails(capsys, tmp_path / "world", "--targets", "popularity")
    assert "policy 'popularity' is a policy without probabilities where weights need them" in line
    out = tmp_path / "out.csv"
    asked = ["--targets", "random", "popularity", "--epsilon", "0.9", "--users", "all", "--out", str(out)]
    main(["off-policy", str(tmp_path / "world"), *asked])
    rows = rows_of(out)
    assert {target for target, _ in rows} == {"logged", "random", "popularity"}
    assert {"pdis", "snpdis", "dr"} <= {estimator for _, estimator in rows}
    assert "--segment belongs to a log" in fails(capsys, tmp_path / "world", "--segment", "a=b")
    bare = replace(logged, sequences=replace(logged.sequences, slates=None))
    with pytest.raises(PolicyError, match="has a log without exposures"):
        choices_of_world(bare)


@pytest.mark.slow
def test_estimates_hold_the_truth_of_written_down_users() -> None:
    rows = truth_rows("clicks", OffPolicyStudyConfig(logs=10, users=400, progress=False))
    found = {(row["unit"], row["target"], row["estimator"]): row for row in rows}
    for unit in ("slate", "first 2 slates"):
        one = found[unit, "random", "snips"]
        assert one["refused"] <= 1
        assert float(one["covered"]) >= 0.7
        assert abs(float(one["bias"])) < 3 * float(one["rmse"]) / (one["logs"] - one["refused"]) ** 0.5
    assert found["first 2 slates", "popularity, epsilon 0.1", "ips"]["refused"] == 10


def test_coats_rows_are_weighed_by_the_published_propensities(tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "coat"
    (folder / "user_item_features").mkdir(parents=True)
    chosen = np.zeros((30, 60), dtype=int)
    for row in chosen:
        row[rng.permutation(60)[:24]] = rng.integers(1, 6, 24)
    np.savetxt(folder / "train.ascii", chosen, fmt="%d")
    np.savetxt(folder / "test.ascii", np.where(chosen > 0, 0, 3), fmt="%d")
    np.savetxt(folder / "propensities.ascii", np.full((30, 60), 0.4))
    log, dealt = coat_choices(folder)
    assert dealt == 3
    assert log.items.shape == (30 * 24, 1)
    assert log.propensity == pytest.approx(np.full((720, 1), 1 / 60))
    people, coats = chosen.nonzero()
    np.testing.assert_array_equal(log.rewards[np.lexsort((log.items[:, 0], log.user)), 0], chosen[people, coats])
