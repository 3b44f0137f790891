"""Double DQN that chooses among whole slates: what each cluster of items proposes."""

from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.configs import AgentConfig
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.contract import ActionSample, Step, Task
from recloop.agents.learners.off_policy.q_learning import QConfig, QLearner
from recloop.agents.learners.off_policy.replay import Layout, Replay, Replayed
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
from recloop.envs.interaction.observation import CONTEXT, Observation
from recloop.envs.interaction.randomness import Draw

_PARTS = tuple(f.name for f in fields(Proposals))
"""As a step keeps them; those of the observation after it with `after.` in front."""


@dataclass(frozen=True)
class SlateDQNConfig(QConfig):
    """Double DQN over proposed slates; defaults but `proposals` were chosen on the tune users of the built-in world.

    Args:
        proposals: which slates are proposed; none that mix groups: with them it failed a toy that it learns without.
        network: of it, `hidden` alone counts.
    """

    steps: int = 50_000
    num_envs: int = 256
    gamma: float = 0.97
    buffer_size: int = 30_000
    train_every: int = 1
    updates: int = 8
    exploration: float = 0.3
    proposals: ProposalConfig = field(default_factory=lambda: ProposalConfig(mixed=0.0))


class SlateDQN(QLearner):
    """Double Q-learning (van Hasselt, Guez and Silver, AAAI 2016) over slates that hang together.

    The actions are those of `slate-ppo` without mixed ones: each cluster and grouping of items, and all items, propose
    a slate. Q(s, A) of a proposal is the network's value of the state plus its score of the proposal. The target is
    that of Double DQN,

        reward + discount x q_target(s', A'),   A' the best proposal by the online network after the step

    with `reward` that of an n-step return, uncorrected. A lane explores with chance epsilon: it shows a proposal drawn
    uniformly. Further differences: the target network follows by Polyak averaging; what holds no parameter of a
    proposal is worked out once, when the step is made, and kept in the replay instead of observations.
    """

    name: ClassVar[str] = "slate-dqn"
    paper: ClassVar[str] = "van Hasselt et al. 2016"
    config_class: ClassVar[type[AgentConfig]] = SlateDQNConfig
    policy_class = ProposalPolicy
    keys = PROPOSAL_KEYS
    config: SlateDQNConfig
    online: ProposalNetwork
    target: ProposalNetwork

    def __init__(self, task: Task, config: SlateDQNConfig) -> None:
        super().__init__(task, config)
        groups = proposing_groups(task.serving.world, config.proposals)
        with isolated_randomness(task.seed):
            self._take(ProposalNetwork(task.tables, *groups, task.spec, config.proposals, config.network.hidden))
        p, spec = len(self.online.owner), task.spec
        layout: Layout = {
            "there": ((p,), torch.bool),
            "facts": ((p, self.online.facts), torch.float32),
            "centres": ((p, task.tables.dim), torch.float32),
            "user": ((task.tables.state_dim + len(CONTEXT) + spec.profile_dim,), torch.float32),
        }
        after = {f"after.{name}": entry for name, entry in layout.items()}
        self.replay = Replay(
            task,
            config.buffer_size,
            (),
            extra={"which": ((), torch.int64), **layout, **after},
            steps=config.return_steps,
            gamma=config.gamma,
        )

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """The best proposal by present values; any of them, with chance epsilon."""
        proposals, slates = self.online.propose(seen, self.slate_size)
        scores = self.online(proposals)[0]
        every = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
        drawn = sample(torch.zeros_like(scores), proposals.there, 1, draw.gumbel("any", every))[:, 0]
        which = torch.where(draw.uniform("explore") < self._epsilon, drawn, scores.argmax(1))
        return ActionSample(chosen(slates, which), {"which": which, **proposals.held()})

    @torch.no_grad()
    def keep(self, step: Step) -> None:
        """Store the step with what is proposed after it."""
        after = self.online.propose(step.next_observation, self.slate_size)[0]
        kept = {f"after.{name}": value for name, value in after.held().items()}
        self.replay.keep(step, {**step.acted.extra, **kept})

    def policy(self) -> ProposalPolicy:
        """The slate of highest Q."""
        return ProposalPolicy(
            self.task.serving,
            self.online,
            self.config.proposals,
            hidden=self.config.network.hidden,
            candidates=self.retriever.size,
            training={"agent": self.name, "seed": self.task.seed, **self.config.as_dict()},
            name=self.name,
        )

    def _loss(self, drawn: Replayed) -> dict[str, Tensor]:
        now = Proposals(*(drawn.extra[name] for name in _PARTS))
        after = Proposals(*(drawn.last_extra[f"after.{name}"] for name in _PARTS))
        q = _of(self.online, now, drawn.extra["which"])
        loss = F.smooth_l1_loss(q, drawn.reward + drawn.discount * self._later(after))
        return {"train/loss": loss, "train/q": q.mean()}

    @torch.no_grad()
    def _later(self, after: Proposals) -> Tensor:
        """What the target network holds of the online network's best proposal, (M,)."""
        return _of(self.target, after, self.online(after)[0].argmax(1))


def _of(network: ProposalNetwork, look: Proposals, which: Tensor) -> Tensor:
    """Q (M,) of one proposal each; the value of the state alone where nothing is proposed."""
    scores, value = network(look)
    one = which.unsqueeze(1)
    q: Tensor = value + torch.where(look.there.gather(1, one), scores.gather(1, one), 0.0)[:, 0]
    return q
