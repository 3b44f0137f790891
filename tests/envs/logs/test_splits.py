"""Splits: by hand, disjoint by property, and honest about what leaks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.schema import LoggedBehavior, Signal, Times
from recloop.envs.logs.splits import leave_one_out, split_by_user, split_per_user_in_time


def make_log(users: str, times: list[float] | None, **facts: Any) -> LoggedBehavior:
    frame = pd.DataFrame({"user": list(users), "item": "a", "consume": 1.0} | facts.pop("columns", {}))
    kind = Times.none if times is None else facts.pop("kind", Times.behavioural)
    if times is not None:
        frame["time"] = times
    names = sorted(set(users))
    return LoggedBehavior(
        "tiny", frame, pd.DataFrame(index=names), pd.DataFrame(index=["a"]), (Signal("consume"),), kind, **facts
    )


def parts(split: Any) -> dict[str, list[int]]:
    return {name: rows.tolist() for name, rows in split.parts.items()}


def test_per_user_in_time_with_ties_by_file_order() -> None:
    log = make_log("uvuvu", [5, 2, 5, 1, 5])
    split = split_per_user_in_time(log, {"train": 0.5, "test": 0.5})
    assert parts(split) == {"train": [0, 2, 3], "test": [1, 4]}
    assert any("later than" in leak for leak in split.leaks)


def test_per_user_in_time_keeps_slates_whole() -> None:
    log = make_log("uuuu", [1, 2, 2, 3], columns={"slate": ["x", "y", "y", "z"]}, has_exposures=True)
    split = split_per_user_in_time(log, {"train": 0.5, "test": 0.5})
    assert parts(split) == {"train": [0, 1, 2], "test": [3]}


def test_leave_one_out_by_hand() -> None:
    log = make_log("uvuvuu", [3, 1, 1, 2, 2, 2])
    split = leave_one_out(log)
    assert parts(split) == {"train": [1, 2, 3, 4], "valid": [5], "test": [0]}, "v has two rows: all in train"
    with pytest.raises(LogError, match="no user has three"):
        leave_one_out(make_log("uuvv", [1, 2, 3, 4]))


def test_leave_one_out_leaves_out_what_was_shown_later() -> None:
    columns = {"consume": [1, 1, 0, 1, 0], "slate": ["a", "b", "b", "c", "c"]}
    log = make_log("uuuuu", [1, 2, 2, 3, 3], columns=columns, has_exposures=True)
    assert parts(leave_one_out(log)) == {"train": [0], "valid": [1], "test": [3]}


def test_by_user_is_a_function_of_the_seed() -> None:
    fractions = {"train": 0.6, "judge": 0.2, "evaluate": 0.2}
    first = split_by_user(100, fractions, seed=3)
    assert {name: len(rows) for name, rows in first.parts.items()} == {"train": 60, "judge": 20, "evaluate": 20}
    assert parts(first) == parts(split_by_user(100, fractions, seed=3))
    assert parts(first) != parts(split_by_user(100, fractions, seed=4))
    assert first.of == "users"
    assert first.leaks
    assert np.array_equal(first["judge"], np.sort(first["judge"]))


@pytest.mark.parametrize("fractions", [{"a": 1.0}, {"a": 0.5, "b": 0.4}, {"a": 1.0, "b": 0.0}, {"a": 1.5, "b": -0.5}])
def test_fractions_must_make_sense(fractions: dict[str, float]) -> None:
    with pytest.raises(LogError, match="of sum 1"):
        split_by_user(10, fractions, seed=0)


def test_too_few_users() -> None:
    with pytest.raises(LogError, match="part 'b' gets none of 2 users"):
        split_by_user(2, {"a": 0.9, "b": 0.1}, seed=0)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 5)), min_size=2, max_size=30),
    share=st.floats(0.1, 0.9),
)
def test_parts_are_disjoint_and_in_time(rows: list[tuple[str, int]], share: float) -> None:
    log = make_log("".join(user for user, _ in rows), [float(time) for _, time in rows])
    times, users = log.interactions["time"].to_numpy(), log.interactions["user"].to_numpy()
    fractions = {"train": share, "test": 1 - share}
    try:
        split = split_per_user_in_time(log, fractions)
    except LogError:
        return
    train, test = split["train"], split["test"]
    assert sorted([*train, *test]) == list(range(len(rows)))
    for user in set(users[train]) & set(users[test]):
        assert times[train][users[train] == user].max() <= times[test][users[test] == user].min()
