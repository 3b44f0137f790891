"""Steps that users' features tell of: history for everything, scored by nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.evidence.fidelity.lanes import logged_lanes, past_told
from recloop.envs.evidence.replay.episodes import choose_episodes
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.users.fitted import fit_users
from recloop.envs.users.fitted.fitting.windows import WindowMaker
from recloop.envs.world.patterns import first_part
from tests.envs.users.conftest import QUICK, Case, consumption_log, slate_log


def two_users() -> Sequences:
    """User 0 has sessions of 2 and 3 slates, and consumes at slates 1, 2 and 4; user 1 has one slate, in vain."""
    consumed = np.array([0, 1, 1, 0, 1, 0], dtype=np.float32).reshape(6, 1, 1)
    slates = Slates(
        offsets=np.array([0, 5, 6]),
        items=np.arange(6).reshape(6, 1),
        answers=consumed,
        given=np.ones((6, 1, 1), dtype=bool),
        consumed_before=np.array([0, 0, 1, 2, 2, 0]),
        session=np.array([0, 0, 1, 1, 1, 0]),
        left=np.zeros(6, dtype=np.int8),
    )
    ones = np.ones((3, 1), dtype=np.float32)
    return Sequences(6, np.array([0, 3, 3]), np.array([1, 2, 4]), ones, ones > 0, slates)


def told(sequences: Sequences) -> Sequences:
    return replace(sequences, profile_prefix=first_part(sequences))


def test_the_first_part_is_half_of_the_slates_and_one_at_least() -> None:
    log = two_users()
    assert first_part(log).tolist() == [2, 1]
    users = np.arange(2)
    assert log.consumed_after(users, np.array([2, 1])).tolist() == [1, 0]
    assert log.consumed_after(users, np.array([5, 0])).tolist() == [3, 0]
    alone = replace(log, slates=None)
    assert first_part(alone).tolist() == [1, 0]
    assert alone.consumed_after(users, np.array([2, 9])).tolist() == [2, 0]


def test_they_go_with_their_users() -> None:
    only = told(two_users()).subset(np.array([1]))
    assert only.profile_prefix is not None
    assert only.profile_prefix.tolist() == [1]
    assert two_users().subset(np.array([1])).profile_prefix is None


@pytest.mark.parametrize("make", [consumption_log, slate_log])
def test_fits_score_every_later_step_once_and_no_earlier_one(make: type[Case]) -> None:
    log = told(make(users=5).sequences)
    maker = WindowMaker(log, history=10, lead=2, window=4, memory=False)
    counts, first = np.diff(log.step_offsets), log.first_scored
    moments = maker.moments(np.arange(5))
    windows = maker.cut(moments)
    begin = np.maximum(moments[:, 1] - moments[:, 2], 0)
    step = begin[:, None] + np.arange(windows.scored.shape[1])
    scored = [(user, s) for user, row, yes in zip(moments[:, 0], step, windows.scored, strict=True) for s in row[yes]]
    assert sorted(scored) == [(user, s) for user in range(5) for s in range(first[user], counts[user])]
    shifted = maker.cut(maker.moments(np.arange(5), torch.Generator().manual_seed(0)))
    assert shifted.scored.any(1).all(), "no window without a step to score"
    assert not (first >= counts).any()
    whole = WindowMaker(replace(log, profile_prefix=counts), history=10, lead=2, window=4, memory=False)
    assert len(whole.moments(np.arange(5))) == 0


def test_figures_count_later_answers_alone() -> None:
    case = consumption_log()
    log = told(case.sequences)

    def count(sequences: Sequences) -> float:
        report = fit_users(
            "factor", sequences, case.rows, case.vectors, case.profile, case.signals, config=replace(QUICK, epochs=1)
        )[1]
        return report.figures["consume"]["count"]

    assert count(log) == count(case.sequences) / 2 > 0


def test_users_of_whom_all_is_told_cannot_be_fitted() -> None:
    case = consumption_log(users=5, length=1)
    with pytest.raises(UserSimulatorError, match="any behaviour beyond what their features tell of"):
        fit_users("factor", told(case.sequences), case.rows, case.vectors, case.profile, case.signals, config=QUICK)


def test_users_are_measured_from_where_they_stand() -> None:
    lanes = logged_lanes(told(two_users()), np.array([0, 1]), 60)
    assert lanes.users.tolist() == [0], "the other has no slate left"
    assert lanes.items[0, :, 0].tolist() == [2, 3, 4]
    past = past_told(told(two_users()), lanes.users, 2, 3, twice=False)
    assert past.history.tolist() == [[6, 1]]
    assert past.shown[0, :, 0].tolist() == [6, 0, 1]
    assert past.step.tolist() == [0], "a session begins"
    assert past.seen is not None
    assert past.seen.listed().tolist() == [[1]]
    alone = past_told(told(replace(two_users(), slates=None)), np.array([0]), 2, 3, twice=True)
    assert alone.history.tolist() == [[6, 1]]
    assert alone.seen is None


def test_no_replayed_episode_begins_earlier() -> None:
    log = told(two_users())
    assert log.slates is not None
    for whole in (True, False):
        for seed in range(10):
            starts = choose_episodes(log.slates, np.array([0, 1]), 5, 20, whole, seed, log.profile_prefix)
            assert starts.users.tolist() == [0]
            assert starts.first.tolist() == [2]
            assert starts.lengths.tolist() == [3]
