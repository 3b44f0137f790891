"""Implicit Q-learning: values of logged items alone, and a policy that clones what was better than expected."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from recloop.agents.learners.logged.batches import LoggedBatch
from recloop.agents.learners.logged.cloning import place_log_probs
from recloop.agents.learners.logged.cql import LoggedValueConfig, LoggedValues
from recloop.agents.learners.logged.learner import LoggedConfig
from recloop.agents.networks.features import ItemTables, LoopFeatures, NetworkConfig
from recloop.agents.networks.heads import ValueHead, make_actor
from recloop.agents.networks.policy import ActorPolicy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation, ObservationSpec

_LARGEST_WEIGHT = 100.0
"""Of an advantage, as in the paper."""


@dataclass(frozen=True)
class IQLConfig(LoggedValueConfig):
    """Implicit Q-learning; see `IQL`.

    Args:
        expectile: in (0, 1): 0.5 values a moment by the mean of what was shown, near 1 by the best of it.
        temperature: inverse; how sharply advantages weigh: 0 clones all alike.
    """

    expectile: float = 0.8
    temperature: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.expectile < 1:
            raise PolicyError(f"expectile={self.expectile}; it must lie between 0 and 1")


class StateValue(nn.Module):
    """Observation -> value (M,) of the moment."""

    def __init__(self, tables: ItemTables, spec: ObservationSpec, network: NetworkConfig) -> None:
        super().__init__()
        self.features = LoopFeatures(tables, spec, network)
        self.head = ValueHead(self.features)

    def forward(self, observation: Observation) -> Tensor:
        return self.head.of_trunk(self.features.trunk_of(self.features.inputs(observation)))


class IQL(LoggedValues):
    """Implicit Q-learning (Kostrikov, Nair and Levine, ICLR 2022; 2021 as a preprint), on slates.

    V(s), what a place is worth, is an expectile of q(s, i) over the items that were shown; the sum of q over a slate is
    fitted to reward + discount x V(s') x places, so that no item is valued that was not shown; the policy clones the
    log, place by place under a Plackett-Luce, weighed by exp(temperature x (q - V)). Differences: values and advantages
    are those of places, not of slates (`LoggedValues`); one q with a target network, not two; rewards are divided by
    the spread of what logged places brought.
    """

    name: ClassVar[str] = "iql"
    paper: ClassVar[str] = "Kostrikov et al. 2022"
    config_class: ClassVar[type[LoggedConfig]] = IQLConfig
    config: IQLConfig

    def __init__(self, *made_with: Any) -> None:
        super().__init__(*made_with)
        parts = self.tables, self.world.spec(), self.config.network
        self.value, self.actor = StateValue(*parts), make_actor("candidates", *parts)
        self.networks = nn.ModuleDict(
            {"online": self.online, "target": self.target, "value": self.value, "actor": self.actor}
        )

    def loss(self, batch: LoggedBatch) -> dict[str, Tensor]:
        """See the class."""
        counted, places = batch.counted, batch.counted.sum().clamp_min(1)
        after = self.steps.after(batch)
        later = self.value(after.observation).detach() * after.held.sum(1)
        tags = self.misses(batch, self.valued(batch), later)
        advantage = self.held_by_target(batch).gather(1, batch.positions) - self.value(batch.observation).unsqueeze(1)
        share = (self.config.expectile - (advantage < 0).float()).abs()
        tags["train/value_loss"] = (share * advantage.square() * counted).sum() / places
        weights = (self.config.temperature * advantage.detach()).exp().clamp(max=_LARGEST_WEIGHT)
        cloned = place_log_probs(self.actor(batch.observation), batch) * weights
        tags["train/policy_loss"] = -cloned.sum() / places
        tags["train/weight"] = (weights * counted).sum() / places
        losses = ("q_loss", "own_loss", "value_loss", "policy_loss")
        return {**tags, "train/loss": sum((tags[f"train/{name}"] for name in losses), start=cloned.new_zeros(()))}

    def policy(self) -> ActorPolicy:
        """The most likely candidates."""
        return self.actor_policy(self.actor)
