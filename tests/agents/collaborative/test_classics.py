"""Collaborative filtering against plain loops and textbook formulas, in a world of ten items and two tastes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents import FitOptions, make_policy
from recloop.agents.collaborative.ease import EASEPolicy
from recloop.agents.collaborative.factors import ALSPolicy
from recloop.agents.collaborative.history import HistoryPolicy, consumption_matrix
from recloop.agents.collaborative.lightgcn import ItemGraph, KGINPolicy, LightGCNConfig, LightGCNPolicy
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.interaction.observation import Observation
from recloop.envs.logs.sequences import Sequences
from recloop.envs.world.world import World

NAMES = ("item-knn", "ease", "als", "bpr", "lightgcn")
N = 10


def seen(*histories: list[int], length: int = 6) -> Observation:
    """An observation of histories of a catalogue of ten."""
    return {"history": torch.tensor([[N] * (length - len(h)) + h for h in histories])}


def matrix_of(world: World) -> Tensor:
    """Who consumed what, dense, by a loop."""
    users = world.users.rows("train").tolist()
    held = torch.zeros(len(users), N, dtype=torch.float64)
    for row, user in enumerate(users):
        for item in world.sequences.of(user)[0].tolist():
            held[row, item] = 1
    return held


def with_log(world: World, lists: list[list[int]]) -> World:
    """The world with other behaviour; its users are all train users."""
    lists = lists + [[]] * (len(world.users) - len(lists))
    flat = np.array([i for row in lists for i in row], dtype=np.int64)
    signals = np.ones((len(flat), len(world.signals)), dtype=np.float32)
    sequences = Sequences(N, np.cumsum([0, *map(len, lists)]), flat, signals, signals > 0)
    users = replace(world.users, part=torch.zeros(len(lists), dtype=torch.int64))
    counts = torch.from_numpy(sequences.popularity(np.arange(len(lists))))
    return replace(world, sequences=sequences, users=users, catalogue=replace(world.catalogue, popularity=counts))


def test_the_matrix_holds_each_consumption_once(tiny_world: World) -> None:
    world = with_log(tiny_world, [[1, 2, 1], [3], []])
    assert consumption_matrix(world).toarray()[:3].nonzero()[1].tolist() == [1, 2, 3]
    assert consumption_matrix(world).max() == 1
    assert np.array_equal(consumption_matrix(tiny_world).toarray(), matrix_of(tiny_world).float().numpy())


def test_item_knn_is_the_sum_over_neighbours(tiny_world: World) -> None:
    settings = {"neighbours": 3, "shrinkage": 2.0}
    policy = make_policy("item-knn", tiny_world, FitOptions(settings=settings))
    held = matrix_of(tiny_world)
    like = [[0.0] * N for _ in range(N)]
    for i in range(N):
        for j in range(N):
            both = float((held[:, i] * held[:, j]).sum())
            root = float(held[:, i].sum() * held[:, j].sum()) ** 0.5
            like[i][j] = both / (root + 2.0) if i != j else 0.0
    found = policy.scores(seen([0, 3]))[0]  # type: ignore[attr-defined]
    cut = [sorted(row, reverse=True)[2] for row in like]
    least = [sum(like[i][j] for i in (0, 3) if like[i][j] > cut[i]) for j in range(N)]
    most = [sum(like[i][j] for i in (0, 3) if like[i][j] >= cut[i]) for j in range(N)]
    assert all(low - 1e-6 <= score <= high + 1e-6 for low, score, high in zip(least, found.tolist(), most, strict=True))
    assert float(found.sum()) == pytest.approx(sum(sum(sorted(like[i], reverse=True)[:3]) for i in (0, 3)), abs=1e-5)


def test_ease_is_a_ridge_regression_of_every_item_on_the_others(tiny_world: World) -> None:
    policy = make_policy("ease", tiny_world, FitOptions(settings={"ridge": 2.0}))
    held = matrix_of(tiny_world)
    expected = torch.zeros(N, N, dtype=torch.float64)
    for item in range(N):
        others = [i for i in range(N) if i != item]
        x, y = held[:, others], held[:, item]
        expected[others, item] = torch.linalg.solve(x.T @ x + 2 * torch.eye(N - 1, dtype=torch.float64), x.T @ y)
    assert isinstance(policy, EASEPolicy)
    torch.testing.assert_close(policy.scores(seen([1, 4]))[0].double(), expected[[1, 4]].sum(0), atol=1e-5, rtol=1e-4)


def test_ease_refuses_a_catalogue_that_does_not_fit(tiny_world: World) -> None:
    with pytest.raises(PolicyError, match=r"10 x 10 weights .* the limit is 9 items; take item-knn or als"):
        make_policy("ease", tiny_world, FitOptions(settings={"most_items": 9}))


def test_als_folds_in_by_its_normal_equations(tiny_world: World) -> None:
    policy = make_policy(
        "als", tiny_world, FitOptions(settings={"factors": 4, "confidence": 5.0, "regularisation": 1.0})
    )
    assert isinstance(policy, ALSPolicy)
    items = policy.tables["items"][:N].double()
    for history in ([2], [1, 4, 6]):
        confidence = torch.ones(N, dtype=torch.float64)
        confidence[history] = 5.0
        wanted = torch.zeros(N, dtype=torch.float64)
        wanted[history] = 1.0
        normal = items.T @ torch.diag(confidence) @ items + torch.eye(4, dtype=torch.float64)
        user = torch.linalg.solve(normal, items.T @ (confidence * wanted))
        torch.testing.assert_close(policy.scores(seen(history))[0].double(), items @ user, atol=1e-4, rtol=1e-3)


def test_als_and_its_library_give_known_users_the_same_factors(tiny_world: World) -> None:
    """At the end of an alternation over items, users' factors are one step behind; a fit of many has settled."""
    from implicit.cpu.als import AlternatingLeastSquares

    settings = {"factors": 4, "iterations": 200, "regularisation": 1.0}
    policy = make_policy("als", tiny_world, FitOptions(settings=settings))
    model = AlternatingLeastSquares(4, 1.0, 10.0, iterations=200, random_state=0, num_threads=1)
    model.fit(consumption_matrix(tiny_world), show_progress=False)
    known = model.user_factors @ model.item_factors.T
    histories = [
        sorted(set(tiny_world.sequences.of(user)[0].tolist())) for user in tiny_world.users.rows("train").tolist()
    ]
    mine = policy.scores(seen(*histories))  # type: ignore[attr-defined]
    torch.testing.assert_close(mine, torch.from_numpy(known), atol=0.02, rtol=0.02)


