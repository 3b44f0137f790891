"""REINFORCE with top-K correction: weights and gradients by hand, and that it learns, from slates and from logs."""

import math

import pytest
import torch

from recloop.agents.learners.reinforce import ReinforceConfig
from recloop.agents.learners.top_k import Correction, log_share, top_k_factor
from recloop.encoders.errors import PolicyError

THETA = torch.tensor([0.3, -0.4, 0.9])
WORTH = torch.tensor([1.0, 3.0, -2.0])
BETA = torch.tensor([0.5, 0.2, 0.3])


def gradient(log_beta: torch.Tensor, shares: torch.Tensor, correction: Correction) -> torch.Tensor:
    """The expected descent where item a is logged with probability `shares[a]`: all items enumerated."""
    total = torch.zeros(3)
    for item in range(3):
        theta = THETA.clone().requires_grad_()
        log_pi = torch.log_softmax(theta, 0)[item : item + 1]
        there = torch.ones(1, dtype=torch.bool)
        correction.loss(log_pi, log_beta[item : item + 1], WORTH[item : item + 1], there).backward()
        total -= shares[item] * theta.grad
    return total


def exact(value: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    value.backward()
    return theta.grad


def test_lambda_k_by_hand():
    assert top_k_factor(torch.tensor([0.1, 0.5]), 1).tolist() == [1.0, 1.0]
    assert top_k_factor(torch.tensor([0.1, 0.5, 1.0]), 2).tolist() == pytest.approx([1.8, 1.0, 0.0])
    assert top_k_factor(torch.tensor([0.1]), 5).tolist() == pytest.approx([5 * 0.9**4])


def test_the_share_of_a_place_by_hand_and_at_the_ends():
    pi = torch.tensor([0.25, 1e-8, 1.0])
    found = log_share(pi.log(), 3).exp()
    assert found.tolist() == pytest.approx([(1 - 0.75**3) / 3, 1e-8, 1 / 3], rel=1e-4)
    assert torch.allclose(log_share(pi.log(), 1).exp(), pi, atol=1e-5)


def test_off_policy_the_gradient_is_that_of_acting_oneself():
    pi = torch.softmax(THETA, 0)
    off = gradient(BETA.log(), BETA, Correction(1, cap=100.0))
    on = gradient(pi.log(), pi, Correction(1, cap=100.0))
    theta = THETA.clone().requires_grad_()
    wanted = exact((torch.softmax(theta, 0) * WORTH).sum(), theta)
    assert torch.allclose(on, wanted, atol=1e-6)
    assert torch.allclose(off, wanted, atol=1e-6)


def test_with_top_k_it_is_that_of_the_chance_to_be_among_the_picks():
    off = gradient(BETA.log(), BETA, Correction(4, cap=100.0))
    theta = THETA.clone().requires_grad_()
    wanted = exact(((1 - (1 - torch.softmax(theta, 0)) ** 4) * WORTH).sum(), theta)
    assert torch.allclose(off, wanted, atol=1e-5)


def test_in_the_loop_too_where_places_hold_items_by_their_share():
    shares = log_share(torch.log_softmax(THETA, 0), 4).exp()
    on = gradient(shares.log(), shares, Correction(4, cap=100.0))
    theta = THETA.clone().requires_grad_()
    wanted = exact(((1 - (1 - torch.softmax(theta, 0)) ** 4) * WORTH).sum(), theta)
    assert torch.allclose(on, wanted, atol=1e-5)


def test_weights_are_capped_and_places_without_an_item_count_nothing():
    log_pi = torch.tensor([[0.5, 0.5, 0.5]]).log()
    log_beta = torch.tensor([[0.5, 0.01, math.e]]).log()
    there = torch.tensor([[True, True, False]])
    assert Correction(1, cap=3.0).weights(log_pi, log_beta, there).tolist() == [pytest.approx([1.0, 3.0, 0.0])]
    assert Correction(2, cap=3.0).weights(log_pi, log_beta, there).tolist() == [pytest.approx([1.0, 3.0, 0.0])]
    nis = Correction(1, cap=3.0, normalised=True).weights(log_pi, log_beta, there)
    assert nis.tolist() == [pytest.approx([0.5, 1.5, 0.0])], "1 on average over the two that are there"
    worth = torch.tensor([[2.0, 1.0, 99.0]])
    loss = Correction(1, cap=3.0).loss(log_pi, log_beta, worth, there)
    assert float(loss) == pytest.approx(-(1.0 * 2 + 3.0 * 1) * math.log(0.5) / 2)


def test_no_gradient_goes_through_the_weights():
    theta = THETA.clone().requires_grad_()
    log_pi = torch.log_softmax(theta, 0)
    assert not Correction(3).weights(log_pi, BETA.log(), torch.ones(3, dtype=torch.bool)).requires_grad


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"credit": "items"}, "credit='items'; choose 'item' or 'slate'"),
        ({"epochs": 0}, "epochs=0; it must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict, told: str):
    with pytest.raises(PolicyError, match=told):
        ReinforceConfig(**settings)


def test_bad_corrections_are_refused():
    with pytest.raises(PolicyError, match="cap=0; importance weights need a limit above 0"):
        Correction(cap=0)
    with pytest.raises(PolicyError, match="places=0; a slate has at least 1"):
        Correction(places=0)
