"""Wolpertinger on DDPG and on TD3: a direction in item space, its nearest items, and a critic that re-ranks them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.configs import AgentConfig
from recloop.agents.learners.contract import ActionSample, Step, Task
from recloop.agents.learners.off_policy.critics import ItemFeatures, PointCritic, head_of
from recloop.agents.learners.off_policy.proto import ProtoConfig, ProtoLearner, ProtoNetworks, ProtoPolicy, noise_at
from recloop.agents.learners.off_policy.replay import Replayed
from recloop.agents.learners.returns import PlaceRewards
from recloop.agents.networks.features import ItemTables
from recloop.agents.networks.heads import make_actor
from recloop.agents.slates import best_slate
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw

_FAVOUR = 1e3
"""Added to the value of an item that exploration shows: more than values, which are about 1, ever differ."""


@dataclass(frozen=True)
class DDPGConfig(ProtoConfig):
    """Wolpertinger on DDPG.

    Args:
        nearest: m, items retrieved for the critic to choose from; never fewer than a slate.
        noise: length of the exploring noise on directions of length 1.
        exploration: expected share of a slate's places that retrieved items get whatever their value, in [0, 1].
        critics: 1, or 2 of which the smaller estimate makes the target.
        actor_every: gradient steps of the critic for one of the actor.
        smoothing: length of the noise on the target's direction; it is cut at `smoothing_limit` times that.
        smoothing_limit: see `smoothing`.
    """

    nearest: int = 50
    noise: float = 0.5
    exploration: float = 0.1
    critics: int = 1
    actor_every: int = 1
    smoothing: float = 0.0
    smoothing_limit: float = 2.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("nearest", "actor_every"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if not 0 <= self.exploration <= 1:
            raise PolicyError(f"exploration={self.exploration}; it must lie in [0, 1]")
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
    best slate of them, and the critic meets single items alike in learning and in ranking. An item's value is what it
    earns by its own answers (the critic's first head) and all else it brings (each further head).
    """

    def _build(self, tables: ItemTables, spec: ObservationSpec, config: DDPGConfig) -> None:
        self.exploration = config.exploration
        self.count = min(config.nearest, tables.catalogue_size)
        self.actor = make_actor("proto", tables, spec, config.network)
        self.critic = PointCritic(tables, spec, config.network, 1 + config.critics)

    def direction(self, known: ItemFeatures) -> Tensor:
        """(B, d), of length 1."""
        return F.normalize(head_of(self.actor, known), dim=1)

    def values(self, known: ItemFeatures, points: Tensor, critics: int | None = None) -> Tensor:
        """(Q, B, M) of points (B, M, d), by the first `critics` of the Q; default all."""
        parts = self.critic(known, points, None if critics is None else 1 + critics)
        values: Tensor = parts[:1] + parts[1:]
        return values

    def best(self, known: ItemFeatures, k: int) -> Tensor:
        """Of the m nearest items, the k that the first critic values most."""
        return self.among_nearest(self.direction(known), k, known)

    def among_nearest(self, points: Tensor, k: int, known: ItemFeatures, draw: Draw | None = None) -> Tensor:
        """The same (B, k) for other points (B, d) than the direction; equal values by nearness. `draw` explores."""
        retrieved = self.nearest(points, max(self.count, k), known)
        values = self.values(known, self.vectors(retrieved), critics=1)[0]  # (B, m)
        if draw is not None:
            favoured = draw.uniform("explore", retrieved) < self.exploration * k / retrieved.shape[1]
            values = values + _FAVOUR * favoured
        empty = len(self.items) - 1
        places = best_slate(values, retrieved < empty, k)
        return F.pad(retrieved, (0, 1), value=empty).gather(1, places)


class WolpertingerPolicy(ProtoPolicy):
    """Shows the k of the m items nearest to a direction that a critic values most."""

    kind = "wolpertinger"
    networks_class = WolpertingerNetworks
    config_class = DDPGConfig


