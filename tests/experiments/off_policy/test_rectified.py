"""A few live outcomes and a judge, together."""

from pathlib import Path

import numpy as np
import pytest

from recloop.encoders.base.errors import LogError, RecloopError
from recloop.envs.truth.worlds import truth_world
from recloop.experiments.off_policy.rectified import rectified
from recloop.experiments.off_policy.rectify import RectifyConfig, main


def drawn(rng: np.random.Generator, n: int, shift: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of mean 1, and a judge that knows users up to noise and is off by a shift."""
    person = rng.normal(1, 1, n)
    return person + 0.3 * rng.normal(size=n), person + shift + noise * rng.normal(size=n)


def test_it_holds_whatever_the_judge_is_like_and_a_good_one_saves() -> None:
    rng = np.random.default_rng(0)
    for shift, noise, least in ((0.0, 0.2, 0.7), (5.0, 0.2, 0.7), (-3.0, 30.0, 0.0)):
        held, saved = 0, []
        for _ in range(400):
            live, of_live = drawn(rng, 40, shift, noise)
            one = rectified(live, of_live, drawn(rng, 1000, shift, noise)[1])
            held += one.together.low <= 1 <= one.together.high
            saved.append(one.saved)
        assert 0.92 <= held / 400 <= 0.99
        assert np.mean(saved) >= least
    assert np.mean(saved) < 0.1  # the last judge is noise


def test_a_judge_without_any_spread_or_that_is_upside_down_weighs_nothing() -> None:
    live = np.arange(20.0)
    for told in (np.ones(20), -live):
        one = rectified(live, told, told)
        assert (one.weight, one.saved) == (0.0, 0.0)
        assert (one.together.low, one.together.high) == pytest.approx((one.live.low, one.live.high))


def test_the_weight_against_its_formula() -> None:
    rng = np.random.default_rng(3)
    live, of_live = drawn(rng, 30, 1.0, 0.5)
    others = drawn(rng, 90, 1.0, 0.5)[1]
    one = rectified(live, of_live, others)
    weight = np.cov(live, of_live)[0, 1] / ((1 + 30 / 90) * of_live.var(ddof=1))
    assert one.weight == pytest.approx(weight)
    assert one.together.mean == pytest.approx(live.mean() + weight * (others.mean() - of_live.mean()))


def test_bad_values() -> None:
    with pytest.raises(RecloopError, match="3 live users, 5 simulated; at least 10 and 2"):
        rectified(np.ones(3), np.ones(3), np.ones(5))
    with pytest.raises(RecloopError, match="one of each for every live user"):
        rectified(np.ones(12), np.ones(11), np.ones(20))
    with pytest.raises(RecloopError, match="NaN or infinite"):
        rectified(np.array([np.nan] * 12), np.ones(12), np.ones(20))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rectify") / "w"
    truth_world("clicks", users=60, items=40).save(out)
    return out


def table(path: Path, rows: list[tuple[str, str, object]]) -> Path:
    path.write_text("user,policy,value\n" + "".join(f"{u},{p},{v}\n" for u, p, v in rows))
    return path


def test_the_command_puts_them_together(folder: Path, tmp_path: Path) -> None:
    rows = [(f"user-{i}", name, i % 5 + bonus) for i in range(20) for name, bonus in (("random", 0), ("popularity", 2))]
    config = RectifyConfig(
        folder, table(tmp_path / "live.csv", rows), ("random", "popularity"), repeats=1, out=tmp_path / "o.csv"
    )
    found = main(config)
    assert found["popularity - random"].live.mean == pytest.approx(2.0)
    assert set(found) == {"random", "popularity", "popularity - random"}
    assert (tmp_path / "o.csv").read_text().startswith("what,live,live_low")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("nobody", "random", 1)], "names 1 user.s. that world 'clicks' does not know, the first 'nobody'"),
        ([("user-1", "ppo", 1)], "holds policy 'ppo', which is not among --policies random"),
        ([("user-1", "random", "x")], "line 2: value 'x' is no number"),
    ],
)
def test_bad_tables(folder: Path, tmp_path: Path, rows: list[tuple[str, str, object]], message: str) -> None:
    with pytest.raises(LogError, match=message):
        main(RectifyConfig(folder, table(tmp_path / "live.csv", rows), ("random",)))
