"""Behaviour cloning: the policy that wrote a log, as far as the log tells."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from recloop.agents.learners.logged.batches import LoggedBatch
from recloop.agents.learners.logged.learner import LoggedConfig, LoggedLearner
from recloop.agents.networks.heads import Actor, make_actor
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.slates import FORBIDDEN, pick_log_probs


@dataclass(frozen=True)
class CloningConfig(LoggedConfig):
    """Behaviour cloning; see `BehaviourCloning`.

    Args:
        draws: whether slates are drawn as the log's were; otherwise the most likely one is shown.
    """

    draws: bool = True


class BehaviourCloning(LoggedLearner):
    """Maximum likelihood of logged slates, each drawn in order from a Plackett-Luce of the candidates' scores.

    The logged items are among the candidates while it learns; the policy chooses among C retrieved ones.
    """

    name: ClassVar[str] = "bc"
    config_class: ClassVar[type[LoggedConfig]] = CloningConfig
    config: CloningConfig
    networks: Actor

    def __init__(self, *made_with: Any) -> None:
        super().__init__(*made_with)
        self.networks = make_actor("candidates", self.tables, self.world.spec(), self.config.network)

    def loss(self, batch: LoggedBatch) -> dict[str, Tensor]:
        """Minus the mean log-likelihood of a logged place, in nats."""
        logs = place_log_probs(self.networks(batch.observation), batch)
        return {"train/loss": -logs.sum() / batch.counted.sum().clamp_min(1)}

    def policy(self) -> ActorPolicy:
        """Of the weights as they are now."""
        return self.actor_policy(self.networks, stochastic=self.config.draws)


def place_log_probs(scores: Tensor, batch: LoggedBatch) -> Tensor:
    """Log-probability (M, K) of each logged place, by scores (M, C), as the pick after those above it; 0 where the item
    is no candidate. Candidates that may not be picked score `FORBIDDEN`."""
    mask = scores > FORBIDDEN / 2
    positions = batch.positions.masked_fill(~batch.counted, scores.shape[1])
    return pick_log_probs(F.pad(scores, (0, 1)), F.pad(mask, (0, 1)), positions)
