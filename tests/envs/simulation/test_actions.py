"""Actions of every mode become slates that are in range, admissible and, where promised, without repeats."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.observation import ObservationSpec
from recloop.envs.simulation.actions import ActionCodec, EncoderRetriever, action_tensor, make_codec
from recloop.envs.simulation.retrieval import best_of
from recloop.envs.world.world import World

N, LANES = 12, 4


def spec(items: int = N, k: int = 3) -> ObservationSpec:
    return ObservationSpec(items, 5, 4, 2, k, 0, (), 10)


def vectors(items: int = N, seed: int = 0) -> Tensor:
    table = torch.randn(items + 1, 5, generator=torch.Generator().manual_seed(seed))
    table[-1] = 0
    return table


def codec(mode: str, k: int = 3, items: int = N, candidates: int = 0, one_at_a_time: bool = False) -> ActionCodec:
    return make_codec(mode, spec(items, k), vectors(items), candidates=candidates, one_at_a_time=one_at_a_time)


@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 15),
    data=st.data(),
)
@settings(deadline=None, max_examples=80)
def test_proto_shows_the_best_admissible_items_and_never_repeats(seed: int, items: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, items))
    generator = torch.Generator().manual_seed(seed)
    action = torch.rand(LANES, 5, generator=generator) * 2 - 1
    mask = torch.rand(LANES, items, generator=generator) < data.draw(st.floats(0, 1))
    slate = codec("proto", k, items).decode(action, {"action_mask": mask})
    assert slate.shape == (LANES, k)
    assert slate.dtype == torch.int64
    scores = action @ vectors(items)[:-1].T
    for lane in range(LANES):
        shown = [i for i in slate[lane].tolist() if i < items]
        assert len(set(shown)) == len(shown) == min(k, int(mask[lane].sum()))
        assert all(mask[lane, i] for i in shown)
        others = [i for i in range(items) if mask[lane, i] and i not in shown]
        assert not others or not shown or scores[lane, shown].min() >= scores[lane, others].max()
        assert slate[lane].tolist()[len(shown) :] == [items] * (k - len(shown))


@given(seed=st.integers(0, 10_000), size=st.integers(3, N), share=st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_choices_decode_into_range_and_masks_keep_to_what_is_admissible(seed: int, size: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(LANES, N, generator=generator) < share
    scores = torch.rand(LANES, N, generator=generator)
    candidates = best_of(scores, size, mask).rows
    observation = {"action_mask": mask, "candidates": candidates}
    for mode, choices in (("slate", N), ("candidates", size)):
        found = codec(mode, candidates=size)
        found.space.seed(seed)
        action = torch.from_numpy(np.stack([found.space.sample() for _ in range(LANES)]))
        slate = found.decode(action, observation)
        assert slate.shape == (LANES, 3)
        assert bool(((slate >= 0) & (slate <= N)).all())
        allowed = found.masks(observation)
        assert allowed.shape == (LANES, 3 * choices)
        taken = allowed.reshape(LANES, 3, choices).gather(2, action.unsqueeze(2))[..., 0]
        shown = torch.nn.functional.pad(mask, (0, 1)).gather(1, slate)
        nothing = ~mask.any(1, keepdim=True)
        assert torch.equal(taken, shown | nothing)


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_masked_micro_steps_never_repeat(seed: int, share: float) -> None:
    """Any agent that keeps to the masks fills a slate with different admissible items, as many as there are."""
    generator = torch.Generator().manual_seed(seed)
    k, size = 4, 6
    mask = torch.rand(LANES, N, generator=generator) < share
    picks = codec("candidates", k, candidates=size, one_at_a_time=True)
    candidates = best_of(torch.rand(LANES, N, generator=generator), size, mask).rows
    picked = torch.full((LANES, k), N)
    for place in range(k):
        observation = {"candidates": candidates, "picked": picked}
        choice = torch.multinomial(picks.masks(observation).float(), 1, generator=generator)[:, 0]
        picked = picked.clone()
        picked[:, place] = picks.decode(choice, observation)[:, 0]
    for lane in range(LANES):
        admissible = int((candidates[lane] < N).sum())
        first = picked[lane, : min(k, admissible)].tolist()
        assert len(set(first)) == len(first)
        assert all(mask[lane, i] for i in first)


def test_item_mode_shows_one_item() -> None:
    found = codec("item", k=1)
    assert found.decode(torch.tensor([3, 0, 11, 5]), {}).tolist() == [[3], [0], [11], [5]]
    with pytest.raises(RecloopError, match=r"slate_size is 3; set slate_size=1"):
        codec("item", k=3)


def test_candidates_are_positions() -> None:
    found = codec("candidates", k=2, candidates=3)
    candidates = torch.tensor([[7, 2, 9], [4, N, N]])
    slate = found.decode(torch.tensor([[2, 0], [0, 1]]), {"candidates": candidates})
    assert slate.tolist() == [[9, 7], [4, N]]


def test_the_retriever_keeps_to_the_mask(world: World) -> None:
    encoder: StateEncoder = world.state_encoder
    retriever = EncoderRetriever(encoder, 10)
    state = torch.rand(3, encoder.dim)
    mask = torch.zeros(3, 40, dtype=torch.bool)
    mask[0, 5:35] = True
    mask[1, [3, 30]] = True
    found = retriever.candidates({"state": state, "action_mask": mask})
    assert found.shape == (3, 10)
    assert bool(mask[0, found[0]].all())
    assert sorted(found[1, :2].tolist()) == [3, 30]
    assert found[1, 2:].tolist() == [40] * 8
    assert found[2].tolist() == [40] * 10
    free = retriever.candidates({"state": state})
    assert torch.equal(free, encoder.scores(state).topk(10).indices)


def test_defaults_and_limits_of_the_retriever(world: World) -> None:
    assert EncoderRetriever(world.state_encoder).size == 40
    with pytest.raises(RecloopError, match=r"candidates=41 does not fit a catalogue of 40 items; choose 1 to 40"):
        EncoderRetriever(world.state_encoder, 41)


@pytest.mark.parametrize(
    ("mode", "action", "message"),
    [
        ("slate", torch.full((2, 3), 12), r"action holds 12; mode 'slate' takes 0 to 11"),
        ("slate", torch.full((2, 3), -1), r"action holds -1; mode 'slate' takes 0 to 11"),
        ("slate", torch.zeros(2, 4).long(), r"action has shape \(2, 4\); mode 'slate' takes \(lanes, 3\)"),
        ("slate", torch.zeros(2, 3), r"dtype torch.float32; mode 'slate' takes whole numbers"),
        ("slate", torch.zeros(2, 3).to(torch.uint16), r"dtype torch.uint16; mode 'slate' takes whole numbers, int64"),
        ("slate", torch.zeros(2, 3).to(torch.uint64), r"dtype torch.uint64; mode 'slate' takes whole numbers, int64"),
        ("proto", torch.zeros(2, 5).to(torch.uint32), r"dtype torch.uint32; mode 'proto' takes float32"),
        ("candidates", torch.full((2, 3), 5), r"action holds 5; mode 'candidates' takes 0 to 4"),
        ("proto", torch.full((2, 5), torch.nan), r"action holds nan; mode 'proto' takes finite numbers"),
        ("proto", torch.zeros(5), r"action has shape \(5,\)"),
    ],
)
def test_actions_outside_the_space_are_refused(mode: str, action: Tensor, message: str) -> None:
    candidates = torch.arange(5).expand(2, 5)
    with pytest.raises(RecloopError, match=message):
        codec(mode, candidates=5).decode(action, {"candidates": candidates})


@pytest.mark.parametrize(("action", "what"), [(None, "None"), ("3", "a str of 1"), ([["a", "b"]], "a list of 1")])
def test_actions_that_are_no_numbers_are_refused(action: object, what: str) -> None:
    with pytest.raises(RecloopError, match=f"the action is {what}; give numbers of the action space"):
        action_tensor(action)


def test_modes_that_do_not_exist_or_fit_are_refused() -> None:
    with pytest.raises(RecloopError, match="unknown action mode 'protto'; did you mean 'proto'"):
        codec("protto")
    with pytest.raises(RecloopError, match="one_at_a_time works with action mode 'candidates', not 'proto'"):
        codec("proto", one_at_a_time=True)
    with pytest.raises(RecloopError, match="candidates=2 is smaller than slate_size=3"):
        codec("candidates", candidates=2)
    with pytest.raises(RecloopError, match="action mode 'proto' is continuous and has no mask"):
        codec("proto").masks({})


def test_specs_of_another_slate_size_make_other_spaces() -> None:
    wide = replace(spec(), slate_size=5)
    assert make_codec("slate", wide, vectors()).space.shape == (5,)
    assert make_codec("proto", wide, vectors()).space.shape == (5,)


def test_a_question_is_an_empty_slate() -> None:
    asking = codec("ask", candidates=4)
    observation = {"candidates": torch.tensor([[3, 1, 0, 5], [2, 4, 1, 0]])}
    action = torch.tensor([[0, 1, 0, 3], [1, 0, 1, 2]])
    assert asking.decode(action, observation).tolist() == [[1, 3, 5], [N, N, N]]
    assert asking.masks(observation).shape == (2, 2 + 3 * 4)
    with pytest.raises(RecloopError, match="action begins with 2; mode 'ask' takes 0 to recommend or 1 to ask"):
        asking.decode(torch.tensor([[2, 0, 1, 2], [0, 0, 1, 2]]), observation)
