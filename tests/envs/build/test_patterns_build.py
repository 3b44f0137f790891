"""Patterns from a log: built with the world, as features of its users on request, and refused in one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.state.batches import NextItemConfig
from recloop.envs.build.encoders import EncoderConfig
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.evidence.fidelity import fidelity_of
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times
from recloop.envs.users.fitted import FitConfig
from recloop.envs.world.patterns import FEATURES_FROM, FEATURES_WARNING
from recloop.envs.world.world import World

ENCODER = EncoderConfig(
    text="hashed", kg_epochs=1, dim=8, topics=2, pattern_features=True, next_item=NextItemConfig(epochs=1)
)
QUICK = BuildConfig(
    slate_size=2,
    history_length=4,
    shown_length=1,
    encoder=ENCODER,
    users=FitConfig(epochs=1, hidden=8, rank=4, residual=4, negatives=8),
    members=1,
    examine=False,
    use_cache=False,
)


def log_of_two_tastes(users: int = 60) -> LoggedBehavior:
    """Even users watch six of the ten comedies, odd ones six of the ten thrillers."""
    chance = np.random.default_rng(0)
    names = [f"Comedy {i}" for i in range(10)] + [f"Thriller {i}" for i in range(10)]
    kinds = ["genre:Comedy"] * 10 + ["genre:Thriller"] * 10
    rows = [
        (f"u{user}", f"i{item + 10 * (user % 2)}", float(time), 1.0)
        for user in range(users)
        for time, item in enumerate(chance.permutation(10)[:6])
    ]
    films = [f"film:{name}" for name in names]
    return LoggedBehavior(
        name="tastes",
        interactions=pd.DataFrame(rows, columns=[Columns.user, Columns.item, Columns.time, "consume"]),
        users=pd.DataFrame(index=pd.Index([f"u{user}" for user in range(users)])),
        items=pd.DataFrame(
            {"title": names, "text": [name.split()[0] for name in names], "entity": films},
            index=pd.Index([f"i{item}" for item in range(20)]),
        ),
        signals=(Signal("consume"),),
        times=Times.entry,
        knowledge=KnowledgeGraph.from_names(films, ["genre"] * 20, kinds),
    )


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(log_of_two_tastes(), QUICK)


def test_build_finds_and_names_the_tastes(world: World) -> None:
    assert world.patterns is not None
    assert world.patterns.segments is not None
    segment = dict(zip(world.users.ids, world.patterns.segment.tolist(), strict=True))
    comedy, thriller = segment["u0"], segment["u1"]
    assert world.patterns.segments.k == 2
    assert all(segment[f"u{user}"] == (thriller if user % 2 else comedy) for user in range(60))
    assert world.patterns.segments.portraits[comedy].attributes == ("Comedy",)
    assert any("2 segment(s) of users" in line for line in world.card.learned)


def test_they_are_features_by_name(world: World) -> None:
    assert world.patterns is not None
    names = world.users.profile_names
    assert names == ("segment 0", "segment 1", "segment 2", "topic 0", "topic 1")
    assert world.sequences.profile_prefix is not None
    assert world.sequences.profile_prefix.tolist() == [3] * 60
    assert torch.equal(world.users.profile, world.patterns.features(world.sequences, world.item_vectors)[0])
    assert FEATURES_FROM in world.card.learned
    assert FEATURES_WARNING in world.card.not_claimed


def test_what_they_tell_of_is_kept_on_disk(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "world")
    again = World.load(tmp_path / "world").sequences.profile_prefix
    assert again is not None
    assert again.tolist() == [3] * 60


def test_fidelity_starts_after_what_they_tell_of(world: World) -> None:
    rows = world.users.rows("evaluate").numpy()
    report = fidelity_of(world, "train")
    assert report.users == len(rows)
    assert report.slates == 3 * len(rows)


def test_they_are_left_out_on_request() -> None:
    made = build_world(log_of_two_tastes(20), replace(QUICK, encoder=replace(ENCODER, segments=-1, topics=0)))
    assert made.patterns is None
    assert made.users.profile_names == ()
    assert FEATURES_WARNING not in made.card.not_claimed
    assert made.sequences.profile_prefix is None


@pytest.mark.parametrize(("option", "value"), [("segments", -2), ("topics", -1)])
def test_numbers_that_mean_nothing_are_refused(option: str, value: int) -> None:
    with pytest.raises(EncoderError, match=f"{option}={value}; give a number"):
        replace(ENCODER, **{option: value})
