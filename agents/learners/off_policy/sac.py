"""Soft actor-critic on item space: a squashed Gaussian direction, whose K nearest items are the slate."""

import math
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
from recloop.agents.networks.heads import make_actor
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw

_LOG_STD = (-5.0, 1.0)
"""Least and most log standard deviation of an entry before squashing."""


@dataclass(frozen=True)
class SACConfig(ProtoConfig):
    """Soft actor-critic.

    Args:
        log_std: log standard deviation of a fresh action's entries, before they are squashed.
        temperature: what a nat of entropy counts at first, where values are about 1.
        temperature_rate: learning rate of its logarithm; 0 keeps it.
        entropy: of an entry, in nats, that the temperature is steered to.
    """

    actor_starts: int = 200
    log_std: float = -1.6
    temperature: float = 0.01
    temperature_rate: float = 1e-2
    entropy: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise PolicyError(f"temperature={self.temperature}; it must be above 0")


class SACNetworks(ProtoNetworks):
    """A squashed Gaussian over item space, and twin critics of directions; of an action only the direction counts."""

    def _build(self, tables: ItemTables, spec: ObservationSpec, config: SACConfig) -> None:
        self.actor = make_actor("proto", tables, spec, config.network)
        self.spread = nn.Linear(self.actor.features.hidden, tables.dim)
        nn.init.zeros_(self.spread.weight)
        nn.init.constant_(self.spread.bias, config.log_std)
        self.critic = PointCritic(tables, spec, config.network, heads=2)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    def direction(self, known: ItemFeatures) -> Tensor:
        """The squashed mean, (B, d)."""
        return torch.tanh(head_of(self.actor, known))

    def drawn(self, known: ItemFeatures, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, d) in (-1, 1) from standard normal noise (B, d), and their log-densities (B,)."""
        mean = head_of(self.actor, known)
        log_std = self.spread(self.actor.features.trunk_of(known.inputs)).clamp(*_LOG_STD)
        return squashed(mean, log_std, noise)

    def values(self, known: ItemFeatures, action: Tensor) -> Tensor:
        """(2, B) of actions (B, d)."""
        values: Tensor = self.critic(known, F.normalize(action, dim=1).unsqueeze(1))[..., 0]
        return values


class SACPolicy(ProtoPolicy):
    """Shows the k items nearest to the squashed mean."""

    kind = "sac"
    networks_class = SACNetworks
    config_class = SACConfig


class SAC(ProtoLearner):
    """Soft actor-critic (Haarnoja et al. 2018, with the automatic temperature of their second paper) with top-k.

    The action is a point in item space; the K items of largest inner product with it are shown, as in SARDINE
    (Deffayet et al. 2023), among whose stronger agents it is. Twin critics value (state, action). Differences: the
    critics share a trunk and read the action's direction only, since its length changes no slate; the mean starts from
    the state encoder's direction; the entropy aimed at is 0 nats a dimension instead of -1, with which exploration died
    out and returns fell; scaled rewards.
    """

    name = "sac"
    paper: ClassVar[str] = "Haarnoja et al. 2018"
    config_class: ClassVar[type[AgentConfig]] = SACConfig
    policy_class = SACPolicy

    def __init__(self, task: Task, config: SACConfig) -> None:
        dim = task.tables.dim + 1
        super().__init__(task, config, {"action": ((dim,), torch.float32)})
        networks = self.networks
        self._adam("actor", [*networks.actor.parameters(), *networks.spread.parameters()])
        self._adam("critic", list(networks.critic.parameters()))
        self._adam("temperature", [networks.log_temperature])
        self._entropy = config.entropy * dim

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """The items nearest to a drawn action."""
        known = self.networks.read(seen)
        action, _ = self.networks.drawn(known, noise_at(draw, self.networks.items.shape[1]))
        return ActionSample(self.networks.nearest(action, self.task.spec.slate_size, known), {"action": action})

    def _extra(self, step: Step) -> dict[str, Tensor]:
        return {"action": step.acted.extra["action"]}

    def _gradient_step(self, batch: Replayed) -> dict[str, Tensor]:
        known, networks = self.networks.read(batch.seen), self.networks
        temperature = networks.log_temperature.exp().detach()
        target = self._scaled(batch.reward) + batch.discount * self._later(batch, temperature)
        loss = (networks.values(known, batch.extra["action"]) - target).square().mean()
        self._descend("critic", loss)
        if self.rounds < self.config.actor_starts:
            return {"train/loss": loss.detach()}
        action, log_density = networks.drawn(known, self._noise(batch))
        values = networks.values(known, action).amin(0)
        actor_loss = (temperature * log_density - values).mean()
        self._descend("actor", actor_loss)
        entropy = -log_density.detach().mean()
        self._descend("temperature", networks.log_temperature * (entropy - self._entropy))
        return {
            "train/loss": loss.detach(),
            "train/actor_loss": actor_loss.detach(),
            "train/value": values.detach().mean(),
            "train/entropy": entropy,
            "train/temperature": temperature,
        }

    @torch.no_grad()
    def _later(self, batch: Replayed, temperature: Tensor) -> Tensor:
        """The soft value after the step, (M,): the present policy's action, valued by the target critics."""
        known = self.networks.read(batch.next_observation)
        action, log_density = self.networks.drawn(known, self._noise(batch))
        later: Tensor = self.targets.values(known, action).amin(0) - temperature * log_density
        return later


def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(mean + std noise) (B, d), and its log-density (B,).

    log(1 - tanh(u)^2) is computed as 2 (log 2 - u - softplus(-2 u)), which does not overflow.
    """
    before = mean + log_std.exp() * noise
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    stretched = 2 * (math.log(2) - before - F.softplus(-2 * before))
    return torch.tanh(before), (normal - stretched).sum(1)
