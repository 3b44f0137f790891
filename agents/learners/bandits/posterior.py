"""Bayesian linear regression of rewards on features, for all lanes in one or for each lane by itself."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from recloop.encoders.base.tensor_struct import TensorStruct


class Belief(NamedTuple):
    """What a posterior says of the weights, for G groups of lanes.

    Args:
        mean: float64 (G, D).
        root: float64 (G, D, D), the lower Cholesky factor of the precision.
        noise: float64 (G,), standard deviation of a reward around its mean.
    """

    mean: Tensor
    root: Tensor
    noise: Tensor

    def expected(self, x: Tensor) -> Tensor:
        """What features (B, C, D) are expected to earn, float32 (B, C)."""
        return (x @ self.mean.float().unsqueeze(2))[..., 0]

    def spread(self, x: Tensor) -> Tensor:
        """Standard deviation of `expected`, float32 (B, C)."""
        covariance = torch.cholesky_inverse(self.root).float()  # (G, D, D)
        variance = ((x @ covariance) * x).sum(2).clamp_min(0)
        return variance.sqrt() * self.noise.float().unsqueeze(1)

    def drawn(self, normal: Tensor, width: float) -> Tensor:
        """Weights (B, D) around the mean, as far as standard normal draws (B, D) and `width` say."""
        groups = len(self.mean)
        turned = normal.double().reshape(groups, -1, normal.shape[1]).transpose(1, 2)  # (G, D, B / G)
        away = torch.linalg.solve_triangular(self.root.transpose(1, 2), turned, upper=True).transpose(1, 2)
        weights: Tensor = self.mean.unsqueeze(1) + width * self.noise[:, None, None] * away
        return weights.reshape(normal.shape).float()


@dataclass(frozen=True)
class RidgePosterior(TensorStruct):
    """Sums over what was shown so far, of G groups: 1 for all lanes together, or B, a lane each.

    The weights are normal around the ridge regression given the noise, whose variance has an inverse gamma prior that
    counts as one reward of squared miss 1 (as in Riquelme et al. 2018). So the belief follows the unit of the rewards,
    and where rewards never vary it soon has no doubt left.

    Args:
        precision: float64 (G, D, D), ridge x identity plus the sum of x x'.
        moment: float64 (G, D), the sum of x r.
        squares: float64 (G,), the sum of r r.
        count: float64 (G,), how many.
    """

    precision: Tensor
    moment: Tensor
    squares: Tensor
    count: Tensor

    @classmethod
    def prior(cls, size: int, ridge: float, device: torch.device | str = "cpu") -> Self:
        """Of one group that was shown nothing yet."""
        zeros = torch.zeros(1, size + 2, dtype=torch.float64, device=device)
        precision = ridge * torch.eye(size, dtype=torch.float64, device=device).unsqueeze(0)
        return cls(precision, zeros[:, :size], zeros[:, -2], zeros[:, -1])

    def for_each(self, lanes: int) -> Self:
        """One group's sums for every lane, to go on from by itself."""
        return self.rows(torch.zeros(lanes, dtype=torch.int64, device=self.count.device))

    def told(self, x: Tensor, reward: Tensor, weight: Tensor) -> Self:
        """With what B lanes were shown besides.

        Args:
            x: (B, K, D) features.
            reward: (B, K).
            weight: (B, K) how often each counts, 0 for not at all.
        """
        groups = len(self.count)
        w = weight.double().reshape(groups, -1)  # (G, B K / G)
        r = reward.double().reshape(groups, -1)
        rows = x.double().reshape(groups, -1, x.shape[2])
        weighed = rows * w.unsqueeze(2)
        return type(self)(
            self.precision + weighed.transpose(1, 2) @ rows,
            self.moment + (weighed * r.unsqueeze(2)).sum(1),
            self.squares + (w * r * r).sum(1),
            self.count + w.sum(1),
        )

    def belief(self) -> Belief:
        """What follows; waits for no device."""
        root = torch.linalg.cholesky_ex(self.precision)[0]
        mean = torch.cholesky_solve(self.moment.unsqueeze(2), root)[..., 0]
        missed = (self.squares - (mean * self.moment).sum(1)).clamp_min(0)
        return Belief(mean, root, ((1 + missed) / (1 + self.count)).sqrt())
