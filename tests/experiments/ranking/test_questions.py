"""What the splits ask, worked out by hand in a world of ten items; and that policies see what the loop shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.logs.sequences import Sequences
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World
from recloop.experiments.ranking.questions import KEYS, Cuts, RankingTask, SplitName, ranking_task


def world_of(truth: World, lists: list[list[int]], popularity: dict[int, int] | None = None) -> World:
    """The truth world's tables with other behaviour: its first users evaluate, the rest consumed nothing."""
    n, users = len(truth.catalogue), len(truth.users)
    lists = lists + [[]] * (users - len(lists))
    flat = np.array([i for row in lists for i in row], dtype=np.int64)
    signals = np.ones((len(flat), len(truth.signals)), dtype=np.float32)
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    counts = torch.full((n,), 50.0)
    for item, count in (popularity or {}).items():
        counts[item] = count
    part = torch.zeros(users, dtype=torch.int64)
    part[: sum(bool(row) for row in lists)] = 3
    return replace(
        truth,
        catalogue=replace(truth.catalogue, popularity=counts),
        users=replace(truth.users, part=part),
        sequences=Sequences(n, offsets, flat, signals, signals > 0),
        consumes_twice=False,
    )


def asked(world: World, split: SplitName, cuts: Cuts | None = None) -> dict[int, tuple[int, set[int]]]:
    """User -> how many items are known, and what is asked for."""
    task, n = ranking_task(world, split, cuts), len(world.catalogue)
    rows = zip(task.users, task.known, task.targets.tolist(), strict=True)
    return {int(user): (int(known), set(targets) - {n}) for user, known, targets in rows}


LISTS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [5], [7, 8, 7], [3, 4]]


def test_the_last_item_is_asked_for_where_it_is_new(truth: World) -> None:
    assert asked(world_of(truth, LISTS), "leave-one-out") == {0: (9, {10}), 3: (1, {4})}
    twice = replace(world_of(truth, LISTS), consumes_twice=True)
    assert asked(twice, "leave-one-out") == {0: (9, {10}), 2: (2, {7}), 3: (1, {4})}


def test_time_asks_for_the_newest_part(truth: World) -> None:
    assert asked(world_of(truth, LISTS), "time") == {0: (8, {9, 10}), 3: (1, {4})}
    assert asked(world_of(truth, LISTS), "time", Cuts(held_out=0.5)) == {
        0: (5, {6, 7, 8, 9, 10}),
        2: (1, {8}),
        3: (1, {4}),
    }


def test_of_cold_users_nothing_is_known(truth: World) -> None:
    world = world_of(truth, LISTS)
    assert asked(world, "cold-users") == {0: (0, set(range(1, 11))), 1: (0, {5}), 2: (0, {7, 8}), 3: (0, {3, 4})}
    seen = ranking_task(world, "cold-users").observe(world, slice(None))
    assert (seen["history"] == len(world.catalogue)).all()
    assert (seen["shown"] == len(world.catalogue)).all()
    blank = world.state_encoder.vector(world.state_encoder.blank(world.users.profile[:4]))
    torch.testing.assert_close(seen["state"], blank)


def test_cold_items_are_ranked_among_themselves(truth: World) -> None:
    world = world_of(truth, LISTS, {10: 2, 20: 0, 4: 6})
    task = ranking_task(world, "cold-items")
    assert asked(world, "cold-items") == {0: (8, {10})}
    assert task.observe(world, slice(None))["action_mask"].nonzero()[:, 1].tolist() == [10, 20]
    assert "among the 2 items that train users consumed at most 5 times" in task.told


def test_what_features_tell_of_is_not_asked_for(truth: World) -> None:
    world = world_of(truth, LISTS)
    told = np.zeros(len(world.users), dtype=np.int64)
    told[:4] = [10, 0, 0, 1]
    world = replace(world, sequences=replace(world.sequences, profile_prefix=told))
    assert asked(world, "leave-one-out") == {3: (1, {4})}
    assert asked(world, "cold-users") == {1: (0, {5}), 2: (0, {7, 8}), 3: (0, {4})}


@pytest.mark.parametrize("twice", [True, False])
def test_a_policy_sees_what_the_loop_shows(truth: World, twice: bool) -> None:
    """At the end of their logs users are as they arrive."""
    shown, answers = truth.sequences.last_slates(np.arange(len(truth.users)), 5, truth.slate_size)
    arriving = replace(truth.users, shown=shown, answers=answers)  # as `build` makes the table
    world = replace(truth, consumes_twice=twice, users=arriving)
    users = world.users.rows("evaluate")
    task = RankingTask("time", users.numpy(), world.sequences.lengths[users.numpy()], users.unsqueeze(1), None, "")
    mine = task.observe(world, slice(None))
    core = Core(world, batch=len(users), keys=KEYS)
    core.reset(users=users)
    for key, value in core.observe().items():
        torch.testing.assert_close(mine[key], value, msg=lambda said, key=key: f"{key}: {said}")


def test_before_a_slate_only_earlier_slates_are_known(truth: World) -> None:
    slates, spec = truth.sequences.slates, truth.spec()
    assert slates is not None
    task = ranking_task(truth, "time")
    shown = task.observe(truth, slice(None))["shown"]
    for place, (user, known) in enumerate(zip(task.users, task.known, strict=True)):
        mine = slice(slates.offsets[user], slates.offsets[user + 1])
        took = np.cumsum(slates.answers[mine, :, 0].sum(1))
        before = slates.items[mine][: int((took <= known).sum())][-spec.shown_length :]
        assert shown[place, spec.shown_length - len(before) :].tolist() == before.tolist()


@pytest.mark.parametrize(
    ("lists", "split", "said"),
    [
        ([[1], [2]], "leave-one-out", "none of the 2 evaluate users .* took two items"),
        ([[1], [2]], "time", "took something new in the newest 20% of their items; raise --held-out"),
        (LISTS, "cold-items", "consumed at most 5 times; raise --cold-at-most"),
        ([], "cold-users", "has no evaluate users"),
    ],
)
def test_nothing_to_ask_is_said_with_a_way_out(
    truth: World, lists: list[list[int]], split: SplitName, said: str
) -> None:
    with pytest.raises(RecloopError, match=said):
        ranking_task(world_of(truth, lists), split)


@pytest.mark.parametrize(("held_out", "cold"), [(0.0, 5), (1.0, 5), (0.2, -1)])
def test_cuts_that_cut_nothing_are_refused(held_out: float, cold: int) -> None:
    with pytest.raises(RecloopError, match=r"held-out|cold-at-most"):
        Cuts(held_out, cold)
