"""Patterns of a world: planted tastes are found and named, saved with the world, and usable as features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.build.examination import with_patterns
from recloop.envs.logs.sequences import Sequences
from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world
from recloop.envs.world.patterns import (
    NONE,
    PatternConfig,
    Patterns,
    first_part,
    fit_patterns,
    item_attributes,
)
from recloop.envs.world.world import World

TITLES = tuple(f"Cartoon {i}" for i in range(8)) + tuple(f"Battle {i}" for i in range(8)) + ("Everybody's",)
TEXTS = ("Funny animals sing.",) * 8 + ("Brave soldiers fight.",) * 8 + ("Seen by all.",)
ATTRIBUTES = [["genre:Children's"]] * 8 + [["genre:War"]] * 8 + [[]]
VECTORS = torch.cat([torch.eye(17)[:, :4] * 0, torch.zeros(1, 4)])
VECTORS[:8, 0] = 1
VECTORS[8:16, 1] = 1
VECTORS[16, 2] = 1


def planted(users: int = 40) -> Sequences:
    """Even users watch cartoons, odd ones battles, all of them item 16; the last user did nothing."""
    chance = np.random.default_rng(0)
    histories = [[*chance.permutation(8)[:5] + 8 * (user % 2), 16] for user in range(users)]
    items = np.concatenate(histories).astype(np.int64)
    offsets = np.concatenate([np.arange(0, len(items) + 1, 6), [len(items)]])
    ones = np.ones((len(items), 1), dtype=np.float32)
    return Sequences(17, offsets, items, ones, ones.astype(bool))


@pytest.fixture(scope="module")
def patterns() -> Patterns:
    found = fit_patterns(planted(80), np.arange(60), VECTORS, TITLES, TEXTS, ATTRIBUTES, PatternConfig(topics=2))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def world() -> World:
    return boredom_world(
        BoredomWorldConfig(users=40, topics=2, items=40, slate_size=3, dim=8, state_epochs=1, user_epochs=1)
    )


def test_planted_segments_are_found_and_named_by_their_items(patterns: Patterns) -> None:
    assert patterns.segments is not None
    assert patterns.segments.k == 2
    cartoons, battles = (int(patterns.segment[user]) for user in (0, 1))
    assert patterns.segment[:-1:2].tolist() == [cartoons] * 40, "users who were not fitted on as well"
    assert patterns.segment[1::2].tolist() == [battles] * 40
    assert patterns.segment[-1] == 2, "no history"
    portrait = patterns.segments.portraits[cartoons]
    assert portrait.attributes == ("Children's",)
    assert portrait.items
    assert all(title.startswith("Cartoon") for title in portrait.items), "not what everybody watched"


def test_planted_topics_are_found_and_named_by_their_items(patterns: Patterns) -> None:
    assert patterns.topics is not None
    one, other = (int(patterns.mix[user].argmax()) for user in (0, 1))
    assert {one, other} == {0, 1}
    assert patterns.topics.portraits[other].attributes == ("War",)
    assert all(title.startswith("Battle") for title in patterns.topics.portraits[other].items)
    assert patterns.mix[-1].tolist() == [0.5, 0.5]


def test_new_users_stand_where_their_history_says(patterns: Patterns) -> None:
    history = torch.tensor([[17, 0, 1, 2], [17, 17, 17, 17]])
    segment, mix = patterns.of_histories(history, VECTORS)
    assert segment.tolist() == [int(patterns.segment[0]), 2]
    assert mix[0].argmax() == patterns.mix[0].argmax()


def test_features_are_one_segment_and_a_mix(patterns: Patterns) -> None:
    log = planted(80)
    values, names = patterns.features(replace(log, profile_prefix=log.lengths), VECTORS)
    assert names == ("segment 0", "segment 1", "segment 2", "topic 0", "topic 1")
    assert values.shape == (81, 5)
    assert values[:, :3].argmax(1).tolist() == patterns.segment.tolist()
    assert torch.equal(values[:, 3:], patterns.mix)


def test_features_are_of_the_first_half_alone(patterns: Patterns) -> None:
    log = planted(80)
    told = first_part(log)
    assert told.tolist() == [3] * 80 + [0]
    late = np.tile(np.arange(6) >= 3, 80)

    def with_battles(where: np.ndarray) -> torch.Tensor:
        other = replace(log, items=np.where(where, 8, log.items), profile_prefix=told)
        return patterns.features(other, VECTORS)[0]

    told_of = patterns.features(replace(log, profile_prefix=told), VECTORS)[0]
    assert torch.equal(told_of, with_battles(late))
    assert not torch.equal(told_of, with_battles(~late))
    assert not torch.equal(patterns.features(replace(log, profile_prefix=log.lengths), VECTORS)[0], told_of)


def test_items_without_words_give_segments_alone() -> None:
    found = fit_patterns(planted(80), np.arange(60), VECTORS, TITLES, [""] * 17)
    assert found is not None
    assert found.topics is None
    assert found.segments is not None
    assert found.segments.portraits[0].items
    assert found.mix.shape == (81, 0)


def test_nothing_is_looked_for_where_nothing_is_wanted() -> None:
    assert fit_patterns(planted(), np.arange(20), VECTORS, TITLES, TEXTS, config=PatternConfig(NONE, 0)) is None


def test_attributes_are_the_tails_of_an_items_entity() -> None:
    graph = KnowledgeGraph.from_names(
        ["Alien", "Alien", "Heat"], ["genre", "director", "genre"], ["Horror", "Scott", "Crime"]
    )
    assert item_attributes(graph, ["Alien", None, "Heat"]) == [["Horror", "Scott"], [], ["Crime"]]
    assert item_attributes(None, ["Alien"]) == [[]]


def test_they_are_saved_with_a_world(world: World, tmp_path: Path) -> None:
    made = with_patterns(world, PatternConfig(segments=3, topics=2))
    made.save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    assert again.patterns is not None
    assert made.patterns is not None
    assert torch.equal(again.patterns.segment, made.patterns.segment)
    assert torch.equal(again.patterns.mix, made.patterns.mix)
    assert again.patterns.segments is not None
    assert again.patterns.segments.names == made.patterns.segments.names  # type: ignore[union-attr]
    mine = again.patterns.of_histories(made.users.history, made.item_vectors)
    theirs = made.patterns.of_histories(made.users.history, made.item_vectors)
    assert torch.equal(mine[1], theirs[1])
    assert any("3 segment(s) of users" in line for line in again.card.learned)


def test_a_world_without_them_loads_as_before(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "world")
    assert not (tmp_path / "world" / "patterns").exists()
    assert World.load(tmp_path / "world").patterns is None
    assert replace(world, patterns=None).fingerprint == world.fingerprint
