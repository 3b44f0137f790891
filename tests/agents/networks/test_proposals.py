"""Proposals by hand: who proposes, which items in which order, and what is known of a proposal."""

from dataclasses import replace

import pytest
import torch

from recloop.agents.networks.features import ItemTables
from recloop.agents.networks.proposals import ProposalConfig, ProposalNetwork, Proposals, proposing_groups
from recloop.agents.slates import FORBIDDEN
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

HALVES = torch.tensor([0] * 5 + [1] * 5 + [2]).unsqueeze(1)


@pytest.fixture
def halved(tiny_world: World) -> World:
    return replace(tiny_world, catalogue=replace(tiny_world.catalogue, groups=HALVES, group_names=("half",)))


def made(world: World) -> ProposalNetwork:
    tables = ItemTables.of(world.state_encoder, world.catalogue.popularity)
    torch.manual_seed(0)
    return ProposalNetwork(
        tables, proposing_groups(world, ProposalConfig(clusters=())), world.spec(), ProposalConfig(), 8
    )


def observed(world: World, candidates: list[int]) -> Observation:
    core = Core(world, batch=2, users="train", seed=1, keys=DEFAULT_KEYS)
    core.step(torch.tensor([[0, 1, 2], [7, 8, 10]]))
    return {**core.observe(), "candidates": torch.tensor([candidates] * 2)}


def test_all_items_clusters_and_groups_propose_and_none_twice(halved: World) -> None:
    groups = proposing_groups(halved, ProposalConfig(clusters=()))
    assert groups.shape == (3, 11)
    assert groups.sum(1).tolist() == [10, 5, 5]
    assert not groups[:, 10].any()
    clusters = proposing_groups(halved, ProposalConfig(clusters=(3,), groups=False))
    assert clusters[1:].sum(0).tolist() == [1] * 10 + [0]
    both = proposing_groups(halved, ProposalConfig(clusters=(1, 3, 3)))
    assert len(both) == len(both.unique(dim=0)) == 1 + 3 + 2, "one cluster of all items is all items"


def test_a_group_proposes_its_best_candidates_in_order_and_fills_up_with_others(halved: World) -> None:
    _, slates = made(halved).propose(observed(halved, [6, 1, 9, 3, 0, 10]), 3)
    assert slates[0].tolist() == [[6, 1, 9], [1, 3, 0], [6, 9, 1]]
    proposals, slates = made(halved).propose(observed(halved, [6, 1, 10, 10, 10, 10]), 3)
    assert slates[0].tolist() == [[6, 1, 10], [1, 6, 10], [6, 1, 10]]
    assert proposals.there.all()
    nothing, _ = made(halved).propose(observed(halved, [10] * 6), 3)
    assert not nothing.there.any()


def test_facts_tell_of_recent_slates_and_answers(halved: World) -> None:
    network = made(halved)
    seen = observed(halved, [6, 1, 9, 3, 0, 10])
    proposals, slates = network.propose(seen, 3)
    centred = network.items
    for row in range(2):
        last, answers = seen["shown"][row, -1], seen["answers"][row, -1]
        held = last[last < 10]
        mean = centred[slates[row, 1]].mean(0)
        facts = proposals.facts[row, 1]  # of the lower half
        spec = halved.spec()
        near = facts[4:].view(spec.shown_length, 1 + len(spec.signals))[-1]  # to the slate shown last
        assert float(near[0]) == pytest.approx(float(mean @ centred[held].mean(0)), abs=1e-5)
        rated = (centred[last] * (answers[:, 1:] / 5)).sum(0) / len(held)
        assert float(near[2]) == pytest.approx(float(mean @ rated), abs=1e-5)
    assert proposals.facts[:, :, 3].tolist() == [[1.0, 1.0, pytest.approx(2 / 3)]] * 2  # of their own items


def test_an_empty_proposal_is_never_chosen_and_order_does_not_matter(halved: World) -> None:
    network = made(halved)
    proposals, _ = network.propose(observed(halved, [6, 1, 9, 3, 0, 10]), 3)
    scores, value = network(proposals)
    order = torch.tensor([2, 0, 1])
    moved = Proposals(proposals.there, proposals.facts[:, order], proposals.centres[:, order], proposals.user)
    torch.testing.assert_close(network(moved)[0], scores[:, order])
    torch.testing.assert_close(network(moved)[1], value)
    gone = replace(proposals, there=torch.tensor([[True, False, True]] * 2))
    assert (network(gone)[0][:, 1] == FORBIDDEN).all()
