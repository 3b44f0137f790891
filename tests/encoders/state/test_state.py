import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import EncoderError, RecloopError
from recloop.encoders.base.manifest import Manifest
from recloop.encoders.state.config import EncoderState, StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder

N, D, P, H, B = 11, 8, 3, 7, 6
BOUNDS = [(0.0, 1.0), (1.0, 5.0)]
CONFIG = StateEncoderConfig(dim=D, hidden=12, key_dim=4, value_dim=6, decay=0.5)
PARTS = {
    "no graph": ({}, 0),
    "three relations": ({}, 3),
    "gru alone": ({"patterns": 0, "fusion": False}, 3),
    "lstm": ({"sequence": "lstm"}, 3),
    "mean": ({"sequence": "mean", "patterns": 0, "fusion": False}, 0),
    "patterns": ({"sequence": "mean", "patterns": 3}, 3),
}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _tables(relations: int) -> Tensor:
    tables = torch.randn(N + 1, relations, 6, generator=_generator(1))
    tables[N] = 0
    return tables


@pytest.fixture(params=PARTS)
def encoder(request: pytest.FixtureRequest) -> StateEncoder:
    change, relations = PARTS[request.param]
    names = ("director", "genre", "actor")[:relations]
    config = replace(CONFIG, **change)
    made = StateEncoder(
        torch.randn(N, D, generator=_generator(0)), BOUNDS, P, names, _tables(3) if names else None, config
    )
    with torch.no_grad():  # what an unfitted encoder leaves at zero takes part too
        for name, weight in made.named_parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=_generator(len(name)))
    made.set_items(made.item_vectors[:-1].clone(), _tables(3) if names else None)
    return made


def _users() -> tuple[Tensor, Tensor, Tensor]:
    """Profiles, histories with empty places anywhere (one lane all empty), signals even in the empty places."""
    history = torch.randint(0, N + 1, (B, H), generator=_generator(2))
    history[0] = N
    history[1, :4] = N
    feedback = torch.rand(B, H, 2, generator=_generator(3)) * 5
    return torch.rand(B, P, generator=_generator(4)), history, feedback


def _assert_equal(a: EncoderState, b: EncoderState, atol: float = 3e-6) -> None:
    for name, value in vars(a).items():
        if value is not None:
            torch.testing.assert_close(value, getattr(b, name), atol=atol, rtol=0, msg=name)


def test_start_equals_advance_step_by_step(encoder: StateEncoder) -> None:
    profile, history, feedback = _users()
    state = encoder.blank(profile)
    for place in range(H):
        state = encoder.advance(state, history[:, place : place + 1], feedback[:, place : place + 1])
    started = encoder.start(profile, history, feedback)
    _assert_equal(started, state)
    torch.testing.assert_close(encoder.vector(started), encoder.vector(state), atol=3e-6, rtol=0)


def test_a_trajectory_passes_through_every_state(encoder: StateEncoder) -> None:
    """The t-th vector is that of the first t items; empty places come last."""
    profile, history, feedback = _users()
    vectors, held = encoder.trajectory(profile, history, feedback)
    assert vectors.shape == (B, H, D)
    assert torch.equal(held.sum(1), (history < N).sum(1))
    state = encoder.blank(profile)
    seen = torch.zeros(B, dtype=torch.long)
    for place in range(H):
        state = encoder.advance(state, history[:, place : place + 1], feedback[:, place : place + 1])
        there = history[:, place] < N
        expected = encoder.vector(state)[there]
        torch.testing.assert_close(vectors[torch.arange(B), seen][there], expected, atol=3e-6, rtol=0)
        seen += there


def test_padding_changes_nothing(encoder: StateEncoder) -> None:
    profile, history, feedback = _users()
    padded = torch.cat([torch.full((B, 5), N), history], dim=1)
    noise = torch.cat([torch.ones(B, 5, 2), feedback], dim=1)
    _assert_equal(encoder.start(profile, padded, noise), encoder.start(profile, history, feedback))


def test_no_history_is_the_blank_state(encoder: StateEncoder) -> None:
    profile = _users()[0]
    blank = encoder.blank(profile)
    _assert_equal(encoder.start(profile, torch.zeros(B, 0, dtype=torch.long), torch.zeros(B, 0, 2)), blank, 0)
    _assert_equal(encoder.start(profile, torch.full((B, 3), N), torch.ones(B, 3, 2)), blank, 0)


def test_a_step_does_not_see_the_order_of_what_was_consumed(encoder: StateEncoder) -> None:
    profile, history, feedback = _users()
    state = encoder.start(profile, history, feedback)
    items, signals = torch.tensor([[2, 5, N, 7]] * B), torch.rand(B, 4, 2, generator=_generator(5)) * 5
    mixed = torch.tensor([3, 2, 0, 1])
    _assert_equal(encoder.advance(state, items, signals), encoder.advance(state, items[:, mixed], signals[:, mixed]))


