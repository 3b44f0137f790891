"""One loop trains every learner that reads logged steps alone: no user is ever asked.

from recloop.agents.learners.logged.cql import CQL, CQLConfig
from recloop.agents.learners.logged.learner import learn_from_log
policy = learn_from_log(CQL, world, FitOptions(seed=0, steps=10), CQLConfig(alpha=2.0))
"""

from abc import abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recloop.agents.facts import Group, Trains
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.checkpoints import (
    Checkpoint,
    load_checkpoint,
    restore_module,
)
from recloop.agents.learners.logged.batches import LoggedBatch, LoggedBatches, RecordedBatches, StepBatches
from recloop.agents.networks.features import ItemTables, NetworkConfig
from recloop.agents.networks.heads import Actor, HeadName
from recloop.agents.networks.policy import ActorPolicy, refuse_to_hear
from recloop.agents.policy import FitOptions, Policy, Trainer
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import optimizer_state, restore_optimizer
from recloop.encoders.base.progress import progress_bar
from recloop.envs.simulation.actions import EncoderRetriever, Retriever
from recloop.envs.trajectories.files import read_trajectories
from recloop.envs.world.world import World


@dataclass(frozen=True)
class LoggedConfig:
    """What learners from logs share.

    Args:
        passes: over the log.
        batch_size: logged steps a gradient step.
        learning_rate: of Adam at the start; falls linearly to zero.
        gamma: discount a slate, in [0, 1]; the later steps of a log tell more of luck than of one slate.
        max_grad_norm: longest gradient step.
        candidates: C, items retrieved to choose from; None for the retriever's default.
        data: folder of trajectories (`recloop trajectories`) to learn from instead of the world's log.
        network: sizes.
    """

    passes: int = 5
    batch_size: int = 256
    learning_rate: float = 1e-3
    gamma: float = 0.5
    max_grad_norm: float = 5.0
    candidates: int | None = None
    data: str | None = None
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        for name in ("passes", "batch_size"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if not 0 <= self.gamma <= 1:
            raise PolicyError(f"gamma={self.gamma}; it must lie in [0, 1]")

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class LoggedLearner(Trainer):
    """One algorithm that learns from logged steps; made and trained by `learn_from_log`.

    A subclass makes its networks from torch's global generator, which is seeded then, and writes `_loss` and `policy`.

    Args:
        world: where the policy is to act.
        steps: to learn from, on a device.
        config: how.
        seed: for the record.

    Attributes:
        networks: all that is trained and kept; what needs no gradient is not descended.
        adds_logged: whether the logged items are candidates in any case while it learns.
    """

    trains: ClassVar[Trains] = "log"
    group: ClassVar[Group] = "logged"
    resumable: ClassVar[bool] = True
    config_class: ClassVar[type[LoggedConfig]]
    policy_class: ClassVar[type[Policy]] = ActorPolicy
    adds_logged: ClassVar[bool] = True
    networks: nn.Module

    def __init__(self, world: World, steps: StepBatches, config: LoggedConfig, seed: int) -> None:
        refuse_to_hear(self.name, config.network)
        self.world, self.steps, self.config, self.seed = world, steps, config, seed
        self.tables = ItemTables.of(world.state_encoder, world.catalogue.popularity)

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Policy:
        """`learn_from_log` with its defaults; `options.steps` are passes over the log."""
        return learn_from_log(cls, world, options)

    @property
    def rows(self) -> Tensor:
        """int64 (M,) the steps that a pass goes through."""
        return self.steps.rows

    @abstractmethod
    def loss(self, batch: LoggedBatch) -> dict[str, Tensor]:
        """Scalars by TensorBoard tag, `train/loss` among them, which is descended."""

    def follow(self) -> None:
        """What happens after a gradient step: target networks follow."""

    @abstractmethod
    def policy(self) -> Policy:
        """The policy of the weights as they are now."""

    def actor_policy(self, actor: Actor, head: HeadName = "candidates", stochastic: bool = False) -> ActorPolicy:
        """A policy that shows the best candidates by an actor, or draws slates from its scores."""
        return ActorPolicy(
            Serving.of(self.world),
            actor,
            head,
            self.config.network,
            candidates=self.steps.retriever.size,
            stochastic=stochastic,
            training={"agent": self.name, "seed": self.seed, **self.config.as_dict()},
            name=self.name,
        )


def learn_from_log(
    kind: type[LoggedLearner], world: World, options: FitOptions, config: LoggedConfig | None = None
) -> Policy:
    """Learn a policy from the log of a world's train users, or from trajectories recorded in the world.

    No simulator is asked, not even to choose among weights: the last are kept.

    Args:
        kind: the class of the learner.
        world: whose log.
        options: `steps` replaces the config's passes, `settings` the rest. With `checkpoint`, the training is kept
            after every pass, and an interrupted one goes on from there bit for bit. Penalties do not apply: nothing
            is simulated.
        config: of the class `kind.config_class`; default its defaults.

    Raises:
        PolicyError: a log without a step to learn from, trajectories of another world, a checkpoint of another
            training, or a loss that is not a number.
    """
    config = options.over(config or kind.config_class(), kind.name, "passes")
    device = torch.device(options.device)
    retriever = EncoderRetriever(world.state_encoder.to(device), config.candidates)
    steps = _steps(kind, world, retriever, config, device)
    with isolated_randomness(options.seed):
        learner = kind(world, steps, config, options.seed)
        learner.networks.to(device)
    fit = _Fit(learner, options)
    facts = {"learner": kind.name, "config": config.as_dict(), "seed": options.seed, "world": world.fingerprint}
    fit.go_on({**facts, "device": device.type})
    fit.run()
    return learner.policy()


def _steps(
    kind: type[LoggedLearner], world: World, retriever: Retriever, config: LoggedConfig, device: torch.device
) -> StepBatches:
    if config.data is None:
        return LoggedBatches(world, retriever, config.gamma, device, kind.adds_logged)
    found = read_trajectories(config.data)
    if getattr(config, "propensity", "") == "logged":
        found.check_propensities()
    return RecordedBatches(found, world, retriever, config.gamma, device, kind.adds_logged)


class _Fit:
    """A learner being fitted to its steps."""

    def __init__(self, learner: LoggedLearner, options: FitOptions) -> None:
        self.learner, self.networks, self.config, self.options = learner, learner.networks, learner.config, options
        self.parameters = [p for p in learner.networks.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.config.learning_rate, eps=1e-5, fused=True)
        self.generator = torch.Generator(learner.steps.device).manual_seed(options.seed)
        self.facts: dict[str, Any] = {}
        self.passes = 0

    def go_on(self, facts: dict[str, Any]) -> None:
        """Take up a checkpoint of a training with these facts, where there is one."""
        self.facts = facts
        found = None if self.options.checkpoint is None else load_checkpoint(self.options.checkpoint, facts)
        if found is None:
            return
        restore_module(self.networks, found.parts["networks"])
        restore_optimizer(self.optimizer, found.parts["optimizer"])
        self.generator.set_state(found.parts["generator"]["state"])
        self.passes = int(found.counters["passes"])
        if self.options.resumed is not None:
            self.options.resumed(self.passes - 1)

    def run(self) -> None:
        """The passes that are left."""
        config, rows = self.config, self.learner.rows
        batches = -(-len(rows) // config.batch_size)
        done, total = self.passes * batches, config.passes * batches
        left = range(self.passes, config.passes)
        for number in progress_bar(left, desc=self.learner.name, unit="epoch", disable=not self.options.progress):
            order = rows[torch.randperm(len(rows), generator=self.generator, device=rows.device)]
            told = []
            for some in torch.split(order, config.batch_size):
                for group in self.optimizer.param_groups:
                    group["lr"] = config.learning_rate * (1 - done / total)
                told.append(self._learn(self.learner.steps.batch(some)))
                done += 1
            self._tell({name: torch.stack([one[name] for one in told]).mean() for name in told[0]}, number)
            self.passes = number + 1
            if self.options.checkpoint is not None:
                self._keep(self.options.checkpoint)

    def _keep(self, folder: Path) -> None:
        parts = {
            "networks": self.networks.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "generator": {"state": self.generator.get_state()},
        }
        Checkpoint(self.facts, {"passes": self.passes}, parts).save(folder)

    def _learn(self, batch: LoggedBatch) -> dict[str, Tensor]:
        tags = self.learner.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        tags["train/loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm, foreach=True)
        self.optimizer.step()
        self.learner.follow()
        return {name: value.detach() for name, value in tags.items()}

    def _tell(self, means: dict[str, Tensor], number: int) -> None:
        values = torch.stack(list(means.values())).tolist()
        if not torch.isfinite(means["train/loss"]):
            raise PolicyError(
                f"{self.learner.name}: the loss is no longer a finite number in pass {number + 1}; lower "
                f"learning_rate ({self.config.learning_rate}) or check the scale of the log's signals"
            )
        if self.options.log is not None:
            for tag, value in zip(means, values, strict=True):
                self.options.log(tag, value, number)
