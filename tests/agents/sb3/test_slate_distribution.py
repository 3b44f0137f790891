"""Plackett-Luce as SB3 sees it, against every slate of four candidates written out."""

from itertools import permutations

import pytest
import torch

from recloop.agents.sb3.distribution import PlackettLuceDistribution
from recloop.agents.slates import FORBIDDEN

SCORES = torch.tensor([[0.5, -1.0, 2.0, 0.0]])


def by_hand(scores: list[float], slate: tuple[int, ...]) -> float:
    """The product of softmax probabilities over what is left."""
    weights = torch.tensor(scores, dtype=torch.float64).exp()
    left, chance = set(range(len(scores))), 1.0
    for pick in slate:
        chance *= float(weights[pick] / weights[sorted(left)].sum())
        left.remove(pick)
    return chance


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_log_prob_is_exact_for_every_ordered_slate(size: int) -> None:
    slates = list(permutations(range(4), size))
    distribution = PlackettLuceDistribution(size).proba_distribution(SCORES.expand(len(slates), -1))
    found = distribution.log_prob(torch.tensor(slates)).exp()
    expected = [by_hand(SCORES[0].tolist(), slate) for slate in slates]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-5)


def test_a_masked_candidate_is_never_drawn_and_takes_no_probability() -> None:
    scores = SCORES.clone()
    scores[0, 2] = FORBIDDEN
    distribution = PlackettLuceDistribution(2).proba_distribution(scores.expand(500, -1))
    torch.manual_seed(0)
    assert 2 not in distribution.sample()
    found = float(distribution.log_prob(torch.tensor([[0, 3]]).expand(500, -1))[0].exp())
    assert found == pytest.approx(by_hand([0.5, -1.0, 0.0], (0, 2)), abs=1e-6)


def test_samples_do_not_repeat_and_come_as_often_as_their_probability_says() -> None:
    torch.manual_seed(0)
    distribution = PlackettLuceDistribution(2).proba_distribution(SCORES.expand(20_000, -1))
    slates = distribution.sample()
    assert bool((slates[:, 0] != slates[:, 1]).all())
    for slate in permutations(range(4), 2):
        share = float((slates == torch.tensor(slate)).all(1).float().mean())
        assert share == pytest.approx(by_hand(SCORES[0].tolist(), slate), abs=0.012), slate


def test_mode_is_the_best_slate_and_the_likeliest() -> None:
    distribution = PlackettLuceDistribution(2).proba_distribution(SCORES)
    assert distribution.mode().tolist() == [[2, 0]]


def test_entropy_is_that_of_the_first_pick() -> None:
    distribution = PlackettLuceDistribution(3).proba_distribution(SCORES)
    p = SCORES.softmax(1)
    assert float(distribution.entropy()) == pytest.approx(float(-(p * p.log()).sum()), abs=1e-6)


def test_gradients_are_finite_where_candidates_are_masked_and_the_slate_is_padded() -> None:
    scores = torch.tensor([[1.0, 2.0, FORBIDDEN, FORBIDDEN]], requires_grad=True)
    distribution = PlackettLuceDistribution(3).proba_distribution(scores)
    slate = distribution.mode()
    (distribution.log_prob(slate).sum() + distribution.entropy().sum()).backward()
    assert scores.grad is not None
    assert bool(torch.isfinite(scores.grad).all())
    expected = torch.log_softmax(torch.tensor([1.0, 2.0]), 0)[1]
    assert float(distribution.log_prob(slate).detach()) == pytest.approx(float(expected), abs=1e-6)
