from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.items.encoder import ItemEncoder, ItemKnowledge
from recloop.encoders.state.batches import Log, NextItemConfig, batches
from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.state.fitting import fit_state_encoder
from recloop.encoders.state.next_item import NextItemModel

N = 12
BOUNDS = [(0.0, 1.0), (1.0, 5.0)]
CONFIG = StateEncoderConfig(dim=16, hidden=24, key_dim=4, value_dim=4)
FITTING = NextItemConfig(epochs=25, batch_users=8, dropout=0.0, learning_rate=0.01, patience=25)


def _cycle(users: int = 40, length: int = 20, n: int = N) -> tuple[Any, Any, Any]:
    """Users who go round the catalogue: the next item is the last one plus one."""
    starts = np.random.default_rng(0).integers(0, n, users)
    items = (starts[:, None] + np.arange(length)) % n
    feedback = np.ones((users * length, 2), dtype=np.float32)
    return items.reshape(-1).astype(np.int64), np.arange(users + 1) * length, feedback


def _knowledge(n: int = N) -> ItemKnowledge:
    generator = torch.Generator().manual_seed(5)
    tables = torch.randn(n + 1, 2, 6, generator=generator)
    tables[n] = 0
    tables[::3, 1] = 0
    return ItemKnowledge(("genre", "director"), tables)


def _recall_at_1(encoder: StateEncoder, n: int = N) -> float:
    """Share of all starts after which the first item is the right one."""
    first = torch.arange(n)
    history = (first[:, None] + torch.arange(5)) % n
    state = encoder.start(torch.zeros(n, encoder.profile_dim), history, torch.ones(n, 5, 2))
    return float((encoder.scores(encoder.vector(state)).argmax(1) == (first + 5) % n).float().mean())


@pytest.mark.parametrize("content", ["none", "text", "graph"])
def test_it_learns_the_obvious_world(content: str) -> None:
    text = {"text": torch.randn(N, 10, generator=torch.Generator().manual_seed(1))} if content == "text" else None
    graph = _knowledge() if content == "graph" else None
    encoder = fit_state_encoder(
        text, graph, *_cycle(), BOUNDS, config=CONFIG, catalogue_size=N, fitting=replace(FITTING, group_sizes=(1,))
    )
    assert _recall_at_1(encoder) == 1
    assert encoder.report is not None
    assert encoder.report.recall_at_10 > 0.99
    assert encoder.report.train_loss[0] > 2 > 0.5 > encoder.report.train_loss[-1]
    assert (encoder.report.users, encoder.report.validation_users) == (36, 4)


def test_it_learns_with_sampled_negatives() -> None:
    fitting = replace(FITTING, group_sizes=(1,), full_softmax_limit=4, negatives=6)
    encoder = fit_state_encoder(None, None, *_cycle(), BOUNDS, config=CONFIG, catalogue_size=N, fitting=fitting)
    assert _recall_at_1(encoder) == 1


def test_it_reads_several_items_a_step() -> None:
    """Steps of three, of which only the sum is seen: the next three are known all the same."""
    encoder = fit_state_encoder(
        None, None, *_cycle(60, 30), BOUNDS, config=CONFIG, catalogue_size=N, fitting=replace(FITTING, epochs=60)
    )
    state = encoder.blank(torch.zeros(N, 0))
    first = torch.arange(N)
    for step in range(3):
        items = (first[:, None] + 3 * step + torch.arange(3)) % N
        state = encoder.advance(state, items, torch.ones(N, 3, 2))
    best = encoder.scores(encoder.vector(state)).topk(3).indices.sort(dim=1).values
    expected = ((first[:, None] + 9 + torch.arange(3)) % N).sort(dim=1).values
    assert torch.equal(best, expected)


def test_profiles_are_read_before_the_first_item() -> None:
    """Users of one kind begin at item 0, of the other at item 6."""
    users = 40
    kind = np.arange(users) % 2
    items = ((kind * 6)[:, None] + np.arange(6)) % N
    profiles = np.eye(2, dtype=np.float32)[kind]
    encoder = fit_state_encoder(
        None, None, items.reshape(-1), np.arange(users + 1) * 6, np.ones((users * 6, 2), dtype=np.float32), BOUNDS,
        profile_dim=2, config=CONFIG, profiles=profiles, catalogue_size=N, fitting=replace(FITTING, group_sizes=(1,)),
    )  # fmt: skip
    best = encoder.scores(encoder.vector(encoder.blank(torch.eye(2)))).argmax(1)
    assert best.tolist() == [0, 6]


