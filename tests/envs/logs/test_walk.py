"""The walk along a log against a plain Python loop."""

from dataclasses import replace

import numpy as np
import pytest

from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.logs.walk import every_step, past_before, session_starts, steps_at, steps_between, steps_in_session

N, K, S = 12, 3, 2
LENGTHS = (5, 0, 1, 7, 3)
"""Slates of each user."""
HISTORY, SHOWN = 4, 3


def made_log() -> Sequences:
    """Random slates, some short, in sessions of about two; what users consumed of them, and one item more."""
    generator = np.random.default_rng(0)
    offsets = np.cumsum([0, *LENGTHS])
    q = int(offsets[-1])
    items = np.stack([generator.permutation(N)[:K] for _ in range(q)])
    items[generator.random(q) < 0.3, -1] = N
    given = np.repeat((items < N)[..., None], S, axis=2)
    given[..., 1] &= generator.random((q, K)) < 0.5
    answers = np.where(given, generator.integers(1, 6, size=(q, K, S)), 0).astype(np.float32)
    clicked = (generator.random((q, K)) < 0.4) & (items < N)
    before, session, consumed, feedback, lengths = [], [], [], [], []
    for u in range(len(LENGTHS)):
        done = number = 0
        for row in range(offsets[u], offsets[u + 1]):
            before.append(done)
            number += int(row > offsets[u] and generator.random() < 0.5)
            session.append(number)
            consumed += items[row][clicked[row]].tolist()
            feedback += answers[row][clicked[row]].tolist()
            done += int(clicked[row].sum())
        lengths.append(done + 1)  # one more, after the last slate
        consumed.append(u)
        feedback.append([1.0, 0.0])
    told = np.array(feedback, dtype=np.float32)
    return Sequences(
        catalogue_size=N,
        offsets=np.cumsum([0, *lengths]),
        items=np.array(consumed),
        feedback=told,
        given=told > 0,
        slates=Slates(
            offsets=offsets,
            items=items,
            answers=answers,
            given=given,
            consumed_before=np.array(before),
            session=np.array(session),
            left=generator.integers(-1, 2, size=q).astype(np.int8),
            days_away=generator.random(q).astype(np.float32),
            policy=generator.integers(0, 2, size=q),
        ),
    )


LOGS = {"slates": made_log(), "consumption": replace(made_log(), slates=None)}


def walked(log: Sequences, user: int) -> list[dict[str, object]]:
    """One user's steps one by one, and what had happened before each and after the last."""
    slates, found = log.slates, []
    mine, feedback = log.of(user)
    count = int(np.diff(log.step_offsets)[user])
    shown: list[tuple[list[int], list[list[float]]]] = []
    session, number = -1, 0
    for step in range(count + 1):
        last = step == count
        row = int(log.step_offsets[user]) + step
        done = step if slates is None else len(mine) if last else int(slates.consumed_before[row])
        if slates is not None and not last:
            number = number + 1 if slates.session[row] == session else 0
            session = int(slates.session[row])
        width = 1 if slates is None else K
        blank = ([N] * width, [[0.0] * S] * width)
        lately = [blank] * SHOWN + (shown if slates is not None else [])
        found.append(
            {
                "history": ([N] * HISTORY + mine[: min(done, len(mine))].tolist())[-HISTORY:],
                "feedback": ([[0.0] * S] * HISTORY + feedback[: min(done, len(mine))].tolist())[-HISTORY:],
                "shown": [items for items, _ in lately[-SHOWN:]],
                "answers": [answers for _, answers in lately[-SHOWN:]],
                "step": 0 if slates is None or last else number,
            }
        )
        if slates is not None and not last:
            shown.append((slates.items[row].tolist(), slates.answers[row].tolist()))
    return found


@pytest.mark.parametrize("name", LOGS)
def test_what_had_happened_before_every_step(name: str) -> None:
    log = LOGS[name]
    for user in range(len(LENGTHS)):
        wanted = walked(log, user)
        past = past_before(log, np.full(len(wanted), user), np.arange(len(wanted)), HISTORY, SHOWN)
        for field in ("history", "feedback", "shown", "answers", "step"):
            assert getattr(past, field).tolist() == [row[field] for row in wanted], (user, field)
        assert not past.days_away.any()
        assert past.seen is None


@pytest.mark.parametrize("name", LOGS)
def test_steps_side_by_side_are_those_one_by_one(name: str) -> None:
    """Users 3 and 0 from their second step on; the shorter one has places that hold nothing."""
    log, users = LOGS[name], np.array([3, 0, 2])
    counts = np.diff(log.step_offsets)[users]
    side = steps_between(log, users, np.array([1, 1, 0]), counts)
    assert side.step.shape == (3, int((counts - [1, 1, 0]).max()))
    for lane, (user, begin, count) in enumerate(zip(users, (1, 1, 0), counts, strict=True)):
        length = count - begin
        assert side.held[lane].tolist() == [place < length for place in range(side.held.shape[1])]
        alone = steps_at(log, log.step_offsets[user] + np.arange(begin, count))
        assert (alone.users == user).all()
        for field in ("step", "items", "answers", "given", "left", "days_away", "policy", "session", "consumed_before"):
            np.testing.assert_array_equal(getattr(side, field)[lane, :length], getattr(alone, field), err_msg=field)
    gone = ~side.held
    assert (side.items[gone] == N).all()
    assert not side.given[gone].any()
    assert not side.answers[gone].any()
    assert (side.left[gone] == -1).all()
    assert (side.policy[gone] == -1).all()
    assert np.isnan(side.days_away[gone]).all()


@pytest.mark.parametrize("name", LOGS)
def test_every_step_in_the_order_of_users(name: str) -> None:
    log = LOGS[name]
    counts = np.diff(log.step_offsets)
    steps = every_step(log, np.array([3, 1, 0]))
    assert steps.users.tolist() == [3] * counts[3] + [1] * counts[1] + [0] * counts[0]
    assert steps.step.tolist() == [*range(counts[3]), *range(counts[1]), *range(counts[0])]
    assert steps.past(HISTORY, SHOWN).history.tolist() == [
        row["history"] for user in (3, 1, 0) for row in walked(log, user)[:-1]
    ]


def test_sessions_by_hand() -> None:
    """User 0 has sessions of two and one slates, user 1 one slate."""
    slates = LOGS["slates"].slates
    assert slates is not None
    few = replace(slates, offsets=np.array([0, 3, 4]), session=np.array([0, 0, 1, 0]), items=slates.items[:4])
    assert session_starts(few).tolist() == [0, 2, 3]
    assert steps_in_session(few).tolist() == [0, 1, 0, 0]
