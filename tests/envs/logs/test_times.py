"""Whether times are of behaviour or of entry: small logs worked out by hand."""

import numpy as np
import pytest

from recloop.envs.logs.readers.columns.times import DAY, TimesEvidence, decide_times, measure_times
from recloop.envs.logs.schema import Times


def test_ties_and_days_by_hand() -> None:
    users = ["a"] * 5 + ["b"] * 5 + ["c"]
    times = [0, 0, 10, 20, 20, 0, DAY, 2 * DAY, 3 * DAY, 4 * DAY + 1, 7]
    found = measure_times(users, times)
    assert found.ties == 2 / 8
    assert found.within_day == 1 / 2
    assert found.rows == 11
    assert not found.whole_days


def test_order_of_rows_does_not_matter_and_missing_times_do_not_count() -> None:
    users, times = ["b", "a", "a", "b", "a"], [5.0, 1.0, np.nan, 5.0, 2.0]
    assert measure_times(users, times).ties == 1 / 2
    assert measure_times([], []).rows == 0


@pytest.mark.parametrize(
    ("evidence", "meaning"),
    [
        (TimesEvidence(0.0, 0.0, False, 0), Times.none),
        (TimesEvidence(0.51, 0.68, False, 100), Times.entry),
        (TimesEvidence(0.25, 0.0, False, 100), Times.entry),
        (TimesEvidence(0.05, 0.5, False, 100), Times.entry),
        (TimesEvidence(0.04, 1.0, False, 100), Times.behavioural),
        (TimesEvidence(0.24, 0.49, False, 100), Times.behavioural),
        (TimesEvidence(0.0, 0.0, True, 100), Times.entry),
    ],
)
def test_thresholds(evidence: TimesEvidence, meaning: Times) -> None:
    assert decide_times(evidence)[0] is meaning


def test_what_is_known_of_a_log_counts_more_than_what_is_measured() -> None:
    kind, why = decide_times(TimesEvidence(0.0, 0.0, False, 10), known_entry="this is MovieLens")
    assert kind is Times.entry
    assert "MovieLens" in why
