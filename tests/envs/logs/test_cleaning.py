"""Cleaning: every drop and every mend is counted, by hand and by property."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.cleaning import CleaningOptions, clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times

RATING = Signal("rating", "ordinal", levels=(1, 2, 3, 4, 5), given_on="consume")
FIELDS = ["user", "item", "time", "consume", "rating"]


def make_log(rows: list[tuple[Any, ...]], **facts: Any) -> LoggedBehavior:
    frame = pd.DataFrame(rows, columns=FIELDS)
    users = pd.DataFrame(index=pd.Index(["u", "v", "w"], dtype="str", name="user"))
    items = pd.DataFrame({"title": list("abcd")}, index=pd.Index(list("abcd"), dtype="str", name="item"))
    signals = (Signal("consume"), RATING)
    return LoggedBehavior("tiny", frame, users, items, signals, times=Times.entry, **facts)


ANY_LOSS = CleaningOptions(max_loss=1)
GOOD = [("u", "a", 1, 1, 5), ("u", "b", 2, 1, 4), ("v", "a", 3, 1, 1), ("v", "c", 4, 1, None)]


def test_a_clean_log_stays_as_it_is() -> None:
    log = make_log(GOOD)
    cleaned, report = clean(log, ANY_LOSS)
    assert cleaned.interactions["item"].tolist() == ["a", "b", "a", "c"]
    assert report.dropped == {}
    assert report.kept == {"rating not given": 1}
    assert report.tables == {"users without a row": 1}, "w has no row"
    assert cleaned.items.index.tolist() == ["a", "b", "c", "d"], "an item that nobody took stays in the catalogue"
    assert "no row was dropped" in str(report)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((None, "a", 9, 1, 5), "missing user"),
        (("", "a", 9, 1, 5), "missing user"),
        (("u", None, 9, 1, 5), "missing item"),
        (("x", "a", 9, 1, 5), "user in no table"),
        (("u", "x", 9, 1, 5), "item in no table"),
        (("u", "d", None, 1, 5), "missing time"),
        (("u", "d", np.inf, 1, 5), "malformed time"),
        (("u", "d", -1, 1, 5), "impossible time, too early"),
        (("u", "d", 1.7e12, 1, 5), "impossible time, too late"),
        (("u", "d", 9, None, 5), "missing consume"),
        (("u", "d", 9, 2, 5), "consume neither 0 nor 1"),
        (("u", "d", 9, 1, 6), "rating out of range"),
        (("u", "d", 9, 1, 3.5), "rating out of range"),
        (("u", "d", 9, 1, np.inf), "malformed rating"),
        (("u", "a", 1, 1, 5), "duplicate row"),
    ],
)
def test_a_bad_row_is_dropped_for_its_reason(row: tuple[Any, ...], reason: str) -> None:
    log = make_log([*GOOD[:2], row, *GOOD[2:]])
    cleaned, report = clean(log, ANY_LOSS)
    assert report.dropped == {reason: 1}
    assert cleaned.interactions["item"].tolist() == ["a", "b", "a", "c"]
    assert len(log.interactions) == 5, "the log that came in is not changed"
    with pytest.raises(LogError, match=r"tiny, interaction \d, column '\w+': ") as caught:
        clean(log, CleaningOptions(strict=True))
    assert reason in str(caught.value)


def test_values_are_mended_and_counted() -> None:
    rows = [*GOOD, ("v", "d", 5, 0, 3), ("u", "d", 5, 1, 9)]
    frame = pd.DataFrame(rows, columns=FIELDS).assign(
        propensity=[0.5, 0, 1.5, 1, 0.1, np.nan], position=[0, -1, 0.5, 2, 1, 0], session_end=["left"] * 5 + ["no"]
    )
    log = replace(make_log(rows), interactions=frame)
    cleaned, report = clean(log, CleaningOptions(out_of_range="clip", max_loss=1))
    assert report.repaired == {
        "rating without consume": 1,
        "rating out of range": 1,
        "position no whole number from 0": 2,
        "propensity outside (0, 1]": 2,
        "unknown session end": 1,
    }
    assert cleaned.interactions["rating"].fillna(0).tolist() == [5, 4, 1, 0, 0, 5]
    assert cleaned.interactions[Columns.session_end].tolist() == ["left"] * 5 + ["unknown"]
    assert len(cleaned.interactions) == 6


def test_iterated_k_core_by_hand() -> None:
    # d has one row; without it w has one; without w c has one; then all of u, v, a, b have two.
    rows = [(user, item, 1, 1, 3) for user, item in ("ua", "ub", "va", "vb", "vc", "wc", "wd")]
    cleaned, report = clean(make_log(rows), CleaningOptions(min_user_rows=2, min_item_rows=2))
    assert cleaned.interactions["user"].tolist() == ["u", "u", "v", "v"]
    assert cleaned.items.index.tolist() == ["a", "b"]
    assert cleaned.users.index.tolist() == ["u", "v"]
    assert report.dropped == {"item below 2 consumptions": 2, "user below 2 consumptions": 1}
    assert report.tables == {"items below 2 consumptions": 2, "users without a row": 1}


def test_over_active_users_keep_their_newest_rows() -> None:
    rows = [("u", "a", 3, 1, 1), ("u", "b", 1, 1, 1), ("u", "c", 2, 1, 1), ("v", "a", 1, 1, 1)]
    cleaned, report = clean(make_log(rows), CleaningOptions(max_user_rows=2))
    assert cleaned.interactions["item"].tolist() == ["a", "c", "a"]
    assert report.dropped == {"above 2 rows of one user": 1}


def test_one_row_a_pair_keeps_the_newest() -> None:
    rows = [("u", "a", 9, 1, 1), ("u", "a", 1, 1, 2), ("u", "b", 1, 1, 2), ("v", "a", 1, 1, 1)]
    cleaned, _ = clean(make_log(rows), CleaningOptions(one_row_a_pair=True))
    assert cleaned.interactions["rating"].tolist() == [1, 2, 1]
    assert clean(make_log(rows))[1].dropped == {}


def test_rows_refused_at_reading_are_in_the_report() -> None:
    cleaned, report = clean(make_log(GOOD, dropped=(("ragged line", 3),)), ANY_LOSS)
    assert report.dropped == {"ragged line (at reading)": 3}
    assert report.before["rows"] == 4
    assert report.as_dict()["after"]["rows"] == 4
    assert "ragged line (at reading)" in str(report)
    assert cleaned.dropped == ()


def test_too_little_is_an_error() -> None:
    with pytest.raises(LogError, match="holds 1 user, at least 2"):
        clean(make_log(GOOD[:2]))
    with pytest.raises(LogError, match=r"no row is left of 4 \(user below 3 consumptions: 4\)"):
        clean(make_log(GOOD), CleaningOptions(min_user_rows=3))
    log = make_log([("u", "a", 1, 1, 5), ("v", "a", 1, 1, 5)])
    with pytest.raises(LogError, match="holds 1 item, at least 2"):
        clean(replace(log, items=log.items.iloc[:1]))
    with pytest.raises(LogError, match="max_user_rows=0 is below 1"):
        CleaningOptions(max_user_rows=0)


ids = st.sampled_from(["u", "v", "w", "a", "b", "c", "d", "", None])
numbers = st.one_of(st.none(), st.floats(), st.integers(-1, 6), st.sampled_from([1, 1, 1, 0]))


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(ids, ids, numbers, numbers, numbers), max_size=25),
    good=st.booleans(),
    options=st.builds(
        CleaningOptions,
        min_user_rows=st.integers(0, 2),
        min_item_rows=st.integers(0, 2),
        max_user_rows=st.one_of(st.none(), st.integers(1, 3)),
        one_row_a_pair=st.booleans(),
        out_of_range=st.sampled_from(["drop", "clip"]),
        missing_signals=st.sampled_from(["keep", "drop"]),
    ),
)
def test_whatever_comes_in_the_counts_add_up(rows: list[Any], good: bool, options: CleaningOptions) -> None:
    log = make_log([*rows, *(GOOD if good else [])])
    try:
        cleaned, report = clean(log, options)
    except LogError:
        return
    assert len(cleaned.interactions) + sum(report.dropped.values()) == len(log.interactions)
    assert len(cleaned.items) >= 2
    for user, count in cleaned.interactions["user"].value_counts().items():
        assert count >= options.min_user_rows, user
        assert options.max_user_rows is None or count <= options.max_user_rows
    compile_sequences(cleaned)
    again, second = clean(cleaned, options)
    assert len(again.interactions) == len(cleaned.interactions), second
