"""What lanes may not be shown again: both forms held against Python sets."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.envs.interaction import seen as module
from recloop.envs.interaction.seen import LoggedItems, SeenBits, SeenItems, SeenLists
from recloop.envs.simulation import driver
from recloop.envs.simulation.tasks import make_driver
from recloop.envs.world.world import World

USERS, LANES, K = 7, 5, 6


def a_log(items: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    count = 40 * USERS
    return torch.randint(USERS, (count,), generator=draw), torch.randint(items + 1, (count,), generator=draw)


def made(form: type[SeenItems], logged: LoggedItems, capacity: int, monkeypatch: pytest.MonkeyPatch) -> SeenItems:
    monkeypatch.setattr(module, "_BIT_TABLE", 1 << 30 if form is SeenBits else 0)
    found = logged.seen(capacity)
    assert type(found) is form
    return found


@pytest.mark.parametrize("form", [SeenBits, SeenLists])
@pytest.mark.parametrize("items", [1, 63, 64, 65, 1000])
def test_lanes_that_come_and_go_equal_sets(form: type[SeenItems], items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, rows = a_log(items, seed=items)
    everyone = made(form, LoggedItems.of(USERS, items, owner, rows), 40 * K, monkeypatch)
    known = [{int(i) for i in rows[owner == u]} - {items} for u in range(USERS)]
    draw = torch.Generator().manual_seed(1)
    users = torch.randint(USERS, (LANES,), generator=draw)
    seen, sets = everyone.rows(users), [set(known[u]) for u in users]
    for step in range(20):
        slate = torch.randint(items + 1, (LANES, K), generator=draw)
        for _ in range(2):  # asked, added, asked again
            wanted = [[item in sets[lane] for item in slate[lane].tolist()] for lane in range(LANES)]
            assert seen.contains(slate).tolist() == wanted
            before, seen = seen, seen.added(slate)
            assert before.contains(slate).tolist() == wanted  # what was handed out stays as it was
            sets = [sets[lane] | set(slate[lane].tolist()) - {items} for lane in range(LANES)]
        allowed = [[item not in sets[lane] for item in range(items)] for lane in range(LANES)]
        assert seen.admissible().tolist() == allowed
        assert [set(row) - {items} for row in seen.listed().tolist()] == sets
        if step % 5 == 4:
            new, done = torch.randint(USERS, (LANES,), generator=draw), torch.rand(LANES, generator=draw) < 0.5
            seen = seen.where(done, everyone.rows(new))
            sets = [set(known[new[lane]]) if done[lane] else sets[lane] for lane in range(LANES)]


@pytest.mark.parametrize("mode", ["proto", "candidates"])
def test_a_large_catalogue_is_searched_as_a_small_one(
    once_world: World, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of what was seen lead to the slates that bits and dense masks lead to."""
    small = make_driver(once_world, 5, seed=1, action_mode=mode)
    monkeypatch.setattr(module, "_BIT_TABLE", 0)
    monkeypatch.setattr(driver, "DENSE_ITEMS", 0)
    large = make_driver(once_world, 5, seed=1, action_mode=mode)
    assert isinstance(small.core.past.seen, SeenBits)
    assert isinstance(large.core.past.seen, SeenLists)
    small.action_space.seed(0)
    for _ in range(15):  # across several episodes of six
        action = torch.from_numpy(np.stack([small.action_space.sample() for _ in range(5)]))
        one, two = small.step(action).transition, large.step(action).transition
        assert one is not None
        assert two is not None
        assert torch.equal(one.slate, two.slate)
        if mode == "candidates":
            assert torch.equal(small.action_masks(), large.action_masks())


def test_the_smaller_form_is_taken() -> None:
    assert isinstance(LoggedItems.nothing(1, 60_000).seen(capacity=100), SeenBits)
    assert isinstance(LoggedItems.nothing(1, 1_000_000).seen(capacity=100), SeenLists)
    assert isinstance(LoggedItems.nothing(1, 1_000_000).seen(capacity=40_000), SeenBits)  # 125 KB against 160 KB


@pytest.mark.parametrize("capacity", [10, 60, 400])
def test_no_item_is_forgotten_where_everything_is_consumed(capacity: int) -> None:
    """Lanes consume as many items as there is room for, ten at once."""
    lanes, items, k = 2000, 10_000_000, 10
    seen = LoggedItems.nothing(1, items).seen(capacity).rows(torch.zeros(lanes, dtype=torch.int64))
    assert isinstance(seen, SeenLists)
    draw = torch.Generator().manual_seed(0)
    for _ in range(-(-capacity // k)):
        slate = torch.randint(items, (lanes, k), generator=draw)
        seen = seen.added(slate)
        assert bool(seen.contains(slate).all())
    assert int((seen.own < items).sum()) == lanes * -(-capacity // k) * k


def test_users_with_long_and_no_histories() -> None:
    """Buckets are enlarged for users who crowd one; a user without a history has one that is empty."""
    owner = torch.cat([torch.zeros(3000, dtype=torch.int64), torch.full((9,), 2)])
    rows = torch.cat([torch.arange(3000) * 7, torch.arange(9)])
    logged = LoggedItems.of(3, 100_000, owner, rows)
    asked = torch.arange(21_000).view(3, 7000)
    everyone = torch.arange(3)
    assert logged.longest == 3000
    assert torch.equal(logged.contains(everyone, asked)[0], asked[0] % 7 == 0)
    assert logged.contains(torch.tensor([1, 2]), asked[:2]).sum(1).tolist() == [0, 0]
    assert logged.contains(torch.tensor([2]), torch.arange(20).view(1, -1)).sum() == 9
    assert logged.of_users(everyone)[1].eq(100_000).all()
    assert logged.of_users(torch.tensor([2]))[0].tolist() == list(range(9))
    assert logged.of_users(torch.zeros(0, dtype=torch.int64)).shape == (0, 0)
