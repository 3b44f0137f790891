"""Double DQN over item vectors: what each place of a slate is worth, now and later."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.configs import AgentConfig
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.contract import Task
from recloop.agents.learners.off_policy.item_values import (
    CandidateInputs,
    CandidateValues,
    ItemValueConfig,
    ItemValueLearner,
)
from recloop.agents.learners.off_policy.replay import Replayed
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.slates import sample
from recloop.envs.interaction.observation import Observation


@dataclass(frozen=True)
class DoubleDQNConfig(ItemValueConfig):
    """Double DQN on slates; see `DoubleDQN`."""


class DoubleDQN(ItemValueLearner):
    """Double Q-learning with deep networks (van Hasselt, Guez and Silver, AAAI 2016) over item vectors.

    The paper's agent takes one action of a fixed few. Ours fills K places, so that Q(s, A) is the sum over the slate
    of q(s, i) (value decomposition, Sunehag et al. 2018): the best slate is the K highest q. Each place is a transition
    of its own. With A' the K best of the online network after the step, its target is

        own_i + (rest + discount x sum over A' of q_target(s', j)) / places shown

    where own_i is what the place's signals earned, and rest what belongs to the whole slate (leaving, diversity,
    penalties, the later steps of an n-step return). The targets of a slate add up to that of Double DQN on Q(s, A),
    and with K = 1 this is Double DQN.

    Further differences: q is a value of the state plus scores of C retrieved candidates (`CandidateHead`); the
    target network follows by Polyak averaging instead of copies; epsilon is drawn by place; Huber loss as in DQN.
    """

    name: ClassVar[str] = "double-dqn"
    config_class: ClassVar[type[AgentConfig]] = DoubleDQNConfig
    policy_class = ActorPolicy

    def __init__(self, task: Task, config: DoubleDQNConfig) -> None:
        super().__init__(task, config)
        with isolated_randomness(task.seed):
            online = CandidateValues(self._fresh_actor(), values=1)
        self._take(online)

    def policy(self) -> ActorPolicy:
        """The K candidates of highest q."""
        return ActorPolicy(
            self.task.serving,
            self.online.actor,
            "candidates",
            self.config.network,
            candidates=self.retriever.size,
            training={"agent": self.name, "seed": self.task.seed, **self.config.as_dict()},
            name=self.name,
        )

    def _best(self, seen: Observation, look: CandidateInputs) -> Tensor:
        return sample(self.online(look)[1], look.mask, self.slate_size)

    def _loss(self, drawn: Replayed) -> dict[str, Tensor]:
        chosen = self._chosen(drawn)
        value, scores = self.online(chosen)
        q, shown = value + scores, chosen.mask  # (M, K)
        target = place_targets(
            drawn.extra["own"], drawn.reward, drawn.discount, self._later(drawn.next_observation), shown
        )
        loss = (F.smooth_l1_loss(q, target, reduction="none") * shown).sum() / shown.sum().clamp_min(1)
        return {"train/loss": loss, "train/q": (q * shown).sum(1).mean()}

    @torch.no_grad()
    def _later(self, after: Observation) -> Tensor:
        """What the target network holds of the online network's best slate, (M,)."""
        look = self.online.look(after)
        best = self._best(after, look)
        value, scores = self.target(look)
        q: Tensor = value + scores.gather(1, best)  # (M, K)
        return (q * look.mask.gather(1, best)).sum(1)


def place_targets(own: Tensor, reward: Tensor, discount: Tensor, later: Tensor, shown: Tensor) -> Tensor:
    """What each place's q is drawn to, (M, K); over the places shown they add up to reward + discount x later.

    >>> one = torch.ones(1)
    >>> place_targets(torch.tensor([[1.0, 0.0]]), 2 * one, 0.5 * one, 4 * one, torch.tensor([[True, True]])).tolist()
    [[2.5, 1.5]]
    """
    own = own * shown
    rest = reward - own.sum(1) + discount * later
    return own + (rest / shown.sum(1).clamp_min(1)).unsqueeze(1)
