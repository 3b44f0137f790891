"""Leave-one-out figures, worked out by hand, and SASRec that learns the obvious."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recloop.agents import FitOptions
from recloop.agents.baselines.next_item import evaluate_next_item, without_last
from recloop.agents.baselines.sasrec import SASRec, SASRecConfig, _windows, train_sasrec
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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 5))
def test_windows_hold_every_item_once(lengths: list[int], length: int, seed: int) -> None:
    owner, first, size = _windows(np.array(lengths), length, np.random.default_rng(seed))
    assert size.min() >= 1
    assert size.max() <= length
    held = sorted((o, f + i) for o, f, s in zip(owner, first, size, strict=True) for i in range(s))
    assert held == [(user, place) for user, count in enumerate(lengths) for place in range(count)]


CONFIG = SASRecConfig(length=8, dim=16, blocks=1, epochs=20, batch_items=64, dropout=0.1, learning_rate=0.02)


def circles(users: int) -> Sequences:
    """Everyone goes round eight items from a start of their own; items 8 to 11 are never met."""
    rng = np.random.default_rng(0)
    return sequences_of([[(s + i) % 8 for i in range(n)] for s, n in rng.integers(3, 9, (users, 2))], 12)


def test_sasrec_learns_a_circle_and_repeats_to_the_bit() -> None:
    curves: dict[str, list[float]] = {}

    def log(tag: str, value: float, step: int) -> None:
        curves.setdefault(tag, []).append(value)

    log_circles, users = circles(60), np.arange(60)
    before = torch.random.get_rng_state()
    model = train_sasrec(log_circles, users, CONFIG, FitOptions(seed=1, log=log))
    again = train_sasrec(log_circles, users, CONFIG, FitOptions(seed=1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    history = torch.tensor([[12, 12, 12, 3, 4, 5], [12, 12, 12, 12, 12, 7]])
    with torch.no_grad():
        assert model.scores(history).argmax(1).tolist() == [6, 0]
    assert curves["sasrec/held_out_loss"][0] > min(curves["sasrec/held_out_loss"])
    assert len(curves["sasrec/loss"]) == len(curves["sasrec/learning_rate"]) <= CONFIG.epochs


def test_sasrec_reads_nothing_of_users_it_is_not_given() -> None:
    """A marker planted in the other users' behaviour changes no weight."""
    plain, users = circles(30), np.arange(20)
    marked = sequences_of([plain.of(u)[0].tolist() if u < 20 else [11, 10, 11] for u in range(30)], 12)
    config = SASRecConfig(length=8, dim=16, blocks=1, epochs=2, batch_items=64)
    models = [train_sasrec(log, users, config, FitOptions(seed=2)) for log in (plain, marked)]
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_empty_places_older_items_and_other_lanes_change_no_score() -> None:
    model = SASRec(12, SASRecConfig(length=3, dim=16), seed=1).eval()
    with torch.no_grad():
        wide = model.scores(torch.tensor([[9, 1, 2, 3], [12, 12, 12, 12], [12, 12, 4, 5]]))
        torch.testing.assert_close(wide[0:1], model.scores(torch.tensor([[1, 2, 3]])))
        torch.testing.assert_close(wide[1:2], model.scores(torch.tensor([[12]])))
        torch.testing.assert_close(wide[2:3], model.scores(torch.tensor([[4, 5]])))
    assert torch.isfinite(wide).all()


def test_training_on_nothing_is_an_error() -> None:
    with pytest.raises(PolicyError, match="consumed nothing"):
        train_sasrec(sequences_of([[], [1]], 3), np.array([0]))


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"dropout": 1.0}, {"epochs": 0}])
def test_sizes_that_do_not_fit_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(PolicyError, match=next(iter(wrong))):
        SASRecConfig(**wrong)  # type: ignore[arg-type]
