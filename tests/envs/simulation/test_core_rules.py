"""Rules in the loop: every action mode, every skin's driver, stock that all lanes share."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.item_columns import ItemColumns, Labels
from recloop.envs.interaction.rules import Rules
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.tasks import make_driver
from recloop.envs.world.world import World

NEVER = tuple(f"item-{100 + row}" for row in range(0, 40, 3))
"""A third of the catalogue."""


@pytest.fixture(scope="module", params=[True, False], ids=["consumes twice", "consumes once"])
def shop(world: World, once_world: World, request: pytest.FixtureRequest) -> World:
    """The tiny world with five brands in turn."""
    found = world if request.param else once_world
    codes = torch.cat([torch.arange(40) % 5, torch.tensor([5])])
    columns = ItemColumns({}, {"brand": Labels(codes, ("a", "b", "c", "d", "e"))})
    return replace(found, catalogue=replace(found.catalogue, columns=columns))


def broken(slate: Tensor, most: int) -> Tensor:
    """bool (B,): a forbidden item, or more than `most` of a brand."""
    shown = slate < 40
    forbidden = ((slate % 3 == 0) & shown).any(1)
    brands = torch.nn.functional.one_hot((slate % 5).where(shown, 5), 6).sum(1)[:, :5]
    return forbidden | (brands > most).any(1)


@pytest.mark.parametrize("mode", ["slate", "item", "candidates", "proto", "pick"])
def test_no_action_of_any_mode_breaks_a_rule(shop: World, mode: str) -> None:
    options = {"action_mode": "candidates", "one_at_a_time": True} if mode == "pick" else {"action_mode": mode}
    rules = {"never": NEVER, "at_most": {"brand": 1}}
    driver = make_driver(shop, 32, rules=rules, seed=1, candidates=12, **options)
    space, rng = driver.action_space, torch.Generator().manual_seed(0)
    driver.action_space.seed(0)
    steps = 0
    while steps < 8:
        if mode == "pick":
            weights = driver.action_masks().float()
            action = torch.multinomial(weights, 1, generator=rng)[:, 0]
        else:
            action = torch.stack([torch.as_tensor(space.sample()) for _ in range(32)])
        made = driver.step(action)
        if made.transition is None:
            continue
        steps += 1
        assert not broken(made.transition.slate, 1).any()
        assert made.transition.mended is not None
        if mode == "pick":  # the mask told all there is to know
            assert not made.transition.mended.any()


def test_masks_tell_what_rules_forbid(shop: World) -> None:
    core = Core(shop, batch=3, rules=Rules(never=NEVER), keys=("action_mask", "history"))
    mask = core.observe()["action_mask"]
    assert not mask[:, ::3].any()
    driver = make_driver(shop, 3, rules={"never": NEVER}, action_mode="candidates", candidates=20)
    candidates = driver.observation["candidates"]
    assert not ((candidates < 40) & (candidates % 3 == 0)).any()


def test_a_large_catalogue_reads_one_row_for_all_lanes(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recloop.envs.simulation.driver.DENSE_ITEMS", 10)
    driver = make_driver(shop, 3, rules={"never": NEVER}, action_mode="proto")
    assert "allowed" in driver.core.keys
    assert driver.core.observe()["allowed"].stride(0) == 0
    slate = driver.step(torch.rand(3, 9) * 2 - 1).transition.slate  # type: ignore[union-attr]
    assert not broken(slate, 40).any()


def test_without_rules_nothing_is_looked_at(world: World) -> None:
    core = Core(world, batch=2)
    assert core.ruled is None
    assert core.step(torch.tensor([[0, 1, 2, 3]] * 2)).mended is None


def test_no_more_is_sold_than_there_is(world: World) -> None:
    """Sixteen lanes want the same four items, of which there are three each; filled up at the time limit."""
    ids = world.catalogue.ids
    rules = Rules(stock=dict.fromkeys(ids[:4], 3))
    core = Core(world, batch=16, rules=rules, max_steps=5, seed=2)
    wanted = torch.tensor([[0, 1, 2, 3]] * 16)
    for _ in range(2):
        sold = torch.zeros(41, dtype=torch.int64)
        for step in range(5):
            left = 3 - sold[:4]
            made = core.step(wanted)
            assert bool((torch.bincount(made.slate.flatten(), minlength=41)[:4] <= left).all())
            sold += torch.bincount(made.slate.flatten(), made.response.signals[..., 0].flatten(), 41).long()
            if step < 4:
                assert core.stock is not None
                assert torch.equal(core.stock[:4], 3 - sold[:4])
                assert core.allowed is not None
                assert torch.equal(core.allowed[:4], sold[:4] < 3)
        assert bool((sold[:4] <= 3).all())
        assert int(sold[:4].sum()) >= 6
        assert core.stock is not None
        assert core.stock[:4].tolist() == [3] * 4  # filled up


def test_a_snapshot_keeps_the_stock(world: World) -> None:
    rules = Rules(stock=dict.fromkeys(world.catalogue.ids[:4], 3))
    core, other = (Core(world, batch=16, rules=rules, seed=2) for _ in range(2))
    core.step(torch.tensor([[0, 1, 2, 3]] * 16))
    other.resume(core.snapshot())
    one, two = (c.step(torch.tensor([[0, 1, 2, 3]] * 16)) for c in (core, other))
    assert torch.equal(one.slate, two.slate)
    core.reset()
    assert core.stock is not None
    assert core.stock[:4].tolist() == [3] * 4


def test_rules_that_no_slate_keeps_are_refused_when_a_core_is_made(world: World) -> None:
    with pytest.raises(RecloopError, match="leave 3 of 40 items to show, fewer than slate_size=4"):
        make_driver(world, 2, rules={"only": world.catalogue.ids[:3]})


def test_rules_travel_with_a_world(world: World) -> None:
    """Cores, and so every agent and baseline, read them off the world."""
    ruled = world.with_rules({"never": NEVER})
    assert ruled.masks_items
    made = Core(ruled, batch=2).step(torch.tensor([[0, 1, 2, 3]] * 2))
    assert not broken(made.slate, 40).any()
    assert made.mended is not None
    assert made.mended.tolist() == [2, 2]
