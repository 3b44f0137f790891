"""What the networks see and score, on a world that one can hold in the head."""

import pytest
import torch
from torch import Tensor

from recloop.agents.networks import heads as networks
from recloop.agents.networks.features import ItemTables, LoopFeatures, NetworkConfig, SlateMeans
from recloop.agents.networks.heads import admissible, gathered_products, make_actor
from recloop.agents.slates import FORBIDDEN
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.logs.schema import Signal
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

SMALL = NetworkConfig(hidden=8, slate_dim=4, layers=1)


@pytest.fixture
def tables() -> ItemTables:
    """Four items on two axes; the mean is zero already and every length is 1."""
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    return ItemTables(vectors, vectors, torch.zeros(5), torch.tensor([1.0, 0.5, 0.0, 0.0, 0.0]))


def observation_of(world: World, lanes: int = 6) -> Observation:
    core = Core(world, batch=lanes, keys=(*DEFAULT_KEYS, "action_mask"))
    core.step(torch.tensor([[1, 5, 9]] * lanes))
    observation = core.observe()
    items = torch.arange(len(world.catalogue))
    observation["candidates"] = torch.where(observation["action_mask"], items, len(items))
    return observation


def test_slate_means_are_over_what_was_shown_and_ignore_empty_places(tables: ItemTables) -> None:
    shown = torch.tensor([[[0, 2, 4], [4, 4, 4]]])  # one slate with an empty place, one empty slate
    answers = torch.tensor([[[[0.0, 0.0], [1.0, 4.0], [1.0, 5.0]], [[0.0, 0.0]] * 3]])
    signals = (Signal("click"), Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0, 4.0, 5.0)))
    mean, liked = SlateMeans(tables, signals)(shown, answers)
    assert mean.tolist() == [[[0.5, 0.5], [0.0, 0.0]]]
    assert liked[:, :, 0].tolist() == [[[0.0, 0.5], [0.0, 0.0]]]
    torch.testing.assert_close(liked[:, :, 1], torch.tensor([[[0.0, 0.4], [0.0, 0.0]]]))  # rated 4 of 5


def test_features_tell_what_was_rated_from_what_was_only_consumed(tiny_world: World) -> None:
    tables = ItemTables.of(tiny_world.state_encoder, tiny_world.catalogue.popularity)
    torch.manual_seed(0)
    features = LoopFeatures(tables, tiny_world.spec(), SMALL)
    seen = observation_of(tiny_world)
    seen["shown"][:, -1], seen["answers"][:, -1] = torch.tensor([1, 5, 9]), torch.tensor([1.0, 5.0])
    other = {**seen, "answers": seen["answers"] * torch.tensor([1.0, 0.2])}  # consumed alike, rated 1
    (trunk, anchors), (theirs, lower) = (LoopFeatures.split(features(o), tables.dim) for o in (seen, other))
    assert not torch.allclose(trunk, theirs)
    assert torch.equal(anchors[:, :4], lower[:, :4])
    assert not torch.allclose(anchors[:, 4], lower[:, 4])


def test_centred_vectors_lose_what_all_items_share() -> None:
    shared = torch.tensor([[5.0, 1.0], [5.0, -1.0], [0.0, 0.0]])
    tables = ItemTables(shared, shared, torch.zeros(3), torch.zeros(3))
    assert tables.centred().tolist() == [[0.0, 1.0], [0.0, -1.0], [0.0, 0.0]]


def test_features_change_with_fatigue_and_split_into_their_parts(tiny_world: World) -> None:
    tables = ItemTables.of(tiny_world.state_encoder, tiny_world.catalogue.popularity)
    torch.manual_seed(0)
    features = LoopFeatures(tables, tiny_world.spec(), SMALL)
    seen = observation_of(tiny_world)
    found = features(seen)
    trunk, anchors = LoopFeatures.split(found, tables.dim)
    assert found.shape == (6, features.size)
    assert trunk.shape == (6, 8)
    shown = seen["shown"][:, -1]
    held = (shown < len(tiny_world.catalogue)).sum(1, keepdim=True)
    torch.testing.assert_close(anchors[:, 0], tables.centred()[shown].sum(1) / held)
    assert not anchors[:, 3].any()  # nothing is being picked
    other = features({**seen, "shown": torch.full_like(seen["shown"], 3)})
    assert not torch.equal(other, found)


