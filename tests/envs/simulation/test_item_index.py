"""Approximate search held against the exact one."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.observation import ObservationSpec
from recloop.envs.simulation.actions import EncoderRetriever, make_codec, nearest_items
from recloop.envs.simulation.item_index import IndexKind, IndexRetriever, ItemIndex
from recloop.envs.simulation.tasks import make_driver
from recloop.envs.world.world import World

N, D, K = 6000, 16, 20
faiss = pytest.importorskip("faiss", reason="the extra `index` is not installed")


def clustered(count: int, seed: int) -> Tensor:
    """Points of length 1 around 150 centres, as text vectors lie around themes."""
    centres = torch.randn(150, D, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    points = centres[torch.randint(150, (count,), generator=draw)] + 0.5 * torch.randn(count, D, generator=draw)
    return torch.nn.functional.normalize(points, dim=1)


def recall(found: Tensor, wanted: Tensor) -> float:
    return float((found.unsqueeze(2) == wanted.unsqueeze(1)).any(1).float().mean())


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("ivf", 0.9), ("hnsw", 0.98)])
def test_an_index_finds_most_of_the_best(kind: IndexKind, least: float) -> None:
    table, queries = clustered(N, seed=1), clustered(64, seed=2)
    bias = 0.1 * torch.randn(N, generator=torch.Generator().manual_seed(3)) - 7.0  # as logarithms of shares are
    exact = nearest_items(queries, table, K, {}, bias)
    found = ItemIndex(table, kind, bias=bias).search(queries, K)
    assert recall(found, exact) >= least
    again = ItemIndex(table, kind, bias=bias).search(queries, K)
    assert torch.equal(found, again)  # built twice, the same


@pytest.mark.parametrize("key", ["action_mask", "seen"])
def test_what_may_not_be_shown_is_left_out(key: str) -> None:
    """Most of the best are struck, so that some lanes have to be searched exactly."""
    table, queries = clustered(N, seed=1), clustered(8, seed=2)
    seen = nearest_items(queries, table, 3 * K, {})
    seen[0] = N  # nobody struck anything from the first lane
    mask = torch.ones(8, N + 1, dtype=torch.bool).scatter(1, seen, False)[:, :N]
    observation = {"action_mask": mask} if key == "action_mask" else {"seen": seen}
    found = ItemIndex(table, "flat").nearest(queries, K, observation)
    assert torch.equal(found, nearest_items(queries, table, K, {"action_mask": mask}))
    assert not mask.logical_not().gather(1, found).any()


def test_where_few_are_admissible_the_rest_is_empty() -> None:
    table, queries = clustered(N, seed=1), clustered(2, seed=2)
    mask = torch.zeros(2, N, dtype=torch.bool)
    mask[:, 5:8] = True
    found = ItemIndex(table, "ivf").nearest(queries, K, {"action_mask": mask})
    assert sorted(found[0, :3].tolist()) == [5, 6, 7]
    assert found[:, 3:].eq(N).all()


def test_candidates_and_proto_by_an_index() -> None:
    encoder = StateEncoder(clustered(N, seed=1), [(0.0, 1.0)], config=StateEncoderConfig(dim=D))
    encoder.popularity.copy_(torch.rand(N, generator=torch.Generator().manual_seed(3)))
    state = clustered(16, seed=4)
    exact = EncoderRetriever(encoder, 50).candidates({"state": state})
    assert torch.equal(IndexRetriever(encoder, 50, "flat").candidates({"state": state}), exact)
    assert recall(IndexRetriever(encoder, 50).candidates({"state": state}), exact) >= 0.9
    spec = ObservationSpec(N, D, 4, 2, K, 0, (), 10)
    search = ItemIndex(encoder.item_vectors[:-1], "flat").nearest
    slates = [make_codec("proto", spec, encoder.item_vectors, search=s).decode(state, {}) for s in (search, None)]
    assert torch.equal(*slates)


@pytest.mark.parametrize("mode", ["proto", "candidates"])
def test_an_environment_by_an_index(world: World, mode: str) -> None:
    """An index that finds all leads to the same episode as the exact search."""
    kinds: tuple[IndexKind | None, ...] = ("flat", None)
    drivers = [make_driver(world, 3, seed=1, action_mode=mode, index=index) for index in kinds]
    drivers[0].action_space.seed(0)
    for _ in range(4):
        action = torch.from_numpy(np.stack([drivers[0].action_space.sample() for _ in range(3)]))
        one, two = (driver.step(action).transition for driver in drivers)
        assert one is not None
        assert two is not None
        assert torch.equal(one.slate, two.slate)


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    table = clustered(40, seed=1)
    with pytest.raises(RecloopError, match="ivf"):
        ItemIndex(table, "ifv")  # type: ignore[arg-type]
    with pytest.raises(RecloopError, match="effort=0"):
        ItemIndex(table, "ivf", effort=0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(RecloopError, match=r"recloop\[index\]"):
        ItemIndex(table, "ivf")