def test_equal_seeds_give_equal_bits_and_no_global_generator_is_touched(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    fitting = replace(FITTING, epochs=3, dropout=0.3)
    fitted = [
        fit_state_encoder(None, _knowledge(), *_cycle(), BOUNDS, config=CONFIG, seed=seed, fitting=fitting)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(before, torch.random.get_rng_state())
    a, b, c = (encoder.state_dict() for encoder in fitted)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["out_items"], c["out_items"])
    fitted[0].save(tmp_path / "encoder")
    assert StateEncoder.load(tmp_path / "encoder").report == fitted[0].report


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("graph", [False, True])
def test_fitting_sees_what_the_loop_sees(graph: bool, group: int) -> None:
    """The batched pass over whole sequences gives the vectors that `advance` gives step by step."""
    knowledge = _knowledge() if graph else None
    encoder = StateEncoder(
        torch.ones(N, 16), BOUNDS, 2, knowledge.relations if knowledge else (),
        knowledge.tables if knowledge else None, CONFIG,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    log = Log(
        rng.integers(0, N, 17), np.array([0, 10, 17]), rng.uniform(0, 5, (17, 2)).astype(np.float32),
        rng.uniform(0, 1, (2, 2)).astype(np.float32),
    )  # fmt: skip
    model = NextItemModel(encoder, ItemEncoder(N, 16), knowledge, log.popularity(N), NextItemConfig())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    batch = log.batch(np.array([0, 1]), np.array([0, 0]), 100, group, None, torch.device("cpu"))
    with torch.no_grad():
        fitted = model.vectors(batch, torch.nn.functional.embedding(batch.items, model.out_items()), None)
    model.freeze()
    state = encoder.blank(batch.profiles)
    for step in range(fitted.shape[1]):
        there = batch.held[:, step].any(1)
        torch.testing.assert_close(encoder.vector(state)[there], fitted[:, step][there], atol=1e-5, rtol=0)
        state = encoder.advance(
            state, batch.items[:, step].masked_fill(~batch.held[:, step], N), batch.signals[:, step]
        )


def test_frozen_tables(tmp_path: Path) -> None:
    text = torch.randn(N, 10, generator=torch.Generator().manual_seed(1))
    encoder = fit_state_encoder(
        {"text": text}, _knowledge(), *_cycle(), BOUNDS, config=CONFIG, fitting=replace(FITTING, epochs=1)
    )
    assert encoder.item_vectors.shape == (N + 1, 16)
    torch.testing.assert_close(encoder.item_vectors[:-1].norm(dim=1), torch.ones(N))
    assert encoder.item_vectors[-1].abs().sum() == 0
    assert encoder.relation_rows[-1].abs().sum() == 0
    assert encoder.relation_rows[:-1, 1, -1].tolist() == [0, 1, 1] * 4
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_a_batch_by_hand() -> None:
    log = Log(np.arange(9), np.array([0, 5, 9]), np.arange(9, dtype=np.float32)[:, None], np.zeros((2, 0), np.float32))
    batch = log.batch(np.array([1, 0]), np.array([0, 2]), 3, 2, None, torch.device("cpu"))
    assert batch.items.tolist() == [[[5, 6], [7, 0]], [[2, 3], [4, 0]]]
    assert batch.held.tolist() == [[[True, True], [True, False]]] * 2
    assert batch.signals[..., 0].tolist() == [[[5, 6], [7, 0]], [[2, 3], [4, 0]]]
    newest = log.batch(np.array([0, 1]), np.array([0, 0]), 9, 1, 2, torch.device("cpu"))
    assert newest.items[newest.asked].tolist() == [3, 4, 7, 8]


def test_every_user_is_looked_at_once_a_pass() -> None:
    lengths = np.arange(2, 60)
    log = Log(
        np.zeros(lengths.sum(), np.int64), np.concatenate([[0], lengths.cumsum()]),
        np.zeros((lengths.sum(), 1), np.float32), np.zeros((58, 0), np.float32),
    )  # fmt: skip
    fitting = NextItemConfig(batch_users=4, window=10)
    seen = list(batches(log, np.arange(58), fitting, torch.Generator().manual_seed(0)))
    assert sorted(np.concatenate([users for users, _, _ in seen]).tolist()) == list(range(58))
    assert {group for _, _, group in seen} == {1, 2, 3}
    for users, starts, _ in seen:
        assert (starts >= 0).all()
        assert (starts <= np.maximum(lengths[users] - 10, 0)).all()
    assert max(starts.max() for _, starts, _ in seen) > 10  # windows move


def test_a_long_log_gets_fewer_passes() -> None:
    fitting = NextItemConfig(epochs=12, visits=1000, window=10)
    assert fitting.passes(np.array([5, 5])) == 12
    assert fitting.passes(np.array([10] * 10 + [90] * 10)) == 5  # 200 a pass
    assert fitting.passes(np.array([10] * 1000)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": np.array([0, 99, 1, 2])}, "items hold row 99; rows go from 0 to 11"),
        ({"offsets": np.array([0, 2, 3])}, "offsets must rise from 0 to 4"),
        ({"feedback": np.ones((4, 1), np.float32)}, r"feedback is \(4, 1\); 4 items and 2 signals"),
        ({"offsets": np.arange(5)}, "none of the 4 users consumed two items"),
        ({"catalogue_size": None}, "pass catalogue_size"),
        ({"sources": {"text": torch.zeros(3, 2)}}, "text says 3, catalogue_size says 12"),
        ({"sources": {"text": torch.full((12, 2), torch.nan)}}, "12 items need as many finite rows"),
        ({"sources": {"neighbours": torch.ones(N, 2)}, "knowledge": _knowledge()}, "a source is named 'neighbours'"),
        ({"profile_dim": 1, "profiles": np.zeros((3, 1), np.float32)}, r"profiles are \(3, 1\); 2 users"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {
        "sources": None,
        "knowledge": None,
        "items": np.array([0, 1, 1, 2]),
        "offsets": np.array([0, 2, 4]),
        "feedback": np.ones((4, 2), np.float32),
        "signal_bounds": BOUNDS,
        "catalogue_size": N,
    }
    with pytest.raises(EncoderError, match=message):
        fit_state_encoder(**{**right, **change})


def test_a_log_of_one_user_is_fitted_and_says_so() -> None:
    encoder = fit_state_encoder(
        None, None, *_cycle(1, 8), BOUNDS, config=CONFIG, catalogue_size=N, fitting=replace(FITTING, epochs=1)
    )
    assert encoder.report is not None
    assert (encoder.report.users, encoder.report.validation_users) == (1, 0)