def test_lightgcn_propagates_as_a_plain_loop_does(tiny_world: World) -> None:
    policy = make_policy("lightgcn", tiny_world, FitOptions(steps=1, settings={"dim": 3}))
    assert isinstance(policy, LightGCNPolicy)
    degrees = matrix_of(tiny_world).sum(0).clamp(min=1)
    history, items = [2, 4, 5], policy.tables["items"].double()
    user = sum(items[i] / (len(history) * degrees[i]) ** 0.5 for i in history)
    torch.testing.assert_close(policy.scores(seen(history))[0].double(), items @ user, atol=1e-6, rtol=1e-5)


def test_lightgcn_smooths_over_users_as_written(tiny_world: World) -> None:
    held = matrix_of(tiny_world).float()
    edges = held.nonzero().T
    graph = ItemGraph(edges, *held.shape, LightGCNConfig(dim=3, hops=2), seed=1)
    weights = held / (held.sum(1, keepdim=True).clamp(min=1) * held.sum(0).clamp(min=1)).sqrt()
    layers = [graph.embeddings]
    for _ in range(2):
        layers.append(weights.T @ (weights @ layers[-1]))
    items = torch.stack(layers).mean(0)
    users, found = graph()
    torch.testing.assert_close(found, items)
    torch.testing.assert_close(users, weights @ items)


def knowing(world: World) -> World:
    """The world with a graph: the items of each half have a director, and each item a year."""
    triples = [(f"film {i}", "director", f"director {i // 5}") for i in range(N)]
    triples += [(f"film {i}", "year", f"year {i % 3}") for i in range(N)]
    entities = tuple(f"film {i}" for i in range(N))
    catalogue = replace(world.catalogue, entities=entities)
    return replace(
        world, knowledge=KnowledgeGraph.from_names(*map(list, zip(*triples, strict=True))), catalogue=catalogue
    )


def test_kgin_starts_from_what_is_told_of_an_item(tiny_world: World) -> None:
    world = knowing(tiny_world)
    facts = KGINPolicy._facts(world)
    assert facts.shape == (3, 2 * N)
    graph = ItemGraph(matrix_of(world).nonzero().T, *matrix_of(world).shape, LightGCNConfig(dim=3), 1, facts)
    with torch.no_grad():
        graph.relations.copy_(torch.randn(2, 3))
    found = graph.told()
    for item in range(N):
        told = [graph.relations[r] * graph.entities[e] for i, r, e in facts.T.tolist() if i == item]
        torch.testing.assert_close(found[item], graph.embeddings[item] + sum(told) / len(told))


def test_kgin_places_an_item_that_nobody_consumed(tiny_world: World) -> None:
    """Item 4 has the director of 0 to 3, item 9 that of 5 to 8, and nobody consumed either."""
    world = with_log(knowing(tiny_world), [[0, 1, 2, 3] if u % 2 else [5, 6, 7, 8] for u in range(12)])
    low, high = make_policy("kgin", world, FitOptions(steps=60, settings={"dim": 16})).scores(seen([0, 1], [5, 6]))  # type: ignore[attr-defined]
    assert low[4] > low[9]
    assert high[9] > high[4]


