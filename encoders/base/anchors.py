"""Elastic weight consolidation: weights that mattered for what was learned before are held, the others move freely."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from recloop.encoders.base.errors import RecloopError

Example = TypeVar("Example")


@dataclass(frozen=True)
class Anchor:
    """Where weights stood, and how much it costs to move each (Kirkpatrick et al. 2017).

    The penalty is strength / 2 x sum F_i (w_i - w*_i)^2, with F the diagonal of the Fisher information. Differences:
    the information is empirical (gradients at what was observed, not at draws of the model), and one anchor stands for
    all that was before: `with_older` adds the information of earlier ones up, as in the online form of Schwarz et al.
    (2018), and moves the centre to where the weights stand now.

    Args:
        weights: by name, where they stood.
        information: by name, of the same shapes, not negative.
        strength: how hard they are held; 0 holds nothing; at infinity a fit moves nothing.
    """

    weights: Mapping[str, Tensor]
    information: Mapping[str, Tensor]
    strength: float

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise RecloopError(f"strength={self.strength} of an anchor must be at least 0")

    def penalty(self, model: nn.Module) -> Tensor:
        """What the weights' distance costs: a scalar to be added to a loss. Of a finite strength."""
        held = dict(model.named_parameters())
        parts = [(f * (held[name] - self.weights[name]).square()).sum() for name, f in self.information.items()]
        return 0.5 * self.strength * torch.stack(parts).sum()

    def with_older(self, older: Anchor | None) -> Anchor:
        """This anchor with the information of an older one added; itself without one."""
        if older is None:
            return self
        summed = {name: f + older.information[name] for name, f in self.information.items()}
        return Anchor(self.weights, summed, self.strength)


def anchor_of(
    model: nn.Module,
    examples: Iterable[Example],
    log_likelihood: Callable[[Example], Tensor],
    strength: float,
) -> Anchor:
    """Hold a model where it stands.

    Args:
        model: whose parameters are held.
        examples: what was learned from, one at a time: squares of summed gradients are no sum of squares.
        log_likelihood: of an example, a scalar, differentiable.
        strength: see `Anchor`.

    Raises:
        RecloopError: no example at all.
    """
    named = dict(model.named_parameters())
    information = {name: torch.zeros_like(weight) for name, weight in named.items()}
    count = 0
    for example in examples:
        gradients = torch.autograd.grad(log_likelihood(example), list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            if gradient is not None:
                information[name] += gradient.detach().square()
        count += 1
    if not count:
        raise RecloopError("nothing to take the Fisher information from; give at least one example")
    weights = {name: weight.detach().clone() for name, weight in named.items()}
    return Anchor(weights, {name: value / count for name, value in information.items()}, strength)
