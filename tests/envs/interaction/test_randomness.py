"""The counter-based draws: uniform, independent along every coordinate, the same everywhere."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from recloop.envs.interaction.randomness import Draw, _unit

MANY = 1 << 16


def coordinates(count: int = MANY, **along: Tensor) -> dict[str, Tensor]:
    """Lane, episode and step of `count` draws: 3, 2 and 5 but for the one that runs along."""
    fixed = {"lane": 3, "episode": 2, "step": 5}
    return {name: along.get(name, torch.full((count,), value)) for name, value in fixed.items()}


def uniform_along(coordinate: str, shift: int = 0) -> np.ndarray:
    """Uniform draws while one coordinate counts up from `shift` and all others stay."""
    count = torch.arange(shift, MANY + shift)
    if coordinate == "item":
        draw = Draw.at(seed=7, **coordinates(1))
        return draw.uniform("watch", count.unsqueeze(0))[0].numpy()
    if coordinate in ("seed", "purpose"):
        some = coordinates(64, lane=torch.arange(64))
        rows = [
            Draw.at(seed=number if coordinate == "seed" else 7, **some).uniform(
                f"purpose-{number}" if coordinate == "purpose" else "watch"
            )
            for number in range(shift, MANY // 64 + shift)
        ]
        return torch.stack(rows).T.reshape(-1).numpy()  # the coordinate runs fastest
    along = {**coordinates(), coordinate: count}
    return Draw.at(seed=7, **along).uniform("watch").numpy()


ALL = ("seed", "lane", "episode", "step", "item", "purpose")


@pytest.mark.parametrize("coordinate", ALL)
def test_draws_are_uniform_along_every_coordinate(coordinate: str) -> None:
    counts = np.histogram(uniform_along(coordinate), bins=64, range=(0, 1))[0]
    assert counts.sum() == MANY
    assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


@pytest.mark.parametrize("coordinate", ALL)
def test_neighbours_are_independent_along_every_coordinate(coordinate: str) -> None:
    """Cells of an 8 x 8 grid of (draw, next draw) are equally full, and the two do not correlate."""
    here, there = uniform_along(coordinate), uniform_along(coordinate, shift=1)
    grid = np.histogram2d(here, there, bins=8, range=((0, 1), (0, 1)))[0]
    assert stats.chisquare(grid.reshape(-1)).pvalue > 1e-4
    assert abs(np.corrcoef(here, there)[0, 1]) < 4.5 / math.sqrt(MANY)


def test_purposes_and_items_do_not_mix() -> None:
    draw = Draw.at(seed=0, **coordinates(lane=torch.arange(MANY)))
    items = torch.zeros(MANY, 1, dtype=torch.int64)
    several = [draw.uniform("watch"), draw.uniform("leave"), draw.uniform("watch", items)[:, 0]]
    several += [draw.uniform("watch", items + 1)[:, 0]]
    correlation = np.corrcoef(torch.stack(several).numpy())
    assert np.abs(correlation - np.eye(4)).max() < 4.5 / math.sqrt(MANY)


def test_coordinates_that_swap_give_other_draws() -> None:
    """(lane 1, step 2) is not (lane 2, step 1), nor any other order of the same numbers."""
    one, two, zero = torch.tensor([1]), torch.tensor([2]), torch.tensor([0])
    orders = [(one, two, zero), (two, one, zero), (one, zero, two), (zero, one, two), (two, zero, one)]
    keys = {int(Draw.at(0, lane, episode, step).key) for lane, episode, step in orders}
    assert len(keys) == len(orders)


def test_no_two_keys_collide() -> None:
    lane, step = torch.meshgrid(torch.arange(300), torch.arange(300), indexing="ij")
    keys = Draw.at(0, lane.reshape(-1), torch.zeros(90000).long(), step.reshape(-1)).key
    assert len(set(keys.tolist())) == 90000


def test_uniform_lies_strictly_inside() -> None:
    """All bits set and none set are the extremes: no logarithm of 0 or of 1."""
    low, high = _unit(torch.tensor([0, -1])).tolist()
    assert 0.0 < low < high < 1.0
    assert math.isfinite(-math.log(-math.log(high)))


def test_normal_and_gumbel_have_their_distributions() -> None:
    draw = Draw.at(seed=5, **coordinates(lane=torch.arange(MANY)))
    assert stats.kstest(draw.normal("a").numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(draw.gumbel("a").numpy(), "gumbel_r").pvalue > 1e-3


def test_a_draw_depends_on_its_coordinates_alone() -> None:
    """Lane 17 alone draws what lane 17 draws among a thousand, item by item."""
    zeros = torch.zeros(1000, dtype=torch.int64)
    items = torch.arange(12).expand(1000, 12)
    among = Draw.at(4, torch.arange(1000), zeros, zeros).uniform("watch", items)[17]
    alone = Draw.at(4, torch.tensor([17]), zeros[:1], zeros[:1]).uniform("watch", items[:1].flip(1))[0]
    assert torch.equal(among, alone.flip(0))


def test_the_hash_is_the_named_one() -> None:
    """Known bits of splitmix64: state 0 gives 0xE220A8397B1DCDAF first. They must not change between versions."""
    from recloop.envs.interaction.randomness import absorb

    bits = int(absorb(torch.tensor([0]), 0)) % (1 << 64)
    assert bits == 0xE220A8397B1DCDAF


def test_seeds_of_any_size_are_taken() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    keys = {int(Draw.at(seed, zero, zero, zero).key) for seed in (0, -1, 2**31, 2**63 - 1, 2**64 - 2, 10**30)}
    assert len(keys) == 6


def test_a_shift_moves_the_log_odds_and_nothing_else() -> None:
    lanes = torch.arange(20_000)
    draw, slate = Draw.at(0, lanes, lanes * 0, lanes * 0), torch.arange(3).expand(20_000, 3)
    shift = torch.tensor([0.0, 2.0, -1.0]).expand(20_000, 3)
    shifted = draw.shifted(shift, "consume")
    taken = (shifted.uniform("consume", slate) < 0.3).float().mean(0)
    torch.testing.assert_close(taken, torch.sigmoid(torch.logit(torch.tensor(0.3)) + shift[0]), atol=0.012, rtol=0)
    assert torch.equal(shifted.uniform("consume", slate)[:, 0], draw.uniform("consume", slate)[:, 0])
    assert torch.equal(shifted.uniform("leave"), draw.uniform("leave"))
    assert torch.equal(shifted.uniform("rating", slate), draw.uniform("rating", slate))
    torch.testing.assert_close(shifted.gumbel("consume", slate), draw.gumbel("consume", slate) + shift)
    assert torch.equal(shifted.rows(lanes[5:7]).uniform("consume", slate[5:7]), shifted.uniform("consume", slate)[5:7])
