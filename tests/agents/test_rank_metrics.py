"""Ranking metrics against plain Python and scikit-learn."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from recloop.agents import rank_metrics as rm
from recloop.encoders.base.errors import PolicyError

N, K = 12, 8


def plainly(shown: list[int], took: set[int], k: int) -> dict[str, float]:
    """Every figure of one list by loops that one can read."""
    hits = [rank for rank, item in enumerate(shown[:k], 1) if item in took]
    p, r = len(hits) / k, len(hits) / len(took)
    return {
        "precision": p,
        "recall": r,
        "f1": 2 * p * r / (p + r) if hits else 0.0,
        "hit_rate": float(bool(hits)),
        "ndcg": sum(1 / math.log2(1 + rank) for rank in hits)
        / sum(1 / math.log2(1 + rank) for rank in range(1, min(len(took), k) + 1)),
        "mrr": 1 / hits[0] if hits else 0.0,
        "map": sum(sum(h <= rank for h in hits) / rank for rank in hits) / min(len(took), k),
    }


@settings(max_examples=80, deadline=None)
@given(st.permutations(range(N)), st.sets(st.integers(0, N - 1), min_size=1), st.integers(0, K), st.integers(1, K))
def test_every_figure_is_that_of_a_plain_loop(order: list[int], took: set[int], held: int, k: int) -> None:
    shown = order[:held] + [N] * (K - held)
    targets = torch.tensor([sorted(took) + [N] * (N - len(took))])
    hits = rm.hits_of(torch.tensor([shown]), targets, N)
    found = {name: float(metric(hits, torch.tensor([len(took)]), k)) for name, metric in rm.METRICS.items()}
    assert found == pytest.approx(plainly(shown, took, k))


def test_scikit_learn_says_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20, N, generator=generator)
    took = torch.rand(20, N, generator=generator) < 0.3
    took[:, 0] = True
    shown = rm.ranked(scores, torch.ones_like(took), N)
    hits, relevant = took.gather(1, shown), took.sum(1)
    for k in (1, 5, N):
        theirs = ndcg_score(took.numpy(), scores.numpy(), k=k)
        assert float(rm.ndcg(hits, relevant, k).mean()) == pytest.approx(theirs)
    theirs = [average_precision_score(t, s) for t, s in zip(took.numpy(), scores.numpy(), strict=True)]
    assert rm.average_precision(hits, relevant, N).tolist() == pytest.approx(theirs)


def test_lists_hold_what_may_be_shown_and_end_early() -> None:
    scores = torch.tensor([[1.0, 9.0, 3.0, -math.inf]])
    mask = torch.tensor([[True, False, True, True]])
    assert rm.ranked(scores, mask, 4).tolist() == [[2, 0, 3, 4]]
    assert rm.ranked(scores, mask, 4, torch.rand(1, 4)).tolist() == [[2, 0, 3, 4]]
    assert rm.ranked(scores, torch.zeros_like(mask), 2, torch.rand(1, 4)).tolist() == [[4, 4]]


def test_ties_go_by_row_or_by_key() -> None:
    scores, mask = torch.tensor([[1.0, 1.0, 2.0, 1.0]]), torch.ones(1, 4, dtype=torch.bool)
    assert rm.ranked(scores, mask, 3).tolist() == [[2, 0, 1]]
    assert rm.ranked(scores, mask, 3, torch.tensor([[0.9, 0.5, 0.7, 0.1]])).tolist() == [[2, 3, 1]]


def test_random_ties_give_every_item_its_turn() -> None:
    keys = torch.rand(4000, 4, generator=torch.Generator().manual_seed(1))
    first = rm.ranked(torch.zeros(4000, 4), torch.ones(4000, 4, dtype=torch.bool), 1, keys)
    assert torch.bincount(first[:, 0], minlength=4).tolist() == pytest.approx([1000] * 4, abs=120)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(PolicyError, match="NaN"):
        rm.ranked(torch.tensor([[1.0, math.nan]]), torch.ones(1, 2, dtype=torch.bool), 1)


def test_coverage_gini_and_novelty_by_hand() -> None:
    every = torch.ones(4, dtype=torch.bool)
    assert rm.coverage(torch.tensor([[0, 1], [0, 4]]), every) == 0.5
    assert rm.coverage(torch.tensor([[0, 1], [0, 4]]), torch.tensor([True, False, False, True])) == 0.5
    assert rm.gini(torch.tensor([[0, 1], [2, 3]]), every) == 0
    assert rm.gini(torch.tensor([[0], [0]]), every) == 0.75
    assert rm.gini(torch.tensor([[0, 0], [0, 1]]), every) == pytest.approx((-1 * 0 + 1 * 1 + 3 * 3) / (4 * 4))
    assert rm.gini(torch.tensor([[4]]), every) == 0
    shares = torch.tensor([0.5, 0.25, 1.0, 1.0])
    assert rm.novelty(torch.tensor([[0, 1], [1, 4], [4, 4]]), shares).tolist() == [1.5, 2.0, 0.0]
