"""PPO that chooses among whole slates: what each cluster of items proposes."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from recloop.agents.learners.contract import ActionSample
from recloop.agents.learners.on_policy.ppo import PPO, PPOConfig
from recloop.agents.learners.on_policy.slate_odds import slate_odds
from recloop.agents.networks.proposals import (
    PROPOSAL_KEYS,
    ProposalConfig,
    ProposalNetwork,
    ProposalPolicy,
    Proposals,
    chosen,
    proposing_groups,
)
from recloop.agents.slates import sample
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw


@dataclass(frozen=True)
class ProposalPPOConfig(PPOConfig):
    """PPO over proposed slates; the defaults were chosen on the tune users of the built-in world.

    Args:
        proposals: which slates are proposed.
        network: of it, `hidden` alone counts.
    """

    steps: int = 100_000
    num_envs: int = 128
    validation_episodes: int = 256
    learning_rate: float = 2e-3
    gamma: float = 0.97
    rollout: int = 8
    gae_lambda: float = 0.9
    epochs: int = 4
    batch_size: int = 256
    clip: float = 0.3
    entropy: float = 0.01
    entropy_falls: bool = True
    expects: bool = True
    proposals: ProposalConfig = field(default_factory=ProposalConfig)


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
    may_hear = False
    keys = PROPOSAL_KEYS
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
            name=self.name,
        )

    def _fresh_networks(self) -> ProposalNetwork:
        config, task = self.config, self.task
        groups = proposing_groups(task.serving.world, config.proposals)
        return ProposalNetwork(task.tables, *groups, task.spec, config.proposals, config.network.hidden)
