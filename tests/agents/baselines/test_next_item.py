"""Leave-one-out figures, worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents.baselines.next_item import evaluate_next_item, without_last
from recloop.encoders.base.errors import PolicyError
from recloop.envs.logs.sequences import Sequences


def sequences_of(lists: list[list[int]], items: int) -> Sequences:
    flat = np.array([i for row in lists for i in row], dtype=np.int64)
    ones = np.ones((len(flat), 1), dtype=np.float32)
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return Sequences(items, offsets, flat, ones, ones > 0)


def test_figures_worked_out_by_hand() -> None:
    """Scores 6, 5, 4, 3, 2, 1 for items 0 to 5.

    User 0 saw 0, 1 and then took 2: the best of what is left, rank 1. User 1 saw 1 and took 4: behind 0, 2, 3, rank 4.
    User 2 has one item and is left out. User 3 took 5 after 5, a repeat: behind all five others, rank 6.
    """
    seen: list[Tensor] = []

    def score(history: Tensor) -> Tensor:
        seen.append(history)
        return torch.tensor([6.0, 5, 4, 3, 2, 1]).expand(len(history), -1)

    figures = evaluate_next_item(score, sequences_of([[0, 1, 2], [1, 4], [3], [5, 5]], 6), k=4, length=2)
    assert (figures.users, figures.k) == (3, 4)
    assert figures.recall == pytest.approx(2 / 3)
    assert figures.ndcg == pytest.approx((1 + 1 / math.log2(5)) / 3)
    assert figures.reciprocal_rank == pytest.approx((1 + 1 / 4 + 1 / 6) / 3)
    assert torch.cat(seen).tolist() == [[0, 1], [6, 1], [6, 5]]


def test_equal_scores_count_by_row() -> None:
    figures = evaluate_next_item(lambda h: torch.zeros(len(h), 4), sequences_of([[0, 2]], 4))
    assert figures.reciprocal_rank == pytest.approx(1 / 2)


def test_nobody_with_two_items_is_an_error() -> None:
    with pytest.raises(PolicyError, match="two items"):
        evaluate_next_item(lambda h: torch.zeros(len(h), 4), sequences_of([[0], [1]], 4))


def test_without_last_shortens_the_chosen_users_only() -> None:
    shorter = without_last(sequences_of([[0, 1, 2], [3], [4, 5]], 6), np.array([0, 1]))
    assert [shorter.of(u)[0].tolist() for u in range(3)] == [[0, 1], [], [4, 5]]
