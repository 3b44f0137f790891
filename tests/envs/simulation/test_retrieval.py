"""The k best of a catalogue by blocks, held against the plain (B, N) form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.simulation import retrieval
from recloop.envs.simulation.retrieval import best_of, best_rows, sortable, unsorted


def plain(scores: Tensor, k: int) -> Tensor:
    """Rows by (score downwards, row), N where nothing is left."""
    b, n = scores.shape
    rows = torch.full((b, k), n)
    for lane in range(b):
        ranked = sorted(range(n), key=lambda row, lane=lane: (-float(scores[lane, row]), row))  # type: ignore[misc]
        held = [row for row in ranked if scores[lane, row] > -math.inf][:k]
        rows[lane, : len(held)] = torch.tensor(held, dtype=torch.int64)
    return rows


@pytest.mark.parametrize("few_threads", [0, 1 << 10], ids=["torch", "numpy"])
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 700), st.integers(1, 12), st.integers(4, 4000), st.booleans(), st.booleans(),
    st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_blocks_equal_the_plain_form(
    few_threads: int, b: int, n: int, k: int, room: int, biased: bool, masked: bool, invalid: bool, seed: int
) -> None:
    """Small whole numbers: products are exact, and most scores are shared by many items."""
    draw = torch.Generator().manual_seed(seed)
    k = min(k, n)
    queries = torch.randint(-2, 3, (b, 3), generator=draw).float()
    table = torch.randint(-2, 3, (n, 3), generator=draw).float()
    bias = torch.randint(0, 2, (n,), generator=draw).float() if biased else None
    mask = torch.rand(b, n, generator=draw) < 0.3 if masked else None
    seen = torch.randint(0, n + 1, (b, 9), generator=draw) if invalid else None
    scores = queries @ table.T
    scores = scores if bias is None else scores + bias
    scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
    if seen is not None:
        scores = torch.cat([scores, torch.zeros(b, 1)], dim=1).scatter(1, seen, -math.inf)[:, :n]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_FEW_THREADS", few_threads)
        best = best_rows(queries, table, k, bias=bias, mask=mask, seen=seen, block_bytes=room)
        of_scores = best_of(scores, k, scores > -math.inf)
    assert best.rows.tolist() == plain(scores, k).tolist()
    held = best.rows < n
    assert torch.equal(best.scores[held], scores.gather(1, best.rows.clamp(max=n - 1))[held])
    assert bool((best.scores[~held] == -math.inf).all())
    assert torch.equal(of_scores.rows, best.rows)


def test_scores_of_all_sizes_in_one_block() -> None:
    """Chunks of 64 and what is left over of them."""
    draw = torch.Generator().manual_seed(0)
    for n in (1, 63, 64, 65, 1000, 1023, 1024, 5000):
        scores = torch.randn(3, n, generator=draw)
        k = min(10, n)
        assert torch.equal(best_of(scores, k).rows, scores.topk(k).indices)


def test_keys_keep_the_order_and_come_back() -> None:
    scores = torch.tensor([-math.inf, -3.5, -1e-40, -0.0, 0.0, 1e-40, 2.0, math.inf])
    keys = sortable(scores)
    assert bool((keys.diff() >= 0).all())
    assert keys[3] == keys[4]
    assert torch.equal(unsorted(keys), scores)


def test_nobody_asks_for_nothing_or_more_than_there_is() -> None:
    table = torch.zeros(4, 2)
    for k in (0, 5):
        with pytest.raises(RecloopError, match="choose k from 1 to 4"):
            best_rows(torch.zeros(1, 2), table, k)
    assert best_rows(torch.zeros(0, 2), table, 3).rows.shape == (0, 3)


def test_a_table_in_half_the_bits() -> None:
    draw = torch.Generator().manual_seed(0)
    queries, table = torch.randn(4, 16, generator=draw).bfloat16(), torch.randn(900, 16, generator=draw).bfloat16()
    best = best_rows(queries, table, 7, block_bytes=4000)
    assert torch.equal(best.rows, (queries.float() @ table.float().T).topk(7).indices)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_gpu_finds_what_the_cpu_finds(kind: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    queries = torch.randint(-3, 4, (64, 32), generator=draw).to(kind)
    table = torch.randint(-3, 4, (50_000, 32), generator=draw).to(kind)
    here, there = best_rows(queries, table, 20), best_rows(queries.cuda(), table.cuda(), 20, block_bytes=1 << 22)
    assert torch.equal(here.rows, there.rows.cpu())
