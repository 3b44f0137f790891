"""Fitted users beside matrix factorisation: measures by hand, learners on what must be learnable, the table written."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from recloop.encoders.base.errors import LogError, RecloopError
from recloop.envs.logs.readers import read_log
from recloop.experiments.comparison.intervals import Interval
from recloop.experiments.studies.ratings.matrix_factorisation import (
    Cells,
    choose_rating_factors,
    fit_choice_factors,
    fit_rating_factors,
)
from recloop.experiments.studies.ratings.parts import coat_parts, parts_in_time
from recloop.experiments.studies.ratings.study import (
    COLUMNS,
    Line,
    RatingsConfig,
    effective_sample_size,
    main,
    propensity_weights,
    rmse,
    rmse_difference,
    squared_errors,
    user_aucs,
    write_rows,
)


def test_squared_errors_are_summed_by_user() -> None:
    found = squared_errors(np.array([1.0, 2.0, 3.0]), np.array([0, 2, 2]), 3)
    assert found.tolist() == [[1, 1], [0, 0], [13, 2]]
    assert rmse(found).mean == pytest.approx((14 / 3) ** 0.5)


def test_a_difference_of_equal_errors_is_nil_with_certainty() -> None:
    errors = squared_errors(np.random.default_rng(0).normal(size=50), np.arange(50), 50)
    found = rmse_difference(errors, errors)
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_auc_weighs_the_negatives_by_exposure() -> None:
    scores = np.array([[4.0, 3.0, 2.0, 1.0]])
    positive = np.array([[False, False, True, False]])
    known = np.array([[True, False, False, False]])
    assert user_aucs(scores, positive, known, np.ones(4)).tolist() == [0.5]
    # Item 1 beats the positive and is shown three times as often as item 3, which does not.
    assert user_aucs(scores, positive, known, np.array([9.0, 3.0, 9.0, 1.0])).tolist() == [0.25]
    assert np.isnan(user_aucs(scores, positive, positive, np.ones(4))).all()


def test_auc_against_a_plain_loop() -> None:
    random = np.random.default_rng(3)
    scores = random.integers(0, 5, (4, 12)).astype(float)
    positive, known = random.random((4, 12)) < 0.3, random.random((4, 12)) < 0.2
    shown = random.random(12)
    for user, found in enumerate(user_aucs(scores, positive, known, shown)):
        wins = weight = 0.0
        for i in np.flatnonzero(positive[user] & ~known[user]):
            for j in np.flatnonzero(~positive[user] & ~known[user]):
                mine, other = scores[user, i], scores[user, j]
                wins += shown[j] * (1.0 if mine > other else 0.5 if mine == other else 0.0)
                weight += shown[j]
        assert found == pytest.approx(wins / weight)


def test_propensities_outside_their_range_are_refused() -> None:
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(RecloopError, match=r"does not lie in \(0, 1\]"):
            propensity_weights(np.array([0.5, wrong]), 0.1)


def test_clipping_raises_the_effective_sample_size() -> None:
    propensities = np.array([0.5, 0.5, 0.5, 0.001])
    sizes = [effective_sample_size(propensity_weights(propensities, least)) for least in (0.001, 0.1, 1.0)]
    assert sizes[0] < 1.1
    assert sizes[0] < sizes[1] < sizes[2] == 4


def _planted(users: int = 60, items: int = 30) -> tuple[np.ndarray, Cells, Cells]:
    """Ratings of biases and one taste; 60 % of the cells are known, the others are held out."""
    random = np.random.default_rng(0)
    table = 3 + random.normal(size=(users, 1)) * 0.5 + random.normal(size=items) * 0.5
    table = table + random.choice([-1, 1], (users, 1)) * random.choice([-1, 1], items)
    known = random.random(table.shape) < 0.6
    sides = []
    for mask in (known, ~known):
        rows, columns = np.nonzero(mask)
        sides.append(Cells(rows, columns, table[rows, columns], np.ones(len(rows))))
    return table, *sides


def test_ratings_of_biases_and_one_taste_are_learned() -> None:
    table, learned, held_out = _planted()
    wrong = {}
    for rank in (0, 2):
        found = fit_rating_factors(learned, table.shape, rank=rank, decay=0.1)
        wrong[rank] = float(np.sqrt(np.mean((found.cells(held_out.users, held_out.items) - held_out.values) ** 2)))
    assert wrong[0] > 0.8
    assert wrong[2] < 0.15


def test_single_cells_are_those_of_the_table() -> None:
    table, learned, _ = _planted()
    found = fit_rating_factors(learned, table.shape, rank=2, decay=1.0)
    np.testing.assert_allclose(found.table()[learned.users, learned.items], found.cells(learned.users, learned.items))


def test_the_rank_is_chosen_on_held_out_cells() -> None:
    table, learned, _ = _planted()
    held_out = np.arange(0, len(learned.users), 10)
    _, chosen = choose_rating_factors(learned, held_out, table.shape, ranks=(0, 2), decays=(0.1, 100.0))
    assert chosen == "rank 2, decay 0.1"


def test_weights_correct_for_what_was_rated() -> None:
    """Two groups of coats; the good ones are rated nine times as often, and inverse propensities undo it."""
    items = np.concatenate([np.repeat([0, 1], 90), [2] * 10, [3] * 10])
    values = np.where(items < 2, 5.0, 1.0)
    propensities = np.where(items < 2, 0.9, 0.1)
    cells = Cells(np.zeros(len(items), dtype=np.int64), items, values, propensity_weights(propensities, 0.01))
    assert np.average(values) == pytest.approx(4.6)
    assert np.average(cells.values, weights=cells.weights) == pytest.approx(3.0)
    assert fit_rating_factors(cells, (1, 4), rank=0, decay=1.0).mean == pytest.approx(3.0)


def test_consumption_of_two_camps_is_learned() -> None:
    random = np.random.default_rng(0)
    camp = np.arange(40) % 2
    users = np.repeat(np.arange(40), 8)
    items = np.concatenate([random.permutation(np.arange(c, 40, 2))[:8] for c in camp])
    found = fit_choice_factors(users, items, np.full(40, 1 / 40), (40, 40), rank=4, epochs=12)
    positive = camp[:, None] == np.arange(40) % 2
    known = np.zeros((40, 40), dtype=bool)
    known[users, items] = True
    assert np.mean(user_aucs(found.table(), positive, known, np.ones(40))) > 0.9


def _log(folder: Path, users: int = 24, items: int = 16) -> Path:
    """People of two tastes who rate twelve films each."""
    random = np.random.default_rng(1)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(users):
        for when, item in enumerate(random.permutation(items)[:12]):
            lines.append(f"u{user}\ti{item}\t{5 if item % 2 == user % 2 else 1}\t{when}")
    place = folder / "tiny"
    place.mkdir()
    (place / "tiny.inter").write_text("\n".join(lines) + "\n")
    return place


def test_parts_in_time_share_nothing_and_know_their_newest(tmp_path: Path) -> None:
    parts = parts_in_time(read_log(_log(tmp_path)), 0.25)
    assert (len(parts.learned.users), len(parts.held_out.users), len(parts.tuning)) == (24 * 9, 24 * 3, 24)
    rows = parts.earlier.interactions
    newest = rows.groupby("user")["time"].idxmax().sort_values()
    assert parts.tuning.tolist() == newest.tolist()
    mine = set(zip(parts.learned.users.tolist(), parts.learned.items.tolist(), strict=True))
    assert not mine & set(zip(parts.held_out.users.tolist(), parts.held_out.items.tolist(), strict=True))


def test_a_log_without_ratings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.sequences.txt").write_text("1 a b c\n2 b a c\n")
    with pytest.raises(LogError, match="no signal called rating"):
        parts_in_time(read_log(tmp_path), 0.5)


def test_rows_of_another_log_stay_in_the_table(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    line = Line("factor", "rating_rmse", Interval(1.0, 0.9, 1.1))
    write_rows(path, "a", "s", [line, line])
    write_rows(path, "b", "s", [line])
    write_rows(path, "a", "s", [line])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["data"] for row in rows] == ["b", "a"]
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["value"] == "1.000000"


@pytest.mark.slow
def test_a_run_from_log_to_table(tmp_path: Path) -> None:
    _log(tmp_path)
    out = tmp_path / "ratings.csv"
    lines = main(
        RatingsConfig("tiny", data=tmp_path, out=out, families=("factor",), epochs=2, state_epochs=1, history=8)
    )
    found = {(line.model, line.metric) for line in lines}
    for model in ("popularity", "matrix factorisation", "factor"):
        assert {(model, "rating_rmse"), (model, "consumption_auc")} <= found
    assert ("factor", "rating_rmse minus matrix factorisation") in found
    assert out.read_text().count("\n") == len(lines) + 1


@pytest.mark.skipif("RECLOOP_DATA" not in os.environ, reason="RECLOOP_DATA names no folder with the real logs")
def test_coat_weights_undo_self_selection() -> None:
    parts = coat_parts(Path(os.environ["RECLOOP_DATA"]) / "coat", seed=0)
    assert (len(parts.learned.users), len(parts.held_out.users)) == (6_960, 4_640)
    weights = propensity_weights(parts.log.interactions["propensity"].to_numpy(), 0.02)
    plain, weighted = parts.learned.values.mean(), np.average(parts.learned.values, weights=weights)
    truth = parts.held_out.values.mean()
    assert abs(weighted - truth) < abs(plain - truth)
