"""Hyper-actor critic: a hyper-action in a latent space, the slate it leads to, and one critic for both."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.configs import AgentConfig
from recloop.agents.learners.contract import ActionSample, Step, Task
from recloop.agents.learners.off_policy.critics import ItemFeatures, PointCritic, head_of
from recloop.agents.learners.off_policy.proto import ProtoConfig, ProtoLearner, ProtoNetworks, ProtoPolicy, noise_at
from recloop.agents.learners.off_policy.replay import Replayed
from recloop.agents.networks.features import ItemTables
from recloop.agents.networks.heads import ProtoHead, make_actor
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw


@dataclass(frozen=True)
class HACConfig(ProtoConfig):
    """Hyper-actor critic; a critic that is followed too soon leads a good start astray.

    Args:
        noise: length of the exploring noise on hyper-actions, which are about 1 long at first.
        alignment: weight of the squared distance between a hyper-action and the one inferred from its slate.
        supervision: weight of the log-loss of which shown items were consumed.
    """

    actor_starts: int = 300
    noise: float = 0.5
    alignment: float = 0.2
    supervision: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("noise", "alignment", "supervision"):
            if getattr(self, name) < 0:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 0")


class HACNetworks(ProtoNetworks):
    """A proto actor that gives hyper-actions, a linear kernel of items that starts as the identity, and a critic.

    An item's score is the inner product of the hyper-action with its kernel; the hyper-action inferred from a slate
    is the mean of its items' kernels (the paper's inverse pooling). Only the direction of a hyper-action decides which
    slate is shown, so hyper-actions, drawn and inferred, are valued at length 1.
    """

    def _build(self, tables: ItemTables, spec: ObservationSpec, config: HACConfig) -> None:
        self.actor = make_actor("proto", tables, spec, config.network)
        self.kernel = nn.Linear(tables.dim, tables.dim, bias=False)
        nn.init.eye_(self.kernel.weight)
        self.odds_gain = config.network.shared_gain
        self.odds = nn.Parameter(torch.tensor([0.5, -1.0]) / self.odds_gain)  # slope before softplus, level of log-odds
        self.critic = PointCritic(tables, spec, config.network)

    def hyper_action(self, known: ItemFeatures) -> Tensor:
        """(B, d), of about length 1 at first."""
        head = self.actor.head
        assert isinstance(head, ProtoHead)
        action: Tensor = head_of(self.actor, known) / head.length
        return action

    def direction(self, known: ItemFeatures) -> Tensor:
        """(B, d) in item space: its inner products with items are the hyper-action's with their kernels."""
        return self.in_item_space(self.hyper_action(known))

    def in_item_space(self, hyper_action: Tensor) -> Tensor:
        """Z · kernel(v) = (Z W) · v."""
        direction: Tensor = hyper_action @ self.kernel.weight
        return direction

    def inferred(self, slate: Tensor) -> Tensor:
        """The hyper-action (B, d) that a slate (B, K) speaks of."""
        mean = (self.shares(slate).unsqueeze(1) @ self.vectors(slate))[:, 0]
        inferred: Tensor = self.kernel(mean)
        return inferred

    def log_odds(self, hyper_action: Tensor, slate: Tensor) -> Tensor:
        """Of consuming each item of a slate: (B, K)."""
        scores = (self.vectors(slate) @ self.in_item_space(hyper_action).unsqueeze(2))[..., 0]
        slope, level = self.odds_gain * self.odds
        log_odds: Tensor = F.softplus(slope) * scores + level
        return log_odds

    def value(self, known: ItemFeatures, hyper_action: Tensor) -> Tensor:
        """(B,) of hyper-actions (B, d), an actor's or inferred ones, by their directions."""
        value: Tensor = self.critic(known, F.normalize(hyper_action, dim=1).unsqueeze(1))[0, :, 0]
        return value


class HACPolicy(ProtoPolicy):
    """Shows the k items of highest score under the hyper-action."""

    kind = "hac"
    networks_class = HACNetworks
    config_class = HACConfig


