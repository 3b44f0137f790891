"""Wolpertinger on DDPG and on TD3: a direction in item space, its nearest items, and a critic that re-ranks them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.learners.contract import Acted, Task
from recloop.agents.learners.critics import PointCritic
from recloop.agents.learners.proto import ProtoConfig, ProtoLearner, ProtoNetworks, ProtoPolicy, noise_at
from recloop.agents.learners.replay import Replayed
from recloop.agents.networks.features import ItemTables
from recloop.agents.networks.heads import make_actor
from recloop.agents.slates import best_slate
from recloop.encoders.errors import PolicyError
from recloop.envs.observation import Observation, ObservationSpec
from recloop.envs.randomness import Draw


@dataclass(frozen=True)
class DDPGConfig(ProtoConfig):
    """Wolpertinger on DDPG.

    Args:
        nearest: m, items retrieved for the critic to choose from; never fewer than a slate.
        noise: length of the exploring noise on directions of length 1.
        critics: 1, or 2 of which the smaller estimate makes the target.
        actor_every: gradient steps of the critic for one of the actor.
        smoothing: length of the noise on the target's direction; it is cut at `smoothing_limit` times that.
        smoothing_limit: see `smoothing`.
    """

    nearest: int = 50
    noise: float = 0.5
    critics: int = 1
    actor_every: int = 1
    smoothing: float = 0.0
    smoothing_limit: float = 2.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("nearest", "actor_every"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if self.critics not in (1, 2):
            raise PolicyError(f"critics={self.critics}; choose 1 or 2")


@dataclass(frozen=True)
class TD3Config(DDPGConfig):
    """Wolpertinger on TD3: twin critics, smoothed targets, an actor that moves half as often."""

    critics: int = 2
    actor_every: int = 2
    smoothing: float = 0.2


class WolpertingerNetworks(ProtoNetworks):
    """A proto actor, and critics of items.

    A slate is worth the mean of its items' values, so that the K items of highest value among those retrieved are the
    best slate of them, and the critic meets single items alike in learning and in ranking.
    """

    def _build(self, tables: ItemTables, spec: ObservationSpec, config: DDPGConfig) -> None:
        self.count = min(config.nearest, tables.catalogue_size)
        self.actor = make_actor("proto", tables, spec.shown_length, spec.profile_dim, config.network)
        self.critic = PointCritic(tables, spec.shown_length, spec.profile_dim, config.network, config.critics)

    def direction(self, observation: Observation) -> Tensor:
        """(B, d), of length 1."""
        return F.normalize(self.actor(observation), dim=1)

    def best(self, observation: Observation, k: int) -> Tensor:
        """Of the m nearest items, the k that the first critic values most."""
        return self.among_nearest(self.direction(observation), k, observation)

    def among_nearest(self, points: Tensor, k: int, observation: Observation) -> Tensor:
        """The same (B, k) for other points (B, d) than the direction; equal values by nearness."""
        return self.chosen(observation, self.nearest(points, max(self.count, k), observation), k)

    def chosen(self, observation: Observation, retrieved: Tensor, k: int) -> Tensor:
        """The k items (B, k) of highest value, by the first critic, among those retrieved (B, M)."""
        values = self.critic(observation, self.vectors(retrieved))[0]  # (B, M)
        empty = len(self.items) - 1
        places = best_slate(values, retrieved < empty, k)
        return F.pad(retrieved, (0, 1), value=empty).gather(1, places)

    def value(self, observation: Observation, slate: Tensor) -> Tensor:
        """(Q, B) of slates (B, K): the mean over their items."""
        mean: Tensor = (self.critic(observation, self.vectors(slate)) * self.shares(slate)).sum(2)
        return mean


class WolpertingerPolicy(ProtoPolicy):
    """Shows the k of the m items nearest to a direction that a critic values most."""

    kind = "wolpertinger"
    networks_class = WolpertingerNetworks
    config_class = DDPGConfig


class DDPG(ProtoLearner):
    """Wolpertinger (Dulac-Arnold et al. 2015) on DDPG (Lillicrap et al. 2016).

    The actor gives a direction; of the m nearest items the K that the critic values most are shown; the critic learns
    from what was shown, the actor ascends the critic at its direction. Differences: slates of K items, a slate's value
    being the mean of its items'; nearness by inner product with items around the catalogue's mean, directions and
    noise on the unit sphere; the actor starts from the state encoder's direction; Gaussian noise, as in TD3, instead
    of Ornstein-Uhlenbeck; scaled rewards; no weight decay. Exact search.
    """

    name = "ddpg"
    policy_class = WolpertingerPolicy

    def __init__(self, task: Task, config: DDPGConfig) -> None:
        super().__init__(task, config)
        self._adam("actor", list(self.networks.actor.parameters()))
        self._adam("critic", list(self.networks.critic.parameters()))

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> Acted:
        """The slate of a direction with noise."""
        point = self.networks.direction(seen)
        point = point + self.config.noise / point.shape[1] ** 0.5 * noise_at(draw, point)
        return Acted(self.networks.among_nearest(point, self.task.spec.slate_size, seen))

    def _gradient_step(self, batch: Replayed) -> dict[str, Tensor]:
        target = self._target(batch)
        values = self.networks.value(batch.seen, batch.slate)
        loss = F.mse_loss(values, target.expand_as(values))
        self._descend("critic", loss)
        logged = {"train/loss": loss.detach(), "train/value": values.detach().mean()}
        if self.rounds % self.config.actor_every == 0:
            gain = self.networks.critic(batch.seen, self.networks.direction(batch.seen).unsqueeze(1))[0].mean()
            self._descend("actor", -gain)
            logged["train/actor_loss"] = -gain.detach()
        return logged

    @torch.no_grad()
    def _target(self, batch: Replayed) -> Tensor:
        """(B,): the reward, and what the target networks' slate is worth after it."""
        point = self.targets.direction(batch.after)
        if self.config.smoothing:
            limit = self.config.smoothing_limit
            point = point + self.config.smoothing / point.shape[1] ** 0.5 * self._noise(point).clamp(-limit, limit)
        slate = self.targets.among_nearest(point, self.task.spec.slate_size, batch.after)
        return self._scaled(batch.reward) + batch.discount * self.targets.value(batch.after, slate).amin(0)


class TD3(DDPG):
    """Wolpertinger on TD3 (Fujimoto, van Hoof, Meger 2018).

    As `DDPG`, with TD3's three: the target is the smaller of two critics, its direction is smoothed, and actor and
    targets move with delay. Differences from TD3 besides `DDPG`'s: the two critics share a trunk; target networks
    follow at every gradient step.
    """

    name = "td3"

    def __init__(self, task: Task, config: TD3Config) -> None:
        super().__init__(task, config)
