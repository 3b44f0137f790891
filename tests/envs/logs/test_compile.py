"""Logs as arrays, worked out by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.compile import compile_sequences, ordered_rows
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times
from recloop.envs.world.world import sequence_tensors, sequences_from

RATING = Signal("rating", "ordinal", levels=(1, 2, 3, 4, 5), given_on="consume")


def make_log(rows: pd.DataFrame, **facts: object) -> LoggedBehavior:
    users = pd.DataFrame(index=pd.Index(["u", "v", "w"], dtype="str"))
    items = pd.DataFrame({"title": list("abcd"), "text": list("abcd")}, index=pd.Index(list("abcd"), dtype="str"))
    signals = (Signal("consume"), RATING) if "rating" in rows else (Signal("consume"),)
    times = Times.behavioural if Columns.time in rows else Times.none
    return LoggedBehavior("tiny", rows, users, items, signals, times=times, **facts)  # type: ignore[arg-type]


def consumption() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user": ["v", "u", "v", "u", "v"],
            "item": ["d", "a", "b", "c", "a"],
            "time": [5.0, 9.0, 5.0, 1.0, 2.0],
            "consume": 1.0,
            "rating": [4.0, 5.0, np.nan, 3.0, 1.0],
        }
    )


def test_users_items_and_time_order_with_ties_by_file() -> None:
    sequences, items, users = compile_sequences(make_log(consumption()))
    assert items == ("a", "b", "c", "d")
    assert users == ("u", "v", "w")
    assert sequences.offsets.tolist() == [0, 2, 5, 5]
    assert sequences.items.tolist() == [2, 0, 0, 3, 1]  # u: c, a; v: a, d, b
    assert sequences.feedback[:, 1].tolist() == [3, 5, 1, 4, 0]
    assert sequences.given[:, 1].tolist() == [True, True, True, True, False]
    assert sequences.feedback.dtype == np.float32
    assert sequences.slates is None


def test_without_times_the_file_is_the_order() -> None:
    sequences, _, _ = compile_sequences(make_log(consumption().drop(columns="time")))
    assert sequences.items.tolist() == [0, 2, 3, 1, 0]
    assert sequences.times is None


def test_times_of_consumption_are_kept_also_on_disk_and_for_some_users() -> None:
    sequences, _, _ = compile_sequences(make_log(consumption()))
    again = sequences_from(sequence_tensors(sequences), ())
    some = sequences.subset(np.array([1]))
    assert [s.times is not None and s.times.tolist() for s in (sequences, again, some)] == [
        [1.0, 9.0, 2.0, 5.0, 5.0],
        [1.0, 9.0, 2.0, 5.0, 5.0],
        [2.0, 5.0, 5.0],
    ]


def exposures() -> pd.DataFrame:
    """Two users; u meets slate q2 at 10 and q1 at 30, in one session each; v meets q1 only, in two rows."""
    return pd.DataFrame(
        {
            "user": ["u", "u", "v", "u", "u", "v", "u"],
            "item": ["a", "b", "a", "c", "d", "b", "a"],
            "time": [30.0, 31.0, 1.0, 10.0, 12.0, 1.0, 11.0],
            "slate": ["q1", "q1", "q1", "q2", "q2", "q1", "q2"],
            "position": [1, 0, 1, 0, 2, 0, 1],
            "session": ["s9", "s9", "s1", "s1", "s1", "s1", "s1"],
            "session_end": ["cut", "cut", "left", "left", "left", "left", "left"],
            "consume": [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0],
            "rating": [5.0, 2.0, np.nan, 3.0, np.nan, 1.0, np.nan],
        }
    )


def test_slates_by_hand() -> None:
    sequences, _, _ = compile_sequences(make_log(exposures(), has_exposures=True))
    slates = sequences.slates
    assert slates is not None
    assert slates.offsets.tolist() == [0, 2, 3, 3]
    assert slates.items.tolist() == [[2, 0, 3], [1, 0, 4], [1, 0, 4]]  # 4 is the empty place
    assert slates.answers[..., 0].tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert slates.given[..., 1].tolist() == [[True, False, False], [False, True, False], [True, False, False]]
    assert slates.answers[1, 0, 1] == 0, "a rating of what was not consumed is not given"
    assert slates.consumed_before.tolist() == [0, 2, 0]
    assert slates.session.tolist() == [0, 1, 0]
    assert slates.left.tolist() == [1, -1, 1]
    assert sequences.items.tolist() == [2, 3, 0, 1]
    assert sequences.offsets.tolist() == [0, 3, 4, 4]


def test_who_left_and_who_was_cut() -> None:
    rows = pd.DataFrame(
        {
            "user": ["u"] * 3 + ["v"] * 2 + ["w"] * 2,
            "item": list("abcabab"),
            "session": ["1", "1", "1", "1", "1", "1", "1"],
            "session_end": ["left"] * 3 + ["cut"] * 2 + ["unknown"] * 2,
            "consume": [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
        }
    )
    sequences, _, _ = compile_sequences(make_log(rows, has_exposures=True))
    assert sequences.slates is not None
    assert sequences.slates.items.tolist() == [[0], [1], [2], [0], [1], [0], [1]], "no slate column: rows alone"
    assert sequences.slates.left.tolist() == [0, 0, 1, 0, -1, -1, -1]
    assert sequences.slates.consumed_before.tolist() == [0, 1, 1, 0, 0, 0, 0]


def test_order_and_where_slates_begin() -> None:
    order, users, begins = ordered_rows(make_log(exposures(), has_exposures=True))
    assert order.tolist() == [3, 6, 4, 1, 0, 5, 2]
    assert users.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert begins.tolist() == [0, 0, 0, 3, 3, 5, 5]


def test_faults_say_what_to_do() -> None:
    rows = consumption()
    with pytest.raises(LogError, match="item 'z' of interaction 0 is not in the items table"):
        compile_sequences(make_log(rows.assign(item="z")))
    with pytest.raises(LogError, match="time of interaction 1 is nan; clean"):
        compile_sequences(make_log(rows.assign(time=[1.0, np.nan, 1.0, 1.0, 1.0])))
    with pytest.raises(LogError, match=r"'consume' of interaction 2 is 0\.5"):
        compile_sequences(make_log(rows.assign(consume=[1.0, 1.0, 0.5, 1.0, 1.0])))
    log = make_log(rows)
    with pytest.raises(LogError, match="user 'u' stands twice"):
        compile_sequences(replace(log, users=pd.concat([log.users, log.users])))


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_propensity_that_is_none_is_named(value: float) -> None:
    rows = exposures().assign(propensity=[0.5, value, *[0.5] * (len(exposures()) - 2)])
    with pytest.raises(LogError, match=rf"propensity of interaction 1 is {value:g}"):
        compile_sequences(make_log(rows, has_exposures=True))


def test_policies_and_propensities_follow_their_slates() -> None:
    rows = exposures()
    rows = rows.assign(propensity=[0.1 * (n + 1) for n in range(len(rows))], policy="b")
    sequences, _, _ = compile_sequences(make_log(rows, has_exposures=True))
    slates = sequences.slates
    assert slates is not None
    assert slates.propensity is not None
    assert slates.policy is not None
    assert sequences.policies == ("b",)
    assert (np.isfinite(slates.propensity) == (slates.items < sequences.catalogue_size)).all()
    assert slates.policy.tolist() == [0] * len(slates.items)