class DDPG(ProtoLearner):
    """Wolpertinger (Dulac-Arnold et al. 2015) on DDPG (Lillicrap et al. 2016).

    The actor gives a direction; of the m nearest items the K that the critic values most are shown; the critic learns
    from what was shown, the actor ascends the critic at its direction. Exact search. Differences: slates of K items,
    a slate's value being the mean of its items', which is fitted to the target, with what items earn by their own
    answers in a head of its own (as in `DoubleDQN`); nearness by inner product with items around the catalogue's mean,
    directions and noise on the unit sphere; the actor starts from the state encoder's direction; Gaussian noise, as in
    TD3, instead of Ornstein-Uhlenbeck, and some items favoured by chance, since noise alone explores nothing where m is
    all items; scaled rewards; no weight decay.
    """

    name = "ddpg"
    paper: ClassVar[str] = "Dulac-Arnold et al. 2015; Lillicrap et al. 2016"
    config_class: ClassVar[type[AgentConfig]] = DDPGConfig
    policy_class = WolpertingerPolicy

    def __init__(self, task: Task, config: DDPGConfig) -> None:
        super().__init__(task, config, {"own": ((task.spec.slate_size,), torch.float32)})
        self._adam("actor", list(self.networks.actor.parameters()))
        self._adam("critic", list(self.networks.critic.parameters()))
        self._by_place = PlaceRewards(task.serving.world, task.device)

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """The slate of a direction with noise, some of its items favoured by chance."""
        known = self.networks.read(seen)
        point = self.networks.direction(known)
        point = point + self.config.noise / point.shape[1] ** 0.5 * noise_at(draw, point.shape[1])
        return ActionSample(self.networks.among_nearest(point, self.task.spec.slate_size, known, draw))

    def _extra(self, step: Step) -> dict[str, Tensor]:
        return {"own": self._by_place(step.acted.slate, step.response)}

    def _gradient_step(self, batch: Replayed) -> dict[str, Tensor]:
        known, networks = self.networks.read(batch.seen), self.networks
        shares = networks.shares(batch.slate)
        target = self._scaled(batch.reward) + batch.discount * self._later(batch)
        parts = networks.critic(known, networks.vectors(batch.slate))  # (1 + Q, M, K)
        own = self._scaled(batch.extra["own"]) * (shares > 0).sum(1, keepdim=True)  # the mean of these is their sum
        earned = ((parts[0] - own).square() * shares).sum(1).mean()
        values = ((parts[:1].detach() + parts[1:]) * shares).sum(2)  # (Q, M)
        loss = (values - target).square().mean() + earned
        self._descend("critic", loss)
        logged = {"train/loss": loss.detach(), "train/own_loss": earned.detach(), "train/value": values.detach().mean()}
        if self.rounds >= self.config.actor_starts and self.rounds % self.config.actor_every == 0:
            gain = networks.values(known, networks.direction(known).unsqueeze(1), critics=1).mean()
            self._descend("actor", -gain)
            logged["train/actor_loss"] = -gain.detach()
        return logged

    @torch.no_grad()
    def _later(self, batch: Replayed) -> Tensor:
        """What the target networks' slate is worth after the step, (M,)."""
        known, targets = self.networks.read(batch.next_observation), self.targets
        point = targets.direction(known)
        if self.config.smoothing:
            limit = self.config.smoothing_limit
            point = point + self.config.smoothing / point.shape[1] ** 0.5 * self._noise(batch).clamp(-limit, limit)
        slate = targets.among_nearest(point, self.task.spec.slate_size, known)
        values = targets.values(known, targets.vectors(slate))  # (Q, M, K)
        later: Tensor = (values * targets.shares(slate)).sum(2).amin(0)
        return later


class TD3(DDPG):
    """Wolpertinger on TD3 (Fujimoto, van Hoof, Meger 2018).

    As `DDPG`, with TD3's three: the target is the smaller of two critics, its direction is smoothed, and the actor
    moves half as often. Differences from TD3 besides `DDPG`'s: the two critics share a trunk; target networks follow
    at every gradient step, not with the actor's delay.
    """

    name = "td3"
    paper: ClassVar[str] = "Dulac-Arnold et al. 2015; Fujimoto et al. 2018"
    config_class = TD3Config
