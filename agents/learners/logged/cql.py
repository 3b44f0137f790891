"""Values of items from logged steps, and conservative Q-learning on them."""

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.learners.logged.batches import LoggedBatch
from recloop.agents.learners.logged.learner import LoggedConfig, LoggedLearner
from recloop.agents.learners.off_policy.critics import follow
from recloop.agents.learners.off_policy.double_dqn import PlaceValues
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.networks.heads import make_actor
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.slates import FORBIDDEN, sample
from recloop.encoders.base.errors import PolicyError


@dataclass(frozen=True)
class LoggedValueConfig(LoggedConfig):
    """What learners of item values from logs share.

    Args:
        tau: what the target network takes of the online one after each gradient step, in (0, 1].
        network: sizes, and a prior that is small beside values learned.
    """

    tau: float = 0.02
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(prior=0.3))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau <= 1:
            raise PolicyError(f"tau={self.tau}; it must lie in (0, 1]")


@dataclass(frozen=True)
class Valued:
    """What the online network holds of a batch, in units of the log's spread.

    Args:
        q: float32 (M, C) of every candidate; `FORBIDDEN` where there is none. Of `own` no gradient is in it.
        logged: float32 (M, K) of the logged items; 0 where not counted.
        own: float32 (M, K) what these earn by their own signals.
    """

    q: Tensor
    logged: Tensor
    own: Tensor


class LoggedValues(LoggedLearner):
    """Q(s, A) as the sum of q(s, i) over a slate, as in `DoubleDQN`, fitted to logged steps.

    What a place earns by its own signals has a head of its own, fitted to that alone; the rest takes up what that
    leaves of reward + discount x value of the next step. An episode's last step has no next, whatever ended it.
    """

    config: LoggedValueConfig

    def __init__(self, *made_with: Any) -> None:
        super().__init__(*made_with)
        self.online = PlaceValues(make_actor("split-candidates", self.tables, self.world.spec(), self.config.network))
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.networks = nn.ModuleDict({"online": self.online, "target": self.target})

    def follow(self) -> None:
        """Polyak averaging."""
        follow(self.target, self.online, self.config.tau)

    def valued(self, batch: LoggedBatch) -> Valued:
        """The online network's values of a batch."""
        look = self.online.look(batch.observation)
        own, rest = self.online.parts(look)
        q = (own.detach() + rest).masked_fill(~look.mask, FORBIDDEN)
        return Valued(
            q,
            q.gather(1, batch.positions).masked_fill(~batch.counted, 0.0),
            own.gather(1, batch.positions),
        )

    @torch.no_grad()
    def held_by_target(self, batch: LoggedBatch) -> Tensor:
        """What the target network holds of every candidate, float32 (M, C); no mask."""
        own, rest = self.target.parts(self.target.look(batch.observation))
        return own + rest

    def misses(self, batch: LoggedBatch, valued: Valued, later: Tensor) -> dict[str, Tensor]:
        """How far values are off, by tag, where the next steps (M,) are worth `later`."""
        scale, counted = self.steps.spread, batch.counted
        target = batch.reward / scale + self.config.gamma * later * batch.goes_on
        earned = F.smooth_l1_loss(valued.own, batch.own / scale, reduction="none") * counted
        q = valued.logged.sum(1)
        return {
            "train/q_loss": F.smooth_l1_loss(q, target),
            "train/own_loss": earned.sum() / counted.sum().clamp_min(1),
            "train/q": q.mean(),
        }


@dataclass(frozen=True)
class CQLConfig(LoggedValueConfig):
    """Conservative Q-learning; see `CQL`.

    Args:
        alpha: weight of the conservative term; 0 is Double DQN on logged steps, which overvalues what was never shown.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0:
            raise PolicyError(f"alpha={self.alpha}; it must be 0 or more")


class CQL(LoggedValues):
    """Conservative Q-learning, CQL(H) (Kumar, Zhou, Tucker and Levine, NeurIPS 2020), on slates.

    To the loss of Double DQN is added alpha x mean over logged places of log sum over candidates of exp q(s, i) minus
    q(s, logged item): what was not shown is pushed down until its worth shows. Differences: a slate is worth the sum
    over its places (`LoggedValues`), and the term stands place by place over the candidates; the target's next slate is
    the K best of the online network; rewards are divided by the spread of what logged places brought.
    """

    name: ClassVar[str] = "cql"
    paper: ClassVar[str] = "Kumar et al. 2020"
    config_class: ClassVar[type[LoggedConfig]] = CQLConfig
    config: CQLConfig

    def loss(self, batch: LoggedBatch) -> dict[str, Tensor]:
        """See the class."""
        valued = self.valued(batch)
        tags = self.misses(batch, valued, self._later(self.steps.after(batch)))
        over = (valued.q.logsumexp(1, keepdim=True) - valued.logged) * batch.counted
        tags["train/conservative_loss"] = over.sum() / batch.counted.sum().clamp_min(1)
        missed = tags["train/q_loss"] + tags["train/own_loss"]
        return {**tags, "train/loss": missed + self.config.alpha * tags["train/conservative_loss"]}

    def policy(self) -> ActorPolicy:
        """The K candidates of highest q."""
        return self.actor_policy(self.online.actor, "split-candidates")

    @torch.no_grad()
    def _later(self, after: LoggedBatch) -> Tensor:
        """What the target network holds of the online network's best slate, (M,)."""
        look = self.online.look(after.observation)
        best = sample(self.online(look)[1], look.mask, self.world.slate_size)
        return (self.held_by_target(after) * look.mask).gather(1, best).sum(1)
