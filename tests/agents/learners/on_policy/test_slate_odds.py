"""The written-down gradient against autograd through the plain formulas."""

import pytest
import torch

from recloop.agents.learners.on_policy.slate_odds import slate_odds
from recloop.agents.slates import FORBIDDEN, first_pick_entropy, log_prob


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("admissible", [12, 5, 3, 0])
def test_values_and_gradients_are_those_of_the_plain_formulas(scale: float, admissible: int) -> None:
    """12 candidates of which some may be picked, slates of 5; with few left, the end of a slate counts nothing."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(6, 12, dtype=torch.bool)
    for row in range(6):
        mask[row, torch.randperm(12, generator=generator)[:admissible]] = True
    raw = torch.randn(6, 12, generator=generator) * scale
    noise = torch.rand(6, 12, generator=generator) * 3 * scale
    positions = (raw + noise).masked_fill(~mask, FORBIDDEN).topk(5, dim=1).indices
    weights = torch.randn(2, 6, generator=generator)
    found, wanted = [], []
    for results, plain in ((found, False), (wanted, True)):
        leaf = raw.clone().double().requires_grad_() if plain else raw.clone().requires_grad_()
        scores = leaf.masked_fill(~mask, FORBIDDEN)
        pair = (
            (log_prob(scores, mask, positions), first_pick_entropy(scores, mask))
            if plain
            else slate_odds(scores, positions)
        )
        (pair[0] * weights[0] + pair[1] * weights[1]).sum().backward()
        results += [pair[0].detach(), pair[1].detach(), leaf.grad]
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-4, atol=1e-4 * scale)


def test_one_candidate_is_certain() -> None:
    scores = torch.tensor([[2.0, FORBIDDEN]], requires_grad=True)
    likely, entropy = slate_odds(scores, torch.tensor([[0, 1]]))
    assert likely.tolist() == [0.0]
    assert entropy.tolist() == [0.0]
    (likely + entropy).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0.0, 0.0]]