def test_empty_places_and_their_signals_change_nothing(encoder: StateEncoder) -> None:
    state = encoder.start(*_users())
    items, signals = torch.tensor([[4, 9]] * B), torch.ones(B, 2, 2)
    wider = torch.cat([items, torch.full((B, 3), N)], dim=1)
    _assert_equal(
        encoder.advance(state, wider, torch.cat([signals, 4 * torch.ones(B, 3, 2)], dim=1)),
        encoder.advance(state, items, signals),
    )


def test_lanes_that_consumed_nothing_keep_their_state(encoder: StateEncoder) -> None:
    state = encoder.start(*_users())
    items = torch.tensor([[N, N], [3, N]] * (B // 2))
    after = encoder.advance(state, items, torch.ones(B, 2, 2))
    idle = torch.arange(0, B, 2)
    _assert_equal(after.rows(idle), state.rows(idle), 0)
    assert (after.count - state.count).tolist() == [0, 1] * (B // 2)
    assert not torch.allclose(encoder.vector(after)[1], encoder.vector(state)[1], atol=1e-3)


def test_what_comes_back_depends_on_the_arguments_alone(encoder: StateEncoder) -> None:
    state = encoder.start(*_users())
    before = state.hidden.clone()
    first = encoder.advance(state, torch.tensor([[1]] * B), torch.ones(B, 1, 2))
    again = encoder.advance(state, torch.tensor([[1]] * B), torch.ones(B, 1, 2))
    _assert_equal(first, again, 0)
    assert torch.equal(state.hidden, before)


def test_one_lane_alone_equals_one_among_many(encoder: StateEncoder) -> None:
    profile, history, feedback = _users()
    together = encoder.vector(encoder.start(profile, history, feedback))
    alone = encoder.vector(encoder.start(profile[3:4], history[3:4], feedback[3:4]))
    torch.testing.assert_close(together[3:4], alone, atol=1e-6, rtol=0)


def test_vectors_lie_within_one_and_know_profile_items_and_signals(encoder: StateEncoder) -> None:
    profile, history, feedback = _users()
    vector = encoder.vector(encoder.start(profile, history, feedback))
    assert vector.shape == (B, D)
    assert vector.abs().max() <= 1
    for other in (
        (1 - profile, history, feedback),
        (profile, (history + 3).clamp_max(N), feedback),
        (profile, history, 5 - feedback),
    ):
        assert not torch.allclose(encoder.vector(encoder.start(*other))[2:], vector[2:], atol=1e-3)


def test_signals_are_scaled_by_hand(encoder: StateEncoder) -> None:
    signals = torch.tensor([[0.0, 0.0], [1.0, 5.0], [0.5, 3.0], [1.0, 1.0], [2.0, 9.0]])
    # a click of 0 was given; a rating of 0 was not, and reads as the middle
    assert encoder.scaled(signals).tolist() == [[-1, 0], [1, 1], [0, 0], [1, -1], [1, 1]]


def test_relation_sums_by_hand() -> None:
    tables = torch.zeros(3, 2, 1)
    tables[0, 0], tables[1, 1] = 1.0, 1.0  # item 0 has a director, item 1 a genre
    encoder = StateEncoder(torch.eye(2), BOUNDS, 0, ("director", "genre"), tables, StateEncoderConfig(2, decay=0.5))
    blank = encoder.blank(torch.zeros(1, 0))
    assert encoder.relation_weights(blank).tolist() == [[0, 0]]
    one = encoder.advance(blank, torch.tensor([[0]]), torch.ones(1, 1, 2))
    assert one.presence.tolist() == [[0.5, 0]]  # an unfitted gate lets half through
    assert encoder.relation_weights(one).tolist() == [[1, 0]]
    two = encoder.advance(one, torch.tensor([[1]]), torch.ones(1, 1, 2))
    assert two.presence.tolist() == [[0.25, 0.5]]
    torch.testing.assert_close(two.keys[0, 0] / two.presence[0, 0], encoder.relation_rows[0, 0, : two.keys.shape[-1]])
    assert encoder.relation_weights(two).sum().item() == pytest.approx(1)
    assert (encoder.relation_weights(two) > 0).all()


def test_tables_are_of_length_one_with_a_zero_row(encoder: StateEncoder) -> None:
    torch.testing.assert_close(encoder.item_vectors[:-1].norm(dim=1), torch.ones(N))
    assert encoder.item_vectors[-1].abs().sum() == 0
    assert encoder.out_items[-1].abs().sum() == 0
    assert encoder.scores(torch.ones(2, D)).shape == (2, N)


def test_where_and_rows_pick_lanes(encoder: StateEncoder) -> None:
    profile, history, feedback = _users()
    warm, blank = encoder.start(profile, history, feedback), encoder.blank(profile)
    mask = torch.tensor([False, False, True, False, False, True])
    mixed = warm.where(mask, blank)
    _assert_equal(mixed.rows(torch.tensor([2, 5])), blank.rows(torch.tensor([2, 5])), 0)
    _assert_equal(mixed.rows(torch.tensor([3, 0])), warm.rows(torch.tensor([3, 0])), 0)


def test_save_and_load_give_equal_bits(encoder: StateEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "encoder")
    again = StateEncoder.load(tmp_path / "encoder")
    state, same = encoder.start(*_users()), again.start(*_users())
    _assert_equal(state, same, 0)
    assert torch.equal(encoder.vector(state), again.vector(same))
    assert torch.equal(encoder.scores(encoder.vector(state)), again.scores(again.vector(same)))
    assert (again.relations, again.signal_bounds, again.config) == (
        encoder.relations,
        encoder.signal_bounds,
        encoder.config,
    )
    assert {path.suffix for path in (tmp_path / "encoder").iterdir()} == {".json", ".safetensors"}


def test_making_one_touches_no_global_generator_and_follows_its_seed() -> None:
    before = torch.random.get_rng_state()
    weights = [
        torch.cat([w.flatten() for w in StateEncoder(torch.eye(4), BOUNDS, seed=seed).parameters()])
        for seed in (0, 0, 1)
    ]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_it_is_frozen_until_asked() -> None:
    encoder = StateEncoder(torch.eye(4), BOUNDS)
    state = encoder.start(torch.zeros(1, 0), torch.tensor([[1, 2]]), torch.ones(1, 2, 2))
    assert not encoder.vector(state).requires_grad


def test_gradients_flow_when_asked(encoder: StateEncoder) -> None:
    encoder.requires_grad_(True)
    state = encoder.advance(encoder.start(*_users()), torch.tensor([[1, 2]] * B), torch.ones(B, 2, 2))
    encoder.vector(state).sum().backward()
    assert all(weight.grad is not None for weight in (encoder.head.weight, encoder.signal.weight) if encoder.recurrent)
    assert encoder.head.weight.grad is not None
    assert encoder.head.weight.grad.abs().sum() > 0


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(EncoderError, match=r"item_vectors are \(4, 4\).*needs \(N, 8\)"):
        StateEncoder(torch.eye(4), BOUNDS, config=StateEncoderConfig(dim=8))
    with pytest.raises(EncoderError, match=r"relation_tables are None; 1 relations of 4 items need \(5, 1, e\)"):
        StateEncoder(torch.eye(4), BOUNDS, relations=["genre"])
    with pytest.raises(EncoderError, match="low < high"):
        StateEncoder(torch.eye(4), [(1.0, 1.0)])
    with pytest.raises(EncoderError, match=r"decay=0\.0 .* must lie in \(0, 1\]"):
        StateEncoderConfig(decay=0.0)


def test_broken_folders_are_named(encoder: StateEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    with pytest.raises(RecloopError, match=r"encoder\.json is missing"):
        StateEncoder.load(folder)
    encoder.save(folder)
    facts = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(EncoderError, match="has format 99, this recloop reads up to 3"):
        StateEncoder.load(folder)
    (folder / "encoder.json").write_text(json.dumps({**facts, "catalogue_size": 12}))
    Manifest.of(folder).write(folder)
    with pytest.raises(EncoderError, match=r"encoder\.safetensors does not fit") as error:
        StateEncoder.load(folder)
    assert "\n" not in str(error.value)


def test_sizes_are_held_against_the_tensors_before_memory_is_asked_for(encoder: StateEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    facts = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**facts, "catalogue_size": 10**15}))
    Manifest.of(tmp_path).write(tmp_path)
    with pytest.raises(EncoderError, match=r"item_vectors is \(.*\), by its facts \(1000000000000001, .*make"):
        StateEncoder.load(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_agrees_with_the_cpu(encoder: StateEncoder) -> None:
    users = _users()
    expected = encoder.vector(encoder.start(*users))
    encoder.cuda()
    state = encoder.start(*(t.cuda() for t in users))
    torch.testing.assert_close(encoder.vector(state).cpu(), expected, atol=1e-5, rtol=0)
    profile, history, feedback = (t.cuda() for t in users)
    stepped = encoder.blank(profile)
    for place in range(H):
        stepped = encoder.advance(stepped, history[:, place : place + 1], feedback[:, place : place + 1])
    _assert_equal(state, stepped, 1e-5)
