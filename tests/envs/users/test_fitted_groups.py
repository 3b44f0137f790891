"""Sums by group, and the slate-aware heads: nothing depends on a group's number, something on the slate around."""

import torch

from recloop.envs.users.fitted.inputs.groups import Groups, group_sizes
from recloop.envs.users.fitted.inputs.slate_context import Reading, SlateContext
from recloop.envs.users.fitted.layers import start_weights

EMPTY = 6
COLUMN = torch.tensor([[0], [0], [1], [1], [2], [3], [3]])  # item 5 is of no group; row 6 is the empty place


def groups() -> Groups:
    made = Groups(EMPTY, group_sizes(COLUMN))
    made.fill(COLUMN)
    return made


def context(made: Groups) -> SlateContext:
    heads = SlateContext(made, width=4, user_dim=3, item_dim=2, signals=2)
    start_weights(heads, torch.Generator().manual_seed(0))
    return heads


def reading(heads: SlateContext, lanes: int = 2) -> Reading:
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(lanes, heads.groups.count, 4, generator=generator)
    return Reading(torch.rand(lanes, 3, generator=generator), groups=rows)


def blind(heads: SlateContext, read: Reading, characters: torch.Tensor, slate: torch.Tensor) -> torch.Tensor:
    return heads.answered(heads.look_at(read, characters, slate), torch.zeros(slate.shape))


def test_sums_count_everything_once_and_each_group_apart():
    slate = torch.tensor([[0, 1, 2], [5, EMPTY, 4]])
    total = groups().sums(slate, torch.ones(2, 3, 1)).squeeze(-1)
    assert total.tolist() == [[3, 2, 1, 0], [2, 0, 0, 1]]  # all, then the three groups


def test_rows_of_a_table_at_the_items_groups():
    table = torch.arange(4.0).view(1, 4, 1)
    found = groups().at(table, torch.tensor([[2, 5, EMPTY]])).squeeze(-1)
    assert found.tolist() == [[[0, 2], [0, 0], [0, 0]]]
    assert groups().total_at(table, torch.tensor([2, 5])).flatten().tolist() == [2, 0]


def test_items_alone_score_alike_in_one_table_and_lane_by_lane():
    heads = context(groups())
    read = reading(heads)
    characters = heads.characters(torch.rand(7, 2, generator=torch.Generator().manual_seed(2)), torch.zeros(7, 2))
    table = heads.alone(read, characters, torch.arange(6))
    by_lane = heads.alone(read, characters, torch.arange(6).expand(2, -1))
    assert table.shape == (2, 6, 2)
    assert torch.allclose(table, by_lane)


def test_a_second_item_of_the_group_changes_the_first_ones_score():
    heads = context(groups())
    read = reading(heads)
    characters = heads.characters(torch.zeros(7, 2), torch.zeros(7, 2))
    same = blind(heads, read, characters, torch.tensor([[0, 1], [0, 1]]))[:, 0]
    other = blind(heads, read, characters, torch.tensor([[0, 2], [0, 2]]))[:, 0]
    assert not torch.allclose(same, other)


def test_groups_are_exchangeable():
    """Renumbering the groups along with their features changes no score."""
    heads = context(groups())
    read = reading(heads)
    characters = heads.characters(torch.rand(7, 2, generator=torch.Generator().manual_seed(2)), torch.zeros(7, 2))
    slate = torch.tensor([[0, 3, 4], [5, 1, 2]])
    before = blind(heads, read, characters, slate)
    heads.groups.fill(torch.tensor([2, 0, 1, 3])[COLUMN])
    assert read.groups is not None
    moved = Reading(read.vector, groups=read.groups[:, [0, 2, 3, 1]])
    assert torch.allclose(blind(heads, moved, characters, slate), before, atol=1e-6)


def test_places_know_what_was_consumed_above_and_nothing_below():
    heads = context(groups())
    read = reading(heads)
    characters = heads.characters(torch.rand(7, 2, generator=torch.Generator().manual_seed(2)), torch.zeros(7, 2))
    slate = torch.tensor([[0, 1, 4], [0, 1, 4]])
    seen = heads.look_at(read, characters, slate)
    consumed = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    found, nothing = heads.answered(seen, consumed), heads.answered(seen, consumed * 0)
    assert torch.equal(found[:, :2], nothing[:, :2])
    assert not torch.allclose(found[:, 2], nothing[:, 2])
    for place in range(3):
        assert torch.allclose(heads.at_place(seen, consumed, place), found[:, place], atol=1e-6)
