"""The loss of REINFORCE with top-K off-policy correction, over single items of slates that somebody else drew."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.encoders.base.errors import PolicyError


@dataclass(frozen=True)
class Correction:
    """How items that another policy chose are weighed (Chen et al., WSDM 2019).

    An item a that the behaviour policy chose with probability beta counts min(pi / beta, cap) x lambda_K(pi), with pi
    the softmax policy's probability of a as a single pick.

    Args:
        places: K; lambda_K = K (1 - pi)^(K-1) turns the gradient of the single pick's value into that of the chance
            1 - (1 - pi)^K of being among K picks with replacement. 1 for none of it.
        cap: largest pi / beta.
        normalised: divide by the mean weight of the batch (the paper's NIS), so that weights are 1 on average.
    """

    places: int = 1
    cap: float = 10.0
    normalised: bool = False

    def __post_init__(self) -> None:
        if self.places < 1:
            raise PolicyError(f"places={self.places}; a slate has at least 1")
        if not self.cap > 0:
            raise PolicyError(f"cap={self.cap}; importance weights need a limit above 0")

    def weights(self, log_pi: Tensor, log_beta: Tensor, counted: Tensor) -> Tensor:
        """Weights of items by their log-probabilities; `counted` says which are there. Of one shape, no gradient."""
        log_pi = log_pi.detach()
        ratio = (log_pi - log_beta).masked_fill(~counted, -torch.inf).exp().clamp(max=self.cap)
        if self.normalised:
            ratio = ratio * counted.sum() / ratio.sum().clamp_min(1e-6)
        return ratio * top_k_factor(log_pi.exp(), self.places)

    def loss(self, log_pi: Tensor, log_beta: Tensor, worth: Tensor, counted: Tensor) -> Tensor:
        """Minus the mean over counted items of weight x worth x log pi; its gradient is the policy gradient's.

        Args:
            log_pi: float32 (...) of the policy that learns, as a single pick.
            log_beta: float32 (...) of the policy that chose: that a place of its slate holds this item.
            worth: float32 (...) what choosing the item brought, a baseline taken off.
            counted: bool (...); elsewhere the others may hold anything finite.
        """
        weighed = self.weights(log_pi, log_beta, counted) * worth * log_pi.masked_fill(~counted, 0.0)
        return -weighed.sum() / counted.sum().clamp_min(1)


def top_k_factor(pi: Tensor, places: int) -> Tensor:
    """lambda_K = K (1 - pi)^(K-1), the derivative of 1 - (1 - pi)^K.

    >>> top_k_factor(torch.tensor([0.0, 0.5, 1.0]), 3).tolist()
    [3.0, 0.75, 0.0]
    """
    return places * (1 - pi).clamp_min(0).pow(places - 1)
