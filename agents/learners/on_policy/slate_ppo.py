"""PPO that chooses among whole slates: what each cluster of items proposes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.contract import ActionSample
from recloop.agents.learners.on_policy.ppo import PPO, PPOConfig
from recloop.agents.learners.on_policy.slate_odds import slate_odds
from recloop.agents.networks.features import ItemTables
from recloop.agents.networks.policy import retrieved
from recloop.agents.networks.proposals import ProposalConfig, ProposalNetwork, Proposals, proposing_groups
from recloop.agents.policy import Carry, Policy
from recloop.agents.serving import Serving
from recloop.agents.slates import action_mask, sample
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.actions import EncoderRetriever


@dataclass(frozen=True)
class ProposalPPOConfig(PPOConfig):
    """PPO over proposed slates; the defaults were chosen on the tune users of the built-in world.

    Args:
        proposals: which slates are proposed.
        network: of it, `hidden` alone counts.
    """

    steps: int = 100_000
    learning_rate: float = 2e-3
    gamma: float = 0.97
    rollout: int = 8
    gae_lambda: float = 0.9
    epochs: int = 4
    batch_size: int = 1024
    clip: float = 0.2
    entropy: float = 0.03
    entropy_falls: bool = True
    proposals: ProposalConfig = field(default_factory=ProposalConfig)


class ProposalPolicy(Policy):
    """Shows the proposal of the highest score.

    Args:
        serving: what it takes to act outside a simulator; the item tables come from it.
        network: who chooses.
        proposals: which slates are proposed.
        hidden: units of the network's hidden layers.
        candidates: C, of its retriever.
        training: the agent's config, for the record.
        name: what tables call it.
    """

    kind = "slate-ppo"

    def __init__(
        self,
        serving: Serving,
        network: ProposalNetwork,
        proposals: ProposalConfig,
        *,
        hidden: int,
        candidates: int | None = None,
        training: Mapping[str, Any] | None = None,
        name: str = "slate-ppo",
    ) -> None:
        self.serving: Serving = serving
        self.network, self.proposals, self.hidden = network, proposals, hidden
        self.training, self.name = dict(training or {}), name
        self.retriever = EncoderRetriever(serving.world.state_encoder, candidates)

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The best proposal of k items."""
        self.network.to(observation["state"].device)
        observation = {**observation, "action_mask": action_mask(observation, self.serving.catalogue_size)}
        observation["candidates"] = retrieved(self.retriever, observation, k, self.name)
        proposals, slates = self.network.propose(observation, k)
        return chosen(slates, self.network(proposals)[0].argmax(1)), carry

    def config(self) -> dict[str, Any]:
        """See `restore`."""
        sizes = {"proposals": asdict(self.proposals), "hidden": self.hidden, "candidates": self.retriever.size}
        return {**sizes, "training": self.training}

    def tensors(self) -> dict[str, Tensor]:
        """The weights, and which items each proposal is made of."""
        return dict(self.network.state_dict())

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; item tables come from `serving`."""
        facts = dict(config)
        given = facts.pop("proposals")
        proposals = ProposalConfig(**{**given, "clusters": tuple(given["clusters"])})
        tables = ItemTables.of(serving.world.state_encoder, serving.world.catalogue.popularity)
        with isolated_randomness(0):
            network = ProposalNetwork(tables, tensors["groups"], serving.world.spec(), proposals, facts["hidden"])
        network.load_state_dict(dict(tensors))
        return cls(serving, network, proposals, **facts)


class ProposalPPO(PPO):
    """Proximal policy optimisation (Schulman et al. 2017) over slates that hang together.

    Clusters of items (k-means over item vectors, the catalogue's own groupings) and all items propose a slate each: the
    K best of theirs by the state encoder's score. The policy is a softmax over the proposals, so that the action is the
    slate, credit is exact, and exploration shows slates of one kind. What no proposal holds is never shown: the order
    within a slate stays the encoder's. Differences from the paper: as in `recloop-ppo`; the weight of the entropy
    falls to zero.
    """

    name = "slate-ppo"
    config_class = ProposalPPOConfig
    policy_class = ProposalPolicy
    look_class: ClassVar[type[Any]] = Proposals
    values_candidates = True
    config: ProposalPPOConfig

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """A proposal drawn from the softmax, with its log-probability."""
        proposals, slates = self.networks.propose(seen, self.task.spec.slate_size)
        scores, value = self.networks(proposals)
        every = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
        positions = sample(scores, proposals.there, 1, draw.gumbel("slate", every))
        extra = {"positions": positions, "log_prob": slate_odds(scores, positions)[0], "value": value}
        return ActionSample(chosen(slates, positions[:, 0]), {**extra, **proposals.held()})

    def policy(self) -> ProposalPolicy:
        """The most likely slate."""
        return ProposalPolicy(
            self.task.serving,
            self.networks,
            self.config.proposals,
            hidden=self.config.network.hidden,
            candidates=self.retriever.size,
            training={"agent": self.name, "seed": self.task.seed, **self.config.as_dict()},
        )

    def _fresh_networks(self) -> ProposalNetwork:
        config, task = self.config, self.task
        groups = proposing_groups(task.serving.world, config.proposals)
        return ProposalNetwork(task.tables, groups, task.spec, config.proposals, config.network.hidden)


def chosen(slates: Tensor, which: Tensor) -> Tensor:
    """The slate (B, K) of each lane among its proposals (B, P, K)."""
    return slates[torch.arange(len(which), device=which.device), which]
