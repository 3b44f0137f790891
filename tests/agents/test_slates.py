"""Slates from scores: masks, ties, and Plackett-Luce against enumeration."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.agents.slates import FORBIDDEN, best_slate, pick_log_probs, sample_slate, slate_log_prob
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.randomness import Draw

SCORES = [0.5, -1.0, 2.0, 0.0]


def draws(lanes: int, seed: int = 0) -> Draw:
    lane = torch.arange(lanes)
    return Draw.at(seed, lane, torch.zeros_like(lane), torch.zeros_like(lane))


def plackett_luce(scores: list[float], slate: tuple[int, ...], allowed: set[int]) -> float:
    """The definition, term by term."""
    left, total = set(allowed), 0.0
    for item in slate:
        total += scores[item] - math.log(sum(math.exp(scores[i]) for i in left))
        left.remove(item)
    return total


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=9), st.integers(1, 11))
def test_the_best_slate_is_the_start_of_a_stable_sort(items: list[tuple[int, bool]], k: int) -> None:
    scores = torch.tensor([[float(score) / 3 for score, _ in items]])
    mask = torch.tensor([[allowed for _, allowed in items]])
    wanted = sorted((row for row, (_, ok) in enumerate(items) if ok), key=lambda row: (-items[row][0], row))[:k]
    wanted += [len(items)] * (k - len(wanted))
    assert best_slate(scores, mask, k).tolist() == [wanted]


def test_infinite_and_negative_zero_scores_keep_their_order() -> None:
    scores = torch.tensor([[-0.0, 0.0, -torch.inf, torch.inf, -1e-30]])
    assert best_slate(scores, torch.ones(1, 5, dtype=torch.bool), 5).tolist() == [[3, 0, 1, 4, 2]]


def test_no_items_a_slate_is_an_error() -> None:
    with pytest.raises(PolicyError, match="k=0"):
        best_slate(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), 0)


def test_each_pick_is_from_what_the_places_above_left() -> None:
    scores = torch.tensor([[1.0, 0.0, 2.0, 9.0], [0.5, 0.5, FORBIDDEN, FORBIDDEN]])
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    found = pick_log_probs(scores, mask, torch.tensor([[2, 0], [0, 3]]))
    e = math.e
    assert found[0].exp().tolist() == pytest.approx([e**2 / (e**2 + e + 1), e / (e + 1)], rel=1e-5)
    assert found[1].tolist() == [0.0, 0.0], "the only one is certain, and what fills up counts nothing"


@pytest.mark.parametrize("allowed", [{0, 1, 2, 3}, {0, 2, 3}])
def test_log_probabilities_are_those_of_the_definition_and_sum_to_one(allowed: set[int]) -> None:
    mask = torch.tensor([[i in allowed for i in range(4)]])
    slates = list(itertools.permutations(sorted(allowed), 2))
    rows = len(slates)
    got = slate_log_prob(torch.tensor([SCORES]).expand(rows, -1), mask.expand(rows, -1), torch.tensor(slates))
    wanted = torch.tensor([plackett_luce(SCORES, slate, allowed) for slate in slates])
    torch.testing.assert_close(got, wanted)
    assert float(got.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_slates_are_drawn_as_often_as_their_log_probability_says() -> None:
    lanes = 20_000
    mask = torch.tensor([[True, True, False, True]])
    slates = sample_slate(torch.tensor([SCORES]).expand(lanes, -1), mask.expand(lanes, -1), 2, draws(lanes))
    for slate in itertools.permutations([0, 1, 3], 2):
        share = float((slates == torch.tensor(slate)).all(1).double().mean())
        wanted = math.exp(plackett_luce(SCORES, slate, {0, 1, 3}))
        assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / lanes)


def test_a_slate_longer_than_what_is_left_ends_in_empty_places_and_has_a_probability() -> None:
    scores, mask = torch.tensor([SCORES]), torch.tensor([[True, False, True, False]])
    slate = sample_slate(scores, mask, 3, draws(1))
    assert slate[0, 2] == 4
    assert set(slate[0, :2].tolist()) == {0, 2}
    assert float(slate_log_prob(scores, mask, slate)) == pytest.approx(
        plackett_luce(SCORES, tuple(slate[0, :2].tolist()), {0, 2})
    )


@pytest.mark.parametrize("slate", [[0, 0], [0, 1], [0, 4], [4, 0]])
def test_slates_that_are_never_drawn_have_probability_zero(slate: list[int]) -> None:
    mask = torch.tensor([[True, False, True, True]])
    assert float(slate_log_prob(torch.tensor([SCORES]), mask, torch.tensor([slate]))) == -math.inf


def test_gradients_are_finite_where_every_admissible_item_is_shown() -> None:
    scores = torch.tensor([SCORES], requires_grad=True)
    mask = torch.tensor([[True, False, True, False]])
    slate_log_prob(scores, mask, torch.tensor([[2, 0]])).sum().backward()
    share = math.exp(0.5) / (math.exp(0.5) + math.exp(2.0))
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([[-share, 0.0, share, 0.0]]))


def test_a_lane_draws_the_same_alone_as_among_others() -> None:
    scores, mask = torch.zeros(50, 30), torch.ones(50, 30, dtype=torch.bool)
    many = sample_slate(scores, mask, 5, draws(50))
    alone = sample_slate(scores[:1], mask[:1], 5, Draw(draws(50).key[17:18]))
    assert many[17].tolist() == alone[0].tolist()
