from dataclasses import replace

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.logs.sequences import Sequences
from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world
from recloop.envs.world.user_context import newest_items, user_paths, user_row
from recloop.envs.world.world import World
from recloop.experiments.commands.inspect import print_user
from recloop.experiments.report.tables import wide_console


@pytest.fixture(scope="module")
def world() -> World:
    """Two topics; user 0 consumed five items, of which an observation holds three, user 1 none."""
    made = boredom_world(
        BoredomWorldConfig(
            users=20, topics=2, items=20, slate_size=3, max_steps=4, dim=8, state_epochs=1, user_epochs=1
        )
    )
    n, signals = len(made.catalogue), len(made.signals)
    items = np.array([3, 5, 1, 2, 0])
    offsets = np.array([0, 5, *[5] * 19])
    feedback = np.ones((5, signals), dtype=np.float32)
    sequences = Sequences(n, offsets, items, feedback, np.ones_like(feedback, dtype=np.bool_))
    history, answers = sequences.last(np.arange(20), 3)
    return replace(made, sequences=sequences, users=replace(made.users, history=history, feedback=answers))


def test_paths_carry_the_encoder_s_own_weights(world: World) -> None:
    encoder, table = world.state_encoder, world.users
    paths = user_paths(world, 0, top=999)
    items, signals = world.sequences.last(np.array([0]), 5)
    attention = encoder.relation_weights(encoder.start(table.profile[[0]], items, signals))[0]
    assert sum(path.weight for path in paths) == pytest.approx(1, abs=1e-5)
    for relation, weight in zip(encoder.relations, attention.tolist(), strict=True):
        mine = sum(path.weight for path in paths if path.relation == relation)
        assert mine == pytest.approx(weight, abs=1e-5)
    assert {row for path in paths for row in path.items} == {0, 1, 2, 3, 5}  # older than the observation holds, too


def test_why_another_item(world: World) -> None:
    same = next(row for row in range(6, len(world.catalogue)) if world.catalogue.groups[row, 0] == 0)
    assert user_paths(world, 0, because_of=same)
    assert user_paths(world, 1) == []
    assert user_paths(replace(world, knowledge=None), 0) == []


def test_a_user_as_a_reader_sees_them(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert newest_items(world, 0, 2).tolist() == [0, 2]
    print_user(world, "user-0", 2, 3, wide_console())
    said = capsys.readouterr().out
    assert world.catalogue.titles[0] in said
    for path in user_paths(world, 0, 3, telling=True):
        assert path.in_words(world.catalogue.titles)[:60] in said
    print_user(world, "user-1", 2, 3, wide_console())
    assert "no item of it has a neighbour" in capsys.readouterr().out
    assert user_row(world, "user-7") == 7
    with pytest.raises(RecloopError, match=r"has no user 'nobody'; its 20 users are user-0, user-1, user-2, \.\.\."):
        user_row(world, "nobody")


def test_a_user_of_a_world_without_a_log(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """They count by what they arrive with; and no path asked for is none said to be missing."""
    n, signals = len(world.catalogue), len(world.signals)
    print_user(replace(world, sequences=Sequences.empty(0, n, signals)), "user-0", 2, 0, wide_console())
    said = capsys.readouterr().out
    assert "consumptions │ 3" in said
    assert "knowledge graph" not in said
    print_user(world, "user-1", 2, 0, wide_console())
    assert "nothing consumed" in capsys.readouterr().out


def test_entities_survive_the_disk(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("world") / "w"
    world.save(folder)
    again = World.load(folder)
    assert again.catalogue.entities == world.catalogue.entities
    assert again.knowledge is not None
    names = [again.knowledge.entities[row] for row in again.entity_rows]
    assert names == list(world.catalogue.entities)
    assert [p.in_words(again.catalogue.titles) for p in user_paths(again, 0)] == [
        p.in_words(world.catalogue.titles) for p in user_paths(world, 0)
    ]
    unknown = replace(world, catalogue=replace(world.catalogue, entities=()))
    assert set(unknown.entity_rows.tolist()) == {-1}
    assert user_paths(unknown, 0) == []
    assert torch.equal(again.users.history, world.users.history)
