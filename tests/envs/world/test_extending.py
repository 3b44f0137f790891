"""Worlds extended in place: what is known stays, what is new stands behind it, what does not fit is refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from recloop.encoders.base.errors import WorldError
from recloop.encoders.text.encoder import HashedText
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times
from recloop.envs.truth import truth_log, truth_world
from recloop.envs.world.data import warm_states
from recloop.envs.world.world import World

USERS, ITEMS = 12, 10


@pytest.fixture(scope="module")
def world() -> World:
    return truth_world("clicks", users=USERS, items=ITEMS)


def log_of(world: World, rows: list[tuple[str, str, int]], more: dict[str, str] | None = None) -> LoggedBehavior:
    """One slate an impression: (user, item, clicked)."""
    frame = pd.DataFrame(rows, columns=[Columns.user, Columns.item, "click"])
    frame[Columns.time] = np.arange(len(rows), dtype=float)
    frame[Columns.slate] = np.arange(len(rows))
    texts = {**dict(zip(world.catalogue.ids, world.catalogue.texts, strict=True)), **(more or {})}
    items = pd.DataFrame({Columns.title: list(texts.values()), Columns.text: list(texts.values())}, index=list(texts))
    users = pd.DataFrame(index=pd.Index(dict.fromkeys(row[0] for row in rows)))
    return LoggedBehavior("more", frame, users, items, (Signal("click"),), Times.behavioural, has_exposures=True)


def test_a_newer_log_goes_behind_the_older_user_by_user(world: World) -> None:
    ids = world.catalogue.ids
    once = world.extended(log_of(world, [("user-1", ids[3], 1), ("user-2", ids[4], 0), ("user-1", ids[5], 1)]))
    twice = once.extended(log_of(world, [("user-2", ids[6], 1), ("user-1", ids[7], 1)]))
    assert twice.sequences.of(1)[0].tolist() == [3, 5, 7]
    assert twice.sequences.of(2)[0].tolist() == [6]
    assert twice.users.history[1, -4:].tolist() == [ITEMS, 3, 5, 7]
    assert twice.users.shown[2, -2:, 0].tolist() == [4, 6]
    assert twice.sequences.slates is not None
    assert twice.sequences.slates.consumed_before.tolist() == [0, 1, 2, 0, 0]
    assert twice.sequences.slates.session.tolist() == [0, 0, 1, 0, 1]
    gained = twice.catalogue.popularity - world.catalogue.popularity
    train = set(world.users.rows("train").tolist())
    assert gained.sum().item() == pytest.approx(3 * (1 in train) + (2 in train), abs=1e-4)
    assert twice.simulators == world.simulators


def test_two_logs_in_turn_are_the_whole_log_at_once(world: World) -> None:
    first, second = truth_log(world, "mixed", seed=1), truth_log(world, "narrow", seed=2)
    later = second.interactions.assign(
        **{name: second.interactions[name] + 10**6 for name in (Columns.time, Columns.slate, Columns.session)}
    )
    both = replace(first, interactions=pd.concat([first.interactions, later], ignore_index=True))
    step = world.extended(first)
    _ = step.warm_states
    step, whole = step.extended(second), world.extended(both)
    for name in ("offsets", "items", "feedback", "given"):
        assert np.array_equal(getattr(step.sequences, name), getattr(whole.sequences, name)), name
    assert step.sequences.slates is not None
    assert whole.sequences.slates is not None
    for name, value in whole.sequences.slates.arrays().items():
        if name not in ("policy", "days_away"):  # numbered otherwise; and between the logs nobody knows
            assert np.array_equal(getattr(step.sequences.slates, name), value, equal_nan=value.dtype.kind == "f"), name
    for name, table in whole.users.tensors().items():
        assert torch.equal(table, step.users.tensors()[name]), name
    users = whole.users
    read = warm_states(whole.state_encoder, users.profile, users.history, users.feedback, whole.sequences)
    assert torch.allclose(read.hidden, step.warm_states.hidden, atol=1e-6)


def test_new_items_and_users_stand_behind_the_known(world: World) -> None:
    ids = world.catalogue.ids
    rows = [("anna", "new", 1), ("user-1", ids[2], 1), ("anna", ids[2], 1)]
    grown = world.extended(log_of(world, rows, {"new": world.catalogue.texts[4]}), HashedText(64))
    assert grown.catalogue.ids == (*ids, "new")
    assert grown.users.ids[-1] == "anna"
    assert grown.sequences.of(USERS)[0].tolist() == [ITEMS, 2]
    assert torch.equal(grown.item_vectors[:ITEMS], world.item_vectors[:-1])
    assert torch.allclose(grown.item_vectors[ITEMS], world.item_vectors[4], atol=1e-6)
    assert grown.item_vectors[-1].abs().sum() == 0
    assert grown.users.history[1, :-1].unique().tolist() == [ITEMS + 1]
    assert USERS in grown.users.rows("train").tolist()
    assert grown.catalogue.groups[-2:].flatten().tolist() == [int(world.catalogue.groups[-1])] * 2
    assert grown.simulators == {}
    assert len(world.catalogue) == ITEMS
    encoder = grown.state_encoder
    assert torch.allclose(encoder.pattern_weights[ITEMS], encoder.pattern_weights[4], atol=1e-5)
    assert grown.spec().catalogue_size == ITEMS + 1
    assert grown.warm_states.hidden.shape[0] == USERS + 1


def test_a_log_without_exposures_takes_consumption_alone(world_maker: Callable[..., World]) -> None:
    tiny = world_maker()
    ids, before = tiny.catalogue.ids, tiny.sequences
    log = log_of(tiny, [("u3", ids[30], 1), ("u3", ids[31], 0), ("u0", ids[2], 1)])
    rows = log.interactions.rename(columns={"click": "watch"}).assign(rating=4.0)
    grown = tiny.extended(replace(log, interactions=rows, signals=tiny.signals))
    assert grown.sequences.slates is None
    assert grown.sequences.of(3)[0].tolist() == [*before.of(3)[0], 30]
    assert grown.sequences.of(3)[1][-1].tolist() == [1.0, 4.0]
    assert grown.sequences.of(0)[0].tolist() == [2]
    assert grown.users.history[3, -1] == 30
    assert grown.simulators == tiny.simulators
    assert grown.sequences.times is None


def test_what_does_not_fit_is_refused_in_a_line(world: World) -> None:
    item = world.catalogue.ids[0]
    log = log_of(world, [("user-1", item, 1)])
    grown = world.extended(log)
    new = log_of(world, [("user-1", "new", 1)], {"new": "a text"})
    other = truth_log(truth_world("clickbait", users=8, items=8), "mixed")
    taken = replace(log, has_exposures=False, interactions=log.interactions.drop(columns=[Columns.slate]))
    for said, try_it in {
        "the signals": lambda: world.extended(other),
        "is empty": lambda: world.extended(replace(log, interactions=log.interactions.iloc[:0])),
        "pass the text encoder": lambda: world.extended(new),
        "are not what HashedText says": lambda: world.extended(new, HashedText(32)),
        "does not say what was shown": lambda: grown.extended(taken),
    }.items():
        with pytest.raises(WorldError, match=said) as told:
            try_it()
        assert "\n" not in str(told.value)