class HAC(ProtoLearner):
    """Hyper-actor critic (Liu et al., WWW 2023: Exploration and Regularization of the Latent Action Space).

    Its four losses: the critic's temporal difference on the hyper-actions drawn and on those inferred from the slates
    shown; the actor's ascent of the same critic at its hyper-action; the distance between that and the hyper-action
    inferred from the slate it leads to; and the log-loss of the consumed items under the scores. Differences: users are
    read by `LoopFeatures` instead of the paper's SASRec, by actor and critic apart; the kernel is linear, starts as the
    identity and is moved by the log-loss alone, the hyper-action starts at the state encoder's direction; the critic,
    which the paper trains on inferred hyper-actions, meets those of the kind that the actor asks it about, too; a
    learned slope above zero and a level turn scores into log-odds; the actor's three losses are summed and descended as
    one; slates are the top K under Gaussian noise on hyper-actions, never drawn item by item; scaled rewards.
    """

    name = "hac"
    paper: ClassVar[str] = "Liu et al. 2023"
    config_class: ClassVar[type[AgentConfig]] = HACConfig
    policy_class = HACPolicy

    def __init__(self, task: Task, config: HACConfig) -> None:
        drawn = {"drawn": ((task.tables.dim + 1,), torch.float32)}
        super().__init__(task, config, {"consumed": ((task.spec.slate_size,), torch.bool), **drawn})
        networks = self.networks
        self._adam("actor", [*networks.actor.parameters(), networks.kernel.weight, networks.odds])
        self._adam("critic", list(networks.critic.parameters()))

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """The slate of a hyper-action with noise."""
        known, networks = self.networks.read(seen), self.networks
        point = networks.hyper_action(known)
        point = point + self.config.noise / point.shape[1] ** 0.5 * noise_at(draw, point.shape[1])
        slate = networks.nearest(networks.in_item_space(point), self.task.spec.slate_size, known)
        return ActionSample(slate, {"drawn": point})

    def _extra(self, step: Step) -> dict[str, Tensor]:
        consumed = (step.response.signals[..., 0] > 0.5) & step.response.given[..., 0]
        return {"consumed": consumed, "drawn": step.acted.extra["drawn"]}

    def _gradient_step(self, batch: Replayed) -> dict[str, Tensor]:
        known, networks, config = self.networks.read(batch.seen), self.networks, self.config
        target = self._scaled(batch.reward) + batch.discount * self._later(batch)
        drawn, inferred = batch.extra["drawn"], networks.inferred(batch.slate).detach()
        misses = [F.mse_loss(networks.value(known, action), target) for action in (drawn, inferred)]
        loss = torch.stack(misses).mean()
        self._descend("critic", loss)
        if self.rounds < config.actor_starts:
            return {"train/loss": loss.detach()}
        action = networks.hyper_action(known)
        gain = networks.value(known, action).mean()
        distance = self._distance(known, action)
        surprise = self._surprise(batch, action)
        self._descend("actor", config.alignment * distance + config.supervision * surprise - gain)
        return {
            "train/loss": loss.detach(),
            "train/actor_loss": -gain.detach(),
            "train/alignment_loss": distance.detach(),
            "train/supervised_loss": surprise.detach(),
        }

    @torch.no_grad()
    def _later(self, batch: Replayed) -> Tensor:
        """What the target actor's hyper-action after the step is worth, (M,)."""
        known, targets = self.networks.read(batch.next_observation), self.targets
        later: Tensor = targets.value(known, targets.hyper_action(known))
        return later

    def _distance(self, known: ItemFeatures, action: Tensor) -> Tensor:
        """Mean squared distance of hyper-actions from those inferred from the slates they lead to, both of length 1."""
        networks = self.networks
        with torch.no_grad():
            slate = networks.nearest(networks.in_item_space(action), self.task.spec.slate_size, known)
            inferred = F.normalize(networks.inferred(slate), dim=1)
        distance: Tensor = (F.normalize(action, dim=1) - inferred).square().sum(1).mean()
        return distance

    def _surprise(self, batch: Replayed, action: Tensor) -> Tensor:
        """Log-loss of which items shown were consumed, mean over items."""
        shares = self.networks.shares(batch.slate)
        odds = self.networks.log_odds(action, batch.slate)
        loss = F.binary_cross_entropy_with_logits(odds, batch.extra["consumed"].to(odds.dtype), reduction="none")
        surprise: Tensor = (loss * shares).sum(1).mean()
        return surprise
