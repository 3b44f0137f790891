import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.context import GraphContext
from recloop.encoders.knowledge.embeddings import item_relation_tables
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.links import item_links, sharing

TITLES = ("Alien", "Blade Runner", "Aliens", "Untold", "Solo")


@pytest.fixture
def films() -> tuple[KnowledgeGraph, np.ndarray]:
    kg = KnowledgeGraph.from_names(
        ["Alien", "Blade Runner", "Aliens", "Aliens", "Alien", "Alien", "Aliens", "Alien", "Solo"],
        ["director", "director", "director", "writer", "actor", "actor", "actor", "sequel", "writer"],
        ["Scott", "Scott", "Cameron", "Cameron", "Weaver", "Hurt", "Weaver", "Aliens", "Scott"],
    )
    return kg, kg.entity_rows([*TITLES[:3], None, "Solo"])


def test_paths_by_hand(films: tuple[KnowledgeGraph, np.ndarray]) -> None:
    context = GraphContext(*films)
    history = np.array([0, 1, 3, 5, 2])  # 5 is empty; Untold is not linked
    attention = {"director": 0.6, "actor": 0.3, "sequel": 0.1}  # Hurt and the sequel tie
    weights = np.array([2.0, 1.0, 9.0, 9.0, 1.0])
    paths = context.paths(history, weights, attention, top=4)
    # director: (2 + 1) / 4 Scott; actor: Alien's 2 split evenly, so Weaver has (1 + 1) / 3 and Hurt 1 / 3.
    assert [(p.relation, p.entity, p.items) for p in paths] == [
        ("director", "Scott", (0, 1)),
        ("actor", "Weaver", (0, 2)),
        ("director", "Cameron", (2,)),
        ("actor", "Hurt", (0,)),
    ]
    assert [p.weight for p in paths] == pytest.approx([0.45, 0.2, 0.15, 0.1])
    assert paths[0].in_words(TITLES) == "director: Scott 0.45 (via Alien, Blade Runner)"
    assert paths[0].in_words(TITLES, most=1) == "director: Scott 0.45 (via Alien, 1 more)"
    # The rest is "sequel: Aliens" with Alien's 0.1, which makes 1.
    assert sum(p.weight for p in context.paths(history, weights, attention, top=99)) == pytest.approx(1)
    # Without attention: equal over director, actor, writer, sequel and "sequel of".
    plain = context.paths(history)
    assert plain[0].weight == pytest.approx(0.2)
    assert {p.relation for p in plain} == {"director", "actor", "writer", "sequel", "sequel of"}


def test_what_is_telling_is_not_what_all_share() -> None:
    heads = ["A", "B", "C", "D"] * 2
    kg = KnowledgeGraph.from_names(
        heads, ["said in"] * 4 + ["by"] * 4, ["language:English"] * 4 + ["person:X", "person:Y", "person:Y", "person:Y"]
    )
    context = GraphContext(kg, kg.entity_rows(["A", "B", "C", "D"]))
    attention = {"said in": 0.9, "by": 0.1}
    first = context.paths(np.array([0, 1]), attention=attention)[0]
    assert first.in_words("ABCD") == "said in: English 0.9 (via A, B)"
    paths = context.paths(np.array([0, 1]), attention=attention, telling=True)
    # X has a half here and a quarter of the catalogue, English all of both, Y a half here and three quarters there;
    # X and Y have one consumed item each, English both.
    assert [(p.entity, p.weight) for p in paths] == [
        ("language:English", pytest.approx(0.9)), ("person:X", pytest.approx(0.05)), ("person:Y", pytest.approx(0.05))
    ]  # fmt: skip
    both = context.paths(np.array([1, 2]), attention=attention, telling=True)
    assert [p.entity for p in both] == ["person:Y", "language:English"]  # all of it here, three quarters there


def test_nothing_known_gives_no_path(films: tuple[KnowledgeGraph, np.ndarray]) -> None:
    context = GraphContext(*films)
    assert context.paths(np.array([3, 5, 5])) == []
    assert context.paths(np.zeros(0, dtype=np.int64)) == []
    assert context.paths(np.array([0]), attention={"colour": 1.0}) == []
    assert GraphContext(films[0], np.array([-1, -1])).paths(np.array([0, 1])) == []
    with pytest.raises(EncoderError, match="weights of 0 or more"):
        context.paths(np.array([0]), np.array([-1.0]))
    with pytest.raises(EncoderError, match="NaN"):
        context.paths(np.array([0]), attention={"actor": float("nan")})


def test_why_an_item_follows(films: tuple[KnowledgeGraph, np.ndarray]) -> None:
    kg, rows = films
    context = GraphContext(kg, rows)
    history = np.array([0, 5])
    paths = context.explain(history, 2)
    # Alien leads to Aliens directly, and through Weaver, whom 2 of the 4 linked films have.
    assert [(p.relation, p.entity, p.onward) for p in paths] == [
        ("sequel", "Aliens", ()),
        ("actor", "Weaver", ("actor",)),
    ]
    assert paths[0].weight == pytest.approx(1 / 3)
    assert paths[1].weight == pytest.approx(1 / 3 / 2 * np.log(3) / np.log(5))
    through_writer = context.explain(history, 4)
    assert through_writer[0].in_words(TITLES) == "director: Scott, here as writer, 0.23 (via Alien)"
    assert context.explain(history, 3) == []
    assert context.explain(np.array([5]), 2) == []
    with pytest.raises(EncoderError, match="item row 7 lies outside the catalogue of 5 items"):
        context.explain(history, 7)


def test_read_back_is_what_the_state_sums() -> None:
    """Weights times shrunk entity vectors are the encoder's attention times its weighted mean of the tables."""
    draw = np.random.default_rng(2)
    triples = np.stack([draw.integers(0, 40, 300), draw.integers(0, 3, 300), draw.integers(0, 40, 300)], axis=1)
    kg = KnowledgeGraph(tuple(f"e{i:02d}" for i in range(40)), ("a", "b", "c"), triples)
    rows = draw.permutation(40)[:12]
    rows[3] = -1
    vectors = torch.from_numpy(draw.normal(size=(40, 5))).float()
    names, tables = item_relation_tables(kg, rows, vectors)
    history = draw.integers(0, 13, (4, 6))  # 12 is empty
    given, attention = draw.random((4, 6)), draw.dirichlet(np.ones(len(names)), 4)
    context = GraphContext(kg, rows)
    found = context.weights(history, given, dict(zip(names, attention.T, strict=True)))
    assert (found.sum(axis=1) <= 1 + 1e-9).all()
    shared = sharing(item_links(kg, rows), len(kg.entities))
    ours = found @ (vectors.numpy() * shared[:, None])[context.pairs[:, 1]]
    presence = (tables != 0).any(-1).numpy()[history] * given[..., None]  # (B, H, R)
    sums = (tables.numpy()[history] * presence[..., None]).sum(1) / presence.sum(1).clip(1e-9)[..., None]
    np.testing.assert_allclose(ours, (attention[..., None] * sums).sum(1), atol=1e-5)
    # The batch equals its rows one at a time.
    for lane in range(4):
        mine = dict(zip(names, attention[lane], strict=True))
        by_hand = {(p.relation, p.entity): p.weight for p in context.paths(history[lane], given[lane], mine, top=999)}
        row = found[[lane]].tocoo()
        assert len(by_hand) == np.count_nonzero(row.data)
        assert sum(by_hand.values()) == pytest.approx(row.sum())
