"""Slates without repeats as a distribution of Stable-Baselines3."""

from typing import Any, Self

import torch
from stable_baselines3.common.distributions import Distribution
from torch import Tensor, nn

from recloop.agents.slates import FORBIDDEN, first_pick_entropy, log_prob, sample


class PlackettLuceDistribution(Distribution):
    """Distribution over slates (B, K) of positions into C candidates, without repeats.

    SB3 samples each place of a `MultiDiscrete` action by itself, and so repeats items. This draws by Gumbel top-k.
    Noise comes from torch's global generator, as everywhere in SB3; `training` gives it back as it was.

    Args:
        slate_size: K.

    Entropy is that of the *first pick*, (B,): exact and cheap. The slate's own entropy has no closed form; for
    scores that change slowly from pick to pick it is about K times this. `distribution` is that of the first pick too,
    and so is the divergence that TRPO keeps within its bounds.
    """

    def __init__(self, slate_size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slate_size = slate_size

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Not used: the scores come from a `CandidateHead`."""
        raise NotImplementedError("scores come from recloop.agents.networks.heads.CandidateHead")

    def proba_distribution(self, scores: Tensor) -> Self:
        """Scores (B, C); inadmissible candidates score `FORBIDDEN`."""
        self.scores = scores
        self.distribution = torch.distributions.Categorical(logits=scores)
        self.mask = scores > FORBIDDEN / 2
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Exact log-probability (B,) of ordered slates (B, K)."""
        return log_prob(self.scores, self.mask, actions.long())

    def entropy(self) -> Tensor:
        return first_pick_entropy(self.scores, self.mask)

    def sample(self) -> Tensor:
        uniform = torch.rand_like(self.scores).clamp_min(1e-20)
        return sample(self.scores, self.mask, self.slate_size, -torch.log(-torch.log(uniform)))

    def mode(self) -> Tensor:
        """The most likely slate: the K best candidates, best first."""
        return sample(self.scores, self.mask, self.slate_size)

    def actions_from_params(self, scores: Tensor, deterministic: bool = False) -> Tensor:
        return self.proba_distribution(scores).get_actions(deterministic)

    def log_prob_from_params(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        actions = self.actions_from_params(scores)
        return actions, self.log_prob(actions)