def test_a_fresh_candidate_head_ranks_as_the_state_encoder_does(tiny_world: World) -> None:
    encoder = _opinionated(tiny_world.state_encoder)
    tables = ItemTables.of(encoder, tiny_world.catalogue.popularity)
    torch.manual_seed(0)
    actor = make_actor("candidates", tables, tiny_world.spec(), SMALL)
    seen = observation_of(tiny_world)
    scores = actor(seen)
    allowed = seen["action_mask"]
    assert bool((scores[~allowed] == FORBIDDEN).all())
    expected = encoder.scores(seen["state"]).masked_fill(~allowed, -torch.inf)
    assert torch.equal(scores.argmax(1), expected.argmax(1))


def test_a_fresh_proto_head_points_where_the_encoder_expects(tiny_world: World) -> None:
    encoder = _opinionated(tiny_world.state_encoder)
    tables = ItemTables.of(encoder, tiny_world.catalogue.popularity)
    torch.manual_seed(0)
    direction = make_actor("proto", tables, tiny_world.spec(), SMALL)(observation_of(tiny_world))
    near = direction @ tables.vectors[:-1].T
    wanted = encoder.scores(observation_of(tiny_world)["state"])
    both = torch.stack([near - near.mean(1, keepdim=True), wanted - wanted.mean(1, keepdim=True)])
    cosine = torch.nn.functional.cosine_similarity(both[0], both[1])
    assert float(cosine.detach().min()) > 0.8  # ten items on eight axes: the fit cannot be perfect


def test_the_q_head_forbids_masked_items(tiny_world: World) -> None:
    tables = ItemTables.of(tiny_world.state_encoder, tiny_world.catalogue.popularity)
    seen = observation_of(tiny_world)
    q = make_actor("item", tables, tiny_world.spec(), SMALL)(seen)
    assert torch.equal(q > FORBIDDEN / 2, seen["action_mask"])


def test_admissible_leaves_out_empty_places_and_what_is_picked() -> None:
    seen = {"candidates": torch.tensor([[3, 0, 2, 4]]), "picked": torch.tensor([[0, 4]])}
    assert admissible(seen, empty=4).tolist() == [[True, False, True, False]]


@pytest.mark.parametrize("ratio", [0, 1000])
def test_scoring_by_gathering_equals_scoring_the_whole_catalogue(
    monkeypatch: pytest.MonkeyPatch, tiny_world: World, ratio: int
) -> None:
    tables = ItemTables.of(_opinionated(tiny_world.state_encoder), tiny_world.catalogue.popularity)
    torch.manual_seed(0)
    actor = make_actor("candidates", tables, tiny_world.spec(), SMALL)
    seen = observation_of(tiny_world)
    expected = actor(seen)
    monkeypatch.setattr(networks, "_DENSE_RATIO", ratio)
    monkeypatch.setattr(networks, "_COUNTED_RATIO", ratio)
    torch.testing.assert_close(actor(seen), expected)


def test_times_shown_counts_items_and_not_empty_places() -> None:
    shown, items = torch.tensor([[2, 0, 2, 4]]), torch.tensor([[0, 1, 2]])
    assert networks._times(shown, items, empty=4).tolist() == [[1.0, 0.0, 2.0]]


def _opinionated(encoder: StateEncoder) -> StateEncoder:
    """The tiny world's encoder is not fitted; give it next-item scores that differ by user and item."""
    copy = StateEncoder(encoder.item_vectors[:-1], encoder.signal_bounds, encoder.profile_dim, config=encoder.config)
    copy.load_state_dict(encoder.state_dict())
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        copy.out_items[:-1] = copy.item_vectors[:-1] + 0.1 * _normal(copy.out_items[:-1], generator)
        copy.popularity.copy_(0.1 * _normal(copy.popularity, generator))
    return copy


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator)


def test_products_of_gathered_rows_have_the_gradient_of_the_plain_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    table, weights = torch.randn(9, 4, generator=generator), torch.randn(3, 5, generator=generator)
    items = torch.randint(0, 9, (3, 5), generator=generator)
    results = []
    for products in (gathered_products, lambda query, table, items: (table[items] @ query.unsqueeze(2))[:, :, 0]):
        query = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        found = products(query, table, items)
        (found * weights).sum().backward()
        results.append((found.detach(), query.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
