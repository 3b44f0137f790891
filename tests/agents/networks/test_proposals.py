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


def made(world: World, popularity: float = 0.0, mixed: float = 0.0) -> ProposalNetwork:
    tables = ItemTables.of(world.state_encoder, world.catalogue.popularity)
    torch.manual_seed(0)
    config = ProposalConfig(clusters=(), popularity=popularity, mixed=mixed)
    return ProposalNetwork(tables, *proposing_groups(world, config), world.spec(), config, 8)


def best_first(world: World, seen: Observation, lane: int, *kinds: range) -> list[list[int]]:
    """The candidates of each kind, and then the others, in the order of the encoder."""
    scores = world.state_encoder.scores(seen["state"])[lane]
    there = sorted((i for i in seen["candidates"][lane].tolist() if i < 10), key=lambda i: -float(scores[i]))
    return [[i for i in there if i in kind] + [i for i in there if i not in kind] for kind in kinds]


def observed(world: World, candidates: list[int]) -> Observation:
    core = Core(world, batch=2, users="train", seed=1, keys=DEFAULT_KEYS)
    core.step(torch.tensor([[0, 1, 2], [7, 8, 10]]))
    return {**core.observe(), "candidates": torch.tensor([candidates] * 2)}


def test_all_items_clusters_and_groups_propose_and_none_twice(halved: World) -> None:
    groups, grouping = proposing_groups(halved, ProposalConfig(clusters=()))
    assert grouping.tolist() == [0, 1, 1]
    assert groups.shape == (3, 11)
    assert groups.sum(1).tolist() == [10, 5, 5]
    assert not groups[:, 10].any()
    clusters, _ = proposing_groups(halved, ProposalConfig(clusters=(3,), groups=False))
    assert clusters[1:].sum(0).tolist() == [1] * 10 + [0]
    both, _ = proposing_groups(halved, ProposalConfig(clusters=(1, 3, 3)))
    assert len(both) == len(both.unique(dim=0)) == 1 + 3 + 2, "one cluster of all items is all items"


def test_a_group_proposes_its_best_candidates_in_order_and_fills_up_with_others(halved: World) -> None:
    seen = observed(halved, [6, 1, 9, 3, 0, 10])
    _, slates = made(halved).propose(seen, 3)
    for lane in range(2):
        ordered = best_first(halved, seen, lane, range(10), range(5), range(5, 10))
        assert slates[lane].tolist() == [row[:3] for row in ordered]
    proposals, slates = made(halved).propose(observed(halved, [6, 1, 10, 10, 10, 10]), 3)
    assert slates[0, 1:].tolist() == [[1, 6, 10], [6, 1, 10]]
    assert proposals.there.all()
    nothing, _ = made(halved).propose(observed(halved, [10] * 6), 3)
    assert not nothing.there.any()


def test_popularity_decides_where_it_weighs_enough(halved: World) -> None:
    popular = replace(halved, catalogue=replace(halved.catalogue, popularity=torch.tensor([*range(9), 0])))
    _, slates = made(popular, popularity=100.0).propose(observed(halved, [0, 1, 2, 3, 4, 5, 6, 7, 8]), 3)
    assert slates[0].tolist() == [[8, 7, 6], [4, 3, 2], [8, 7, 6]]


def test_a_group_mixes_its_best_with_the_best_of_each_other(halved: World) -> None:
    seen = observed(halved, list(range(10)))
    _, slates = made(halved, mixed=0.6).propose(seen, 3)
    assert slates.shape == (2, 5, 3), "all items have nothing to mix with"
    for lane in range(2):
        lower, upper = best_first(halved, seen, lane, range(5), range(5, 10))
        assert slates[lane, 3:].tolist() == [[*lower[:2], upper[0]], [*upper[:2], lower[0]]]
    _, slates = made(halved, mixed=0.6).propose(observed(halved, [6, 1, 9, 3, 0, 10]), 3)
    assert torch.equal(slates[:, 4], slates[:, 2]), "who has but two items of its own does not mix"


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
        signals = len(spec.signals)
        near = facts[4:-signals].view(spec.shown_length, 1 + signals)[-1]  # to the slate shown last
        history, feedback = seen["history"][row], seen["feedback"][row]
        liked = (centred[history] * (feedback[:, 1:] / 5)).sum(0) / (history < 10).sum().clamp_min(1)
        assert float(facts[-1]) == pytest.approx(4 * float(mean @ liked), abs=1e-5)
        assert float(near[0]) == pytest.approx(4 * float(mean @ centred[held].mean(0)), abs=1e-5)
        rated = (centred[last] * (answers[:, 1:] / 5)).sum(0) / len(held)
        assert float(near[2]) == pytest.approx(4 * float(mean @ rated), abs=1e-5)
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
