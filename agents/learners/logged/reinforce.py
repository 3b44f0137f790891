"""REINFORCE with top-K off-policy correction from logs alone: no user is ever asked.

from recloop.agents.learners.logged.reinforce import LoggedReinforceConfig, train_logged
policy = train_logged(world, FitOptions(seed=0, steps=10), LoggedReinforceConfig(cap=5.0))
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from recloop.agents.facts import Trains
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.checkpoints import (
    Checkpoint,
    load_checkpoint,
    optimizer_state,
    restore_module,
    restore_optimizer,
)
from recloop.agents.learners.logged.batches import LoggedBatch, LoggedBatches
from recloop.agents.learners.top_k import Correction
from recloop.agents.networks.features import ItemTables, LoopFeatures, NetworkConfig
from recloop.agents.networks.heads import CandidateHead, ValueHead, make_actor
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.policy import FitOptions, Trainer
from recloop.agents.serving import Serving
from recloop.agents.slates import FORBIDDEN
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.progress import progress_bar
from recloop.envs.interaction.observation import ObservationSpec
from recloop.envs.simulation.actions import EncoderRetriever
from recloop.envs.world.world import World

NAME = "reinforce-logged"


@dataclass(frozen=True)
class LoggedReinforceConfig:
    """REINFORCE from logs; see `train_logged`.

    Args:
        passes: over the log.
        batch_size: logged steps a gradient step.
        learning_rate: of Adam at the start; falls linearly to zero.
        gamma: discount a slate, in [0, 1]; the later steps of a log tell more of luck than of one slate.
        max_grad_norm: longest gradient step.
        candidates: C, items retrieved to choose from; None for the retriever's default.
        top_k: whether lambda_K is applied, K the world's slate size.
        cap: largest importance weight.
        normalised: importance weights of a batch are divided by their mean.
        propensity: of the logging policy: `logged` where the log has it, and estimated elsewhere, or `estimated`.
        entropy: weight of the entropy of a single pick.
        value: weight of the value loss.
        behaviour: weight of the loss of the estimated logging policy.
        network: sizes.
    """

    passes: int = 5
    batch_size: int = 256
    learning_rate: float = 1e-3
    gamma: float = 0.5
    max_grad_norm: float = 5.0
    candidates: int | None = None
    top_k: bool = True
    cap: float = 10.0
    normalised: bool = False
    propensity: Literal["logged", "estimated"] = "logged"
    entropy: float = 0.01
    value: float = 0.5
    behaviour: float = 1.0
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        for name in ("passes", "batch_size"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if not 0 <= self.gamma <= 1:
            raise PolicyError(f"gamma={self.gamma}; it must lie in [0, 1]")
        if self.propensity not in ("logged", "estimated"):
            raise PolicyError(f"propensity='{self.propensity}'; choose 'logged' or 'estimated'")

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class LoggedNetworks(nn.Module):
    """A policy, an estimate of the policy that wrote the log, and a value, all on one trunk.

    The estimate reads the policy's features but sends no gradient into them, as in the paper.

    Args:
        tables: the items.
        spec: sizes of observations.
        network: sizes.
    """

    def __init__(self, tables: ItemTables, spec: ObservationSpec, network: NetworkConfig) -> None:
        super().__init__()
        self.actor = make_actor("candidates", tables, spec, network)
        features = self.actor.features
        assert isinstance(features, LoopFeatures)
        self.behaviour = CandidateHead(tables, features, network)
        self.value = ValueHead(features)

    def forward(self, batch: LoggedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of candidates as a single pick, the policy's and the log's (M, C), and values (M, 1)."""
        features = self.actor.features(batch.observation)
        mine = self.actor.head(features, batch.observation)
        theirs = self.behaviour(features.detach(), batch.observation)
        return torch.log_softmax(mine, 1), torch.log_softmax(theirs, 1), self.value(features)


class LoggedReinforce(Trainer):
    """`train_logged` by name, with its defaults; `options.steps` are passes over the log."""

    name = NAME
    trains: ClassVar[Trains] = "log"
    resumable: ClassVar[bool] = True
    config_class: ClassVar[type[LoggedReinforceConfig]] = LoggedReinforceConfig
    policy_class = ActorPolicy

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> ActorPolicy:
        """See `train_logged`."""
        return train_logged(world, options)


