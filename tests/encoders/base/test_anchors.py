"""Elastic weight consolidation by hand, and what it does to a fit."""

import math

import pytest
import torch
from torch import Tensor, nn

from recloop.encoders.base.anchors import Anchor, anchor_of
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.fit import FitLoop, fit


def line() -> nn.Linear:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    return model


def test_information_and_penalty_by_hand() -> None:
    """log-likelihood w . x: its gradient is x, so the information is the mean of x squared."""
    model = line()
    anchor = anchor_of(model, torch.tensor([[1.0, 0.0], [3.0, 2.0]]), lambda x: model(x).sum(), strength=2.0)
    assert anchor.information["weight"].tolist() == [[5.0, 2.0]]
    assert float(anchor.penalty(model).detach()) == 0.0
    with torch.no_grad():
        model.weight += torch.tensor([[1.0, 3.0]])
    assert float(anchor.penalty(model).detach()) == 0.5 * 2 * (5 * 1 + 2 * 9)
    older = Anchor({"weight": torch.zeros(1, 2)}, {"weight": torch.ones(1, 2)}, 9.0)
    both = anchor.with_older(older)
    assert both.information["weight"].tolist() == [[6.0, 3.0]]
    assert both.weights["weight"].tolist() == [[1.0, 2.0]]
    assert both.strength == 2.0
    assert anchor.with_older(None) is anchor


@pytest.mark.parametrize("strength", [0.0, 1.0, 100.0])
def test_a_fit_stays_where_it_costs(strength: float) -> None:
    """(w - 3)^2 / 2 and strength / 2 x (w - 1)^2 meet at (3 + strength) / (1 + strength); the free go all the way."""
    model = line()
    anchor = Anchor({"weight": torch.tensor([[1.0, 0.0]])}, {"weight": torch.tensor([[1.0, 0.0]])}, strength)

    def loss(batch: Tensor) -> tuple[Tensor, float]:
        return 0.5 * (model.weight - 3).square().sum() + anchor.penalty(model), 1.0

    fit(model, FitLoop(400, 0.05, "adam", schedule="cosine"), lambda: [torch.zeros(1)], loss)
    assert model.weight[0, 0].item() == pytest.approx((3 + strength) / (1 + strength), abs=0.01)
    assert model.weight[0, 1].item() == pytest.approx(3.0, abs=0.01)


def test_nothing_to_anchor_by_is_refused() -> None:
    model = line()
    with pytest.raises(RecloopError, match="nothing to take the Fisher information from"):
        anchor_of(model, [], lambda x: model(x).sum(), 1.0)
    with pytest.raises(RecloopError, match="strength=-1 of an anchor must be at least 0"):
        Anchor({}, {}, -1)
    with pytest.raises(RecloopError, match="strength=nan"):
        Anchor({}, {}, math.nan)
