"""What learners that act by a direction in item space share: config, networks, policy, replay, gradient steps."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.configs import AgentConfig
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.checkpoints import restore_module, within
from recloop.agents.learners.contract import Learner, Step, Task
from recloop.agents.learners.off_policy.critics import ItemFeatures, follow
from recloop.agents.learners.off_policy.replay import Layout, Replay, Replayed
from recloop.agents.networks.features import FEATURE_KEYS, ItemTables, SlateMeans
from recloop.agents.networks.heads import Actor
from recloop.agents.policy import Carry, Policy
from recloop.agents.serving import Serving
from recloop.agents.settings import with_settings
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import optimizer_state, restore_optimizer
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.actions import nearest_items

_STREAM = 141_421
"""Added to the seed for the noise of updates, apart from weights and from what is replayed."""


@dataclass(frozen=True)
class ProtoConfig(AgentConfig):
    """What off-policy learners over item space share.

    Args:
        learning_rate: of the actor; falls linearly to zero, as the critic's does.
        critic_learning_rate: of the critic.
        buffer_size: transitions kept.
        learning_starts: transitions before the first update.
        batch_size: transitions a gradient step.
        train_every: steps a lane between two rounds of updates.
        updates: gradient steps a round.
        actor_starts: gradient steps of the critic before the actor's first.
        tau: share of the way that target networks go after the others in a gradient step.
        max_grad_norm: longest gradient step.
        scale_rewards: learn from rewards as multiples of their mean size so far; see `ProtoLearner`.
        popularity: spread of item space's coordinate of popularity, as a multiple of the vectors' spread.
    """

    learning_rate: float = 5e-4
    critic_learning_rate: float = 2e-3
    buffer_size: int = 50_000
    learning_starts: int = 1_000
    batch_size: int = 256
    train_every: int = 4
    updates: int = 16
    actor_starts: int = 100
    tau: float = 0.05
    max_grad_norm: float = 5.0
    scale_rewards: bool = True
    popularity: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("buffer_size", "batch_size", "train_every", "updates"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if not 0 < self.tau <= 1:
            raise PolicyError(f"tau={self.tau}; it must lie in (0, 1]")


class ProtoNetworks(nn.Module):
    """Observation -> a direction in item space, whose nearest items are shown; and whatever judges it.

    Args:
        tables: the items.
        spec: sizes of observations.
        config: of the learner.
    """

    items: Tensor
    actor: Actor

    def __init__(self, tables: ItemTables, spec: ObservationSpec, config: Any) -> None:
        super().__init__()
        tables = tables.with_popularity(config.popularity)
        self.register_buffer("items", tables.centred(), persistent=False)  # (N+1, d)
        self._build(tables, spec, config)
        for module in self.modules():
            if isinstance(module, SlateMeans):
                module.vectors = self.items  # one table for all

    @abstractmethod
    def _build(self, tables: ItemTables, spec: ObservationSpec, config: Any) -> None:
        """Make the networks."""

    @abstractmethod
    def direction(self, known: ItemFeatures) -> Tensor:
        """(B, d), in the space of `items`."""

    def read(self, observation: Observation) -> ItemFeatures:
        """What all networks read, those of the targets too."""
        return ItemFeatures(observation, self.actor.features.inputs(observation))

    def best(self, known: ItemFeatures, k: int) -> Tensor:
        """The slate (B, k) when nothing is explored: the items nearest to the direction."""
        return self.nearest(self.direction(known), k, known)

    def nearest(self, points: Tensor, k: int, known: ItemFeatures) -> Tensor:
        """The k admissible items (B, k) of largest inner product with points (B, d); N where fewer are admissible."""
        n = len(self.items) - 1
        found = nearest_items(points, self.items[:-1], min(k, n), known.observation)
        return F.pad(found, (0, max(k - n, 0)), value=n)

    def vectors(self, items: Tensor) -> Tensor:
        """The vectors (B, M, d) of item rows (B, M); zero for N."""
        return F.embedding(items, self.items)

    def shares(self, slate: Tensor) -> Tensor:
        """What each place of a slate (B, K) counts in its mean, (B, K): 1 by the number of items, 0 without one."""
        shown = (slate < len(self.items) - 1).to(self.items.dtype)
        return shown / shown.sum(1, keepdim=True).clamp_min(1)


_NAMED_BEFORE = {"lanes": "num_envs", "validation_lanes": "validation_episodes"}
"""Settings of older policy folders by their names of today."""


class ProtoPolicy(Policy):
    """Shows the k items nearest to a trained direction; deterministic, so without a log-probability.

    Args:
        serving: what it takes to act outside a simulator; the item tables come from it.
        networks: of `networks_class`.
        settings: of `config_class`, how they were trained.
    """

    networks_class: ClassVar[type[ProtoNetworks]]
    config_class: ClassVar[type[ProtoConfig]]

    def __init__(self, serving: Serving, networks: ProtoNetworks, settings: ProtoConfig, name: str) -> None:
        self.serving, self.networks, self.settings, self.name = serving, networks, settings, name

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The best slate as the networks have it."""
        self.networks.to(observation["state"].device)
        return self.networks.best(self.networks.read(observation), k), carry

    def config(self) -> dict[str, Any]:
        """See `restore`."""
        return {"name": self.name, "training": self.settings.as_dict()}

    def tensors(self) -> dict[str, Tensor]:
        """The weights, critics included."""
        return dict(self.networks.state_dict())

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; item tables come from `serving`."""
        training = {_NAMED_BEFORE.get(name, name): value for name, value in config["training"].items()}
        settings = with_settings(cls.config_class(), training, config["name"])
        world = serving.world
        tables = ItemTables.of(world.state_encoder, world.catalogue.popularity)
        with isolated_randomness(0):
            networks = cls.networks_class(tables, world.spec(), settings)
        networks.load_state_dict(dict(tensors))
        return cls(serving, networks, settings, config["name"])


class ProtoLearner(Learner):
    """Replays what happened and descends an actor's and a critic's loss by turns; subclasses say which.

    With `scale_rewards`, rewards are learned from as multiples of their mean size so far, times 1 - gamma (at least 1
    by the time limit), so that values are about 1 in every world and one learning rate fits all.

    Args:
        task: what it learns in.
        config: of the class that its policy names.
        extra: what is replayed with a step besides, by name.
    """

    keys = FEATURE_KEYS
    policy_class: ClassVar[type[ProtoPolicy]]
    config: Any

    def __init__(self, task: Task, config: ProtoConfig, extra: Layout | None = None) -> None:
        super().__init__(task, config)
        self.horizon = config.train_every
        with isolated_randomness(task.seed):
            networks = self.policy_class.networks_class(task.tables, task.spec, config).to(task.device)
        self.networks: Any = networks
        shared = {id(buffer): buffer for buffer in networks.buffers()}
        self.targets: Any = deepcopy(networks, shared).requires_grad_(False)
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        keys = [*FEATURE_KEYS, *(["profile"] if task.spec.profile_dim else [])]
        if task.serving.world.masks_items:
            keys.append("action_mask")
        self.replay = Replay(task, config.buffer_size, keys, extra=extra, gamma=config.gamma)
        self.generator = torch.Generator(task.device).manual_seed(task.seed + _STREAM)
        self.rounds = 0
        self._earned = torch.zeros(2, dtype=torch.float64, device=task.device)  # sum and number of the rewards' sizes
        self._share = max(1 - config.gamma, 1 / task.spec.max_steps)

    def keep(self, step: Step) -> None:
        """Into the replay."""
        self.replay.keep(step, self._extra(step))
        self._earned[0] += step.reward.abs().sum()
        self._earned[1] += len(step.reward)

    def _extra(self, step: Step) -> dict[str, Tensor]:
        """The values of `extra`."""
        return {}

    def update(self, progress: float) -> dict[str, Tensor]:
        """A round of gradient steps."""
        if not self.replay.holds(self.config.learning_starts):
            return {}
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self._rate(name) * (1 - progress)
        logged: dict[str, Tensor] = {}
        for _ in range(self.config.updates):
            logged.update(self._gradient_step(self.replay.sample(self.config.batch_size)))
            follow(self.targets, self.networks, self.config.tau)
            self.rounds += 1
        return logged

    @abstractmethod
    def _gradient_step(self, batch: Replayed) -> dict[str, Tensor]:
        """Descend once from a batch of transitions; scalars by tag."""

    def policy(self) -> Policy:
        """See `Learner`."""
        return self.policy_class(self.task.serving, self.networks, self.config, self.name)

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        parts = {
            "networks": self.networks.state_dict(),
            "targets": self.targets.state_dict(),
            "replay": self.replay.state(),
            **{f"optimiser.{name}": optimizer_state(optimiser) for name, optimiser in self.optimisers.items()},
        }
        state = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        own = {"earned": self._earned, "rounds": torch.tensor(self.rounds), "generator": self.generator.get_state()}
        return {**state, **own}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Learner`."""
        restore_module(self.networks, within(state, "networks"))
        restore_module(self.targets, within(state, "targets"))
        self.replay.restore(within(state, "replay"))
        for name, optimiser in self.optimisers.items():
            restore_optimizer(optimiser, within(state, f"optimiser.{name}"))
        self._earned.copy_(state["earned"])
        self.rounds = int(state["rounds"])
        self.generator.set_state(state["generator"].cpu())

    def _scaled(self, reward: Tensor) -> Tensor:
        """Rewards as they are learned from."""
        if not self.config.scale_rewards:
            return reward
        scale = self._share * self._earned[1] / self._earned[0].clamp_min(1e-6)
        return reward * scale.to(reward.dtype)

    def _adam(self, name: str, parameters: Sequence[nn.Parameter]) -> None:
        """Have the parameters descended by `_descend(name, ...)`."""
        self.optimisers[name] = torch.optim.Adam(parameters, lr=self._rate(name), fused=True)

    def _rate(self, name: str) -> float:
        """The learning rate that a training starts with."""
        rates = {"actor": "learning_rate", "critic": "critic_learning_rate", "temperature": "temperature_rate"}
        rate: float = getattr(self.config, rates[name])
        return rate

    def _descend(self, name: str, loss: Tensor) -> None:
        """One step of the optimiser `name`; no other parameters get gradients."""
        parameters = self.optimisers[name].param_groups[0]["params"]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm, foreach=True)
        self.optimisers[name].step()

    def _noise(self, batch: Replayed) -> Tensor:
        """Standard normal noise (M, d) for an update."""
        shape = (len(batch.reward), self.networks.items.shape[1])
        return torch.randn(shape, generator=self.generator, device=self.task.device)


def noise_at(draw: Draw, dim: int) -> Tensor:
    """Standard normal noise (B, d) for acting."""
    entries = torch.arange(dim, device=draw.key.device).expand(len(draw.key), -1)
    return draw.normal("proto", entries)