def train_logged(world: World, options: FitOptions, config: LoggedReinforceConfig | None = None) -> ActorPolicy:
    """Learn a policy from the log of a world's train users.

    REINFORCE with top-K off-policy correction (Chen et al., WSDM 2019): every logged item is an example, weighed by
    min(pi / beta, cap) and lambda_K; beta is the logged propensity where there is one, else a head's estimate.
    Differences from the paper: the policy is a softmax over C candidates of the state encoder's, and a logged item that
    is not among them has pi = 0 and counts nothing, an estimated beta being one among them too; the paper samples a
    softmax over the catalogue. Returns are the world's reward and are compared with a value network's, standardised a
    batch; an entropy bonus. A logged propensity is that of an item in its place given the places above, and every
    place is an example of a single pick. No simulator is asked, not even to choose among weights: the last are kept.

    Args:
        world: whose log.
        options: `steps` replaces the config's passes, `settings` the rest. With `checkpoint`, the training is kept
            after every pass, and an interrupted one goes on from there bit for bit. Penalties do not apply: nothing
            is simulated.
        config: default its defaults.

    Raises:
        PolicyError: a log without a step to learn from, a checkpoint of another training, or a loss that is not a
            number.
    """
    config = options.over(config or LoggedReinforceConfig(), NAME, "passes")
    device = torch.device(options.device)
    encoder = world.state_encoder.to(device)
    retriever = EncoderRetriever(encoder, config.candidates)
    steps = LoggedBatches(world, retriever, config.gamma, device)
    tables = ItemTables.of(encoder, world.catalogue.popularity)
    with isolated_randomness(options.seed):
        networks = LoggedNetworks(tables, world.spec(), config.network).to(device)
    facts = {"learner": NAME, "config": config.as_dict(), "seed": options.seed, "world": world.fingerprint}
    fit = _Fit(networks, steps, config, options, world.slate_size)
    fit.go_on({**facts, "device": device.type})
    fit.run()
    return ActorPolicy(
        Serving.of(world),
        networks.actor,
        "candidates",
        config.network,
        candidates=retriever.size,
        training={"agent": NAME, "seed": options.seed, **config.as_dict()},
        name=NAME,
    )


class _Fit:
    """The networks being fitted to the steps of a log."""

    def __init__(
        self,
        networks: LoggedNetworks,
        steps: LoggedBatches,
        config: LoggedReinforceConfig,
        options: FitOptions,
        slate_size: int,
    ) -> None:
        self.networks, self.steps, self.config, self.options = networks, steps, config, options
        self.correction = Correction(slate_size if config.top_k else 1, config.cap, config.normalised)
        self.optimizer = torch.optim.Adam(networks.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
        self.generator = torch.Generator(steps.device).manual_seed(options.seed)
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
        config, rows = self.config, self.steps.rows
        batches = -(-len(rows) // config.batch_size)
        done, total = self.passes * batches, config.passes * batches
        left = range(self.passes, config.passes)
        for number in progress_bar(left, desc=NAME, unit="epoch", disable=not self.options.progress):
            order = rows[torch.randperm(len(rows), generator=self.generator, device=rows.device)]
            told = []
            for some in torch.split(order, config.batch_size):
                for group in self.optimizer.param_groups:
                    group["lr"] = config.learning_rate * (1 - done / total)
                told.append(self._learn(self.steps.batch(some)))
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
        worth = (batch.worth - self.steps.mean) / self.steps.spread  # the value loss then has one scale in all logs
        batch = replace(batch, worth=worth)
        loss, parts = logged_loss(self.networks(batch), batch, self.correction, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.networks.parameters(), self.config.max_grad_norm, foreach=True)
        self.optimizer.step()
        return {"train/loss": loss.detach(), **parts}

    def _tell(self, means: dict[str, Tensor], number: int) -> None:
        values = torch.stack(list(means.values())).tolist()
        if not torch.isfinite(means["train/loss"]):
            raise PolicyError(
                f"{NAME}: the loss is no longer a finite number in pass {number + 1}; lower learning_rate "
                f"({self.config.learning_rate}) or check the scale of the log's signals"
            )
        if self.options.log is not None:
            for tag, value in zip(means, values, strict=True):
                self.options.log(tag, value, number)


def logged_loss(
    found: tuple[Tensor, Tensor, Tensor], batch: LoggedBatch, correction: Correction, config: LoggedReinforceConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its parts by TensorBoard tag.

    Args:
        found: what `LoggedNetworks` gives.
        batch: of logged steps.
        correction: of the importance weights.
        config: weights of the parts.
    """
    log_policy, log_estimate, value = found
    counted = batch.counted
    log_pi = log_policy.gather(1, batch.positions)
    estimate = log_estimate.gather(1, batch.positions)
    log_beta = estimate.detach()
    if config.propensity == "logged":
        log_beta = torch.where(torch.isnan(batch.log_propensity), log_beta, batch.log_propensity)
    places, held = counted.sum().clamp_min(1), batch.held.sum().clamp_min(1)
    advantage = batch.worth - value.detach()
    mean = (advantage * counted).sum() / places
    spread = (((advantage - mean) * counted).square().sum() / places).sqrt()
    policy_loss = correction.loss(log_pi, log_beta, (advantage - mean) / (spread + 1e-6), counted)
    miss = ((batch.worth - value).square() * batch.held).sum() / held
    behaviour_loss = -(estimate * counted).sum() / places
    entropy = -(log_policy.exp() * log_policy * (log_policy > FORBIDDEN / 2)).sum(1).mean()
    loss = policy_loss + config.value * miss + config.behaviour * behaviour_loss - config.entropy * entropy
    with torch.no_grad():
        parts = {
            "train/policy_loss": policy_loss,
            "train/value_loss": miss,
            "train/behaviour_loss": behaviour_loss,
            "train/entropy_loss": -entropy,
            "train/weight": correction.weights(log_pi, log_beta, counted).sum() / places,
            "train/among_candidates": places / held,
        }
    return loss, {name: part.detach() for name, part in parts.items()}