def test_kgin_without_a_graph_says_what_to_take(tiny_world: World) -> None:
    with pytest.raises(PolicyError, match="no knowledge graph"):
        make_policy("kgin", replace(tiny_world, knowledge=None))
    with pytest.raises(PolicyError, match="says nothing of its items"):
        make_policy("kgin", replace(tiny_world, knowledge=KnowledgeGraph.from_names(["a"], ["b"], ["c"])))


@pytest.mark.parametrize("name", NAMES)
def test_everyone_finds_the_two_tastes(name: str, tiny_world: World) -> None:
    """Users consume all but one item of their half of the catalogue: what is left of it comes first."""
    halves = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    world = with_log(tiny_world, [[i for i in halves[u % 2] if i % 5 != u // 2 % 5] for u in range(12)])
    few = {"ease": {"ridge": 1.0}, "bpr": {"factors": 8, "iterations": 300, "ridge": 0.1}}
    policy = make_policy(name, world, FitOptions(settings=few.get(name, {})))
    assert isinstance(policy, HistoryPolicy)
    low, high = policy.scores(seen([0, 1], [8, 9]))
    assert set(low.index_fill(0, torch.tensor([0, 1]), -torch.inf).topk(3).indices.tolist()) == {2, 3, 4}
    assert set(high.index_fill(0, torch.tensor([8, 9]), -torch.inf).topk(3).indices.tolist()) == {5, 6, 7}


@pytest.mark.parametrize("name", NAMES)
def test_order_repeats_and_empty_places_change_nothing(name: str, tiny_world: World) -> None:
    policy = make_policy(name, tiny_world, FitOptions(steps=2))
    assert isinstance(policy, HistoryPolicy)
    once, turned, twice = policy.scores(seen([1, 4, 2], [2, 1, 4], [4, 2, 1, 1, 2]))
    torch.testing.assert_close(once, turned)
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("name", NAMES)
def test_cold_users_get_what_is_popular(name: str, tiny_world: World) -> None:
    """Those without a history, and those whose items no train user met."""
    world = with_log(tiny_world, [[1, 2, 3], [2, 3], [3, 4]])
    policy = make_policy(name, world, FitOptions(steps=1))
    assert isinstance(policy, HistoryPolicy)
    cold = policy.scores(seen([], [9, 7]))
    assert torch.equal(cold, world.catalogue.popularity.expand(2, -1))
    assert torch.isfinite(policy.scores(seen([3, 9]))).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_log_of_one_consumption_is_enough_and_one_of_none_is_refused(name: str, tiny_world: World) -> None:
    one = make_policy(name, with_log(tiny_world, [[3]]), FitOptions(steps=1))
    assert isinstance(one, HistoryPolicy)
    assert torch.isfinite(one.scores(seen([3], []))).all()
    with pytest.raises(PolicyError, match="consumed nothing; give a log with consumptions"):
        make_policy(name, with_log(tiny_world, []), FitOptions(steps=1))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("item-knn", {"neighbours": 0}),
        ("item-knn", {"shrinkage": -1.0}),
        ("ease", {"ridge": 0.0}),
        ("als", {"confidence": 1.0}),
        ("als", {"factors": 0}),
        ("bpr", {"learning_rate": float("inf")}),
        ("lightgcn", {"hops": -1}),
        ("recent-popularity", {"half_life": 0.0}),
    ],
)
def test_settings_out_of_range_are_named(name: str, settings: dict[str, float], tiny_world: World) -> None:
    with pytest.raises(RecloopError, match=next(iter(settings))):
        make_policy(name, tiny_world, FitOptions(settings=settings))


def test_recent_popularity_counts_the_old_less(tiny_world: World) -> None:
    world = with_log(tiny_world, [[1, 2], [1, 3]])
    days = np.array([0.0, 60.0, 30.0, 60.0]) * 86_400
    timed = replace(world, sequences=replace(world.sequences, times=days))
    policy = make_policy("recent-popularity", timed, FitOptions(settings={"half_life": 30.0}))
    assert policy.scores(seen([]))[0].tolist() == [0, 0.75, 1, 1, *[0] * 6]  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="holds no times of consumption, so recent-popularity is popularity"):
        same = make_policy("recent-popularity", world)
    assert torch.equal(same.scores(seen([]))[0], world.catalogue.popularity)  # type: ignore[attr-defined]


def test_without_the_library_the_extra_is_named(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(PolicyError, match=r"als needs the package implicit; pip install 'recloop\[classics\]'"):
        make_policy("als", tiny_world)
