"""REINFORCE with top-K off-policy correction from logs alone.

from recloop.agents.learners.logged.learner import learn_from_log
from recloop.agents.learners.logged.reinforce import LoggedReinforce, LoggedReinforceConfig
policy = learn_from_log(LoggedReinforce, world, FitOptions(seed=0, steps=10), LoggedReinforceConfig(cap=5.0))
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from recloop.agents.learners.logged.batches import LoggedBatch
from recloop.agents.learners.logged.learner import LoggedConfig, LoggedLearner
from recloop.agents.learners.top_k import Correction
from recloop.agents.networks.features import ItemTables, LoopFeatures, NetworkConfig
from recloop.agents.networks.heads import CandidateHead, ValueHead, make_actor
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.slates import FORBIDDEN
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import ObservationSpec


@dataclass(frozen=True)
class LoggedReinforceConfig(LoggedConfig):
    """REINFORCE from logs; see `LoggedReinforce`.

    Args:
        top_k: whether lambda_K is applied, K the world's slate size.
        cap: largest importance weight.
        normalised: importance weights of a batch are divided by their mean.
        propensity: of the logging policy: `logged` where the log has it, and estimated elsewhere, or `estimated`.
        entropy: weight of the entropy of a single pick.
        value: weight of the value loss.
        behaviour: weight of the loss of the estimated logging policy.
    """

    top_k: bool = True
    cap: float = 10.0
    normalised: bool = False
    propensity: Literal["logged", "estimated"] = "logged"
    entropy: float = 0.01
    value: float = 0.5
    behaviour: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.propensity not in ("logged", "estimated"):
            raise PolicyError(f"propensity='{self.propensity}'; choose 'logged' or 'estimated'")


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


class LoggedReinforce(LoggedLearner):
    """REINFORCE with top-K off-policy correction (Chen et al., WSDM 2019), from logged steps.

    Every logged item is an example, weighed by min(pi / beta, cap) and lambda_K; beta is the logged propensity where
    there is one, else a head's estimate. Differences from the paper: the policy is a softmax over C candidates of the
    state encoder's, and a logged item that is not among them has pi = 0 and counts nothing, an estimated beta being one
    among them too; the paper samples a softmax over the catalogue. Returns are the world's reward and are compared with
    a value network's, standardised a batch; an entropy bonus. A logged propensity is that of an item in its place given
    the places above, and every place is an example of a single pick.
    """

    name: ClassVar[str] = "reinforce-logged"
    paper: ClassVar[str] = "Chen et al. 2019"
    config_class: ClassVar[type[LoggedConfig]] = LoggedReinforceConfig
    adds_logged: ClassVar[bool] = False
    config: LoggedReinforceConfig
    networks: LoggedNetworks

    def __init__(self, *made_with: Any) -> None:
        super().__init__(*made_with)
        config, world = self.config, self.world
        self.networks = LoggedNetworks(self.tables, world.spec(), config.network)
        self.correction = Correction(world.slate_size if config.top_k else 1, config.cap, config.normalised)

    def loss(self, batch: LoggedBatch) -> dict[str, Tensor]:
        """See `logged_loss`."""
        worth = (batch.worth - self.steps.mean) / self.steps.spread  # the value loss then has one scale in all logs
        batch = replace(batch, worth=worth)
        loss, parts = logged_loss(self.networks(batch), batch, self.correction, self.config)
        return {"train/loss": loss, **parts}

    def policy(self) -> ActorPolicy:
        """The most likely candidates."""
        return self.actor_policy(self.networks.actor)


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
