"""Double DQN over item vectors: what each item of a slate is worth, now and later."""

from dataclasses import dataclass
from typing import ClassVar, cast

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
from recloop.agents.networks.heads import Actor, CandidateHead, SplitScores, ValueHead
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.slates import sample
from recloop.envs.interaction.observation import Observation


@dataclass(frozen=True)
class DoubleDQNConfig(ItemValueConfig):
    """Double DQN on slates; see `DoubleDQN`."""


class PlaceValues(CandidateValues):
    """What each candidate is worth: what it earns by its own answers, and all else that a slate brings through it.

    Args:
        actor: with head `split-candidates`.
    """

    def __init__(self, actor: Actor) -> None:
        super().__init__(actor, values=2)

    def forward(self, look: CandidateInputs) -> tuple[Tensor, Tensor]:
        """A value (B, 1) and scores (B, C), which add up to the worth of each candidate."""
        values, scores = super().forward(look)
        return values.sum(1, keepdim=True), scores

    def parts(self, look: CandidateInputs) -> tuple[Tensor, Tensor]:
        """Own earnings and the rest of the worth (B, C) of each candidate."""
        trunk = self.actor.features.trunk_of(look.inputs)
        own, rest = cast(SplitScores, cast(CandidateHead, self.actor.head).scores).parts(trunk, look.items, look.facts)
        of_own, of_rest = (cast(ValueHead, head).of_trunk(trunk).unsqueeze(1) for head in self.values)
        return of_own + own, of_rest + rest


class DoubleDQN(ItemValueLearner):
    """Double Q-learning with deep networks (van Hasselt, Guez and Silver, AAAI 2016) over item vectors.

    The paper's agent takes one action of a fixed few. Ours fills K places, so that Q(s, A) is the sum over the slate
    of q(s, i) (value decomposition, Sunehag et al. 2018): the best slate is the K highest q. The *sum* is fitted to
    the target of Double DQN, so that an item has the credit for all it does to what comes after:

        reward + discount x sum over A' of q_target(s', j),   A' the K best of the online network after the step

    with `reward` that of an n-step return. Of q, what a place earns by its own signals is known place by place and has
    a head of its own, fitted to that alone; the rest takes up what that leaves of the sum. With K = 1 this is Double
    DQN.

    Further differences: q is a value of the state plus scores of C retrieved candidates (`CandidateHead`); the
    target network follows by Polyak averaging instead of copies; epsilon is drawn by place; Huber loss as in DQN.
    """

    name: ClassVar[str] = "double-dqn"
    paper: ClassVar[str] = "van Hasselt et al. 2016"
    config_class: ClassVar[type[AgentConfig]] = DoubleDQNConfig
    policy_class = ActorPolicy
    online: PlaceValues

    def __init__(self, task: Task, config: DoubleDQNConfig) -> None:
        super().__init__(task, config)
        with isolated_randomness(task.seed):
            online = PlaceValues(self._fresh_actor("split-candidates"))
        self._take(online)

    def policy(self) -> ActorPolicy:
        """The K candidates of highest q."""
        return ActorPolicy(
            self.task.serving,
            self.online.actor,
            "split-candidates",
            self.config.network,
            candidates=self.retriever.size,
            training={"agent": self.name, "seed": self.task.seed, **self.config.as_dict()},
            name=self.name,
        )

    def _best(self, seen: Observation, look: CandidateInputs) -> Tensor:
        return sample(self.online(look)[1], look.mask, self.slate_size)

    def _loss(self, drawn: Replayed) -> dict[str, Tensor]:
        chosen = self._chosen(drawn)
        own, rest = self.online.parts(chosen)  # (M, K)
        shown = chosen.mask
        target = drawn.reward + drawn.discount * self._later(drawn.next_observation)
        q = ((own.detach() + rest) * shown).sum(1)
        earned = (F.smooth_l1_loss(own, drawn.extra["own"], reduction="none") * shown).sum() / shown.sum().clamp_min(1)
        missed = F.smooth_l1_loss(q, target)
        return {"train/loss": missed + earned, "train/q_loss": missed, "train/own_loss": earned, "train/q": q.mean()}

    @torch.no_grad()
    def _later(self, after: Observation) -> Tensor:
        """What the target network holds of the online network's best slate, (M,)."""
        look = self.online.look(after)
        best = self._best(after, look)
        value, scores = self.target(look)
        q: Tensor = value + scores.gather(1, best)  # (M, K)
        return (q * look.mask.gather(1, best)).sum(1)
