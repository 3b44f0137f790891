"""What learners of item values share: how they explore, and what they keep of a step."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from recloop.agents.learners.contract import ActionSample, Step, Task
from recloop.agents.learners.off_policy.q_learning import QConfig, QLearner
from recloop.agents.learners.off_policy.replay import Layout, Replay, Replayed
from recloop.agents.learners.returns import PlaceRewards
from recloop.agents.networks.features import FEATURE_KEYS, FeatureInputs, NetworkConfig
from recloop.agents.networks.heads import FACTS, Actor, CandidateHead, HeadName, ValueHead, admissible, make_actor
from recloop.agents.slates import FORBIDDEN, explored_places
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw


@dataclass(frozen=True)
class ItemValueConfig(QConfig):
    """What learners of item values share.

    Args:
        network: sizes, and a prior that is small beside values learned.
    """

    learning_rate: float = 2e-3
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(prior=0.3))


@dataclass(frozen=True)
class CandidateInputs:
    """What values of candidates are worked out from before any parameter is involved: all networks share it.

    Args:
        inputs: the features' part without parameters.
        items: int64 (B, C) item rows.
        facts: float32 (B, F, C) of them; see `ItemScores`.
        mask: bool (B, C), where there is an item.
    """

    inputs: FeatureInputs
    items: Tensor
    facts: Tensor
    mask: Tensor


class CandidateValues(nn.Module):
    """Scores of candidates and some values of the user's state, over one trunk.

    Args:
        actor: with head `candidates`.
        values: how many values of the state.
    """

    def __init__(self, actor: Actor, values: int) -> None:
        super().__init__()
        self.actor = actor
        self.values = nn.ModuleList(ValueHead(actor.features) for _ in range(values))

    @torch.no_grad()
    def look(self, observation: Observation) -> CandidateInputs:
        """At the candidates of an observation."""
        head = cast(CandidateHead, self.actor.head)
        items, mask = observation["candidates"].long(), admissible(observation, head.empty)
        inputs = self.actor.features.inputs(observation)
        return CandidateInputs(inputs, items, head.scores.facts(inputs.anchors, observation, items, mask), mask)

    def forward(self, look: CandidateInputs) -> tuple[Tensor, Tensor]:
        """Values (B, V) and scores (B, C); `FORBIDDEN` where there is no item."""
        trunk = self.actor.features.trunk_of(look.inputs)
        scores = cast(CandidateHead, self.actor.head).scores.of_facts(trunk, look.items, look.facts)
        values = [cast(ValueHead, head).of_trunk(trunk) for head in self.values]
        stacked = torch.stack(values, dim=1) if values else trunk[:, :0]
        return stacked, scores.masked_fill(~look.mask, FORBIDDEN)


class ItemValueLearner(QLearner):
    """Learns what items are worth to a user from a replay of steps, and shows the best slate by that.

    Exploration is epsilon-greedy by place: with chance epsilon a place of the best slate is given to an item drawn
    uniformly from the candidates; it stays as it is where the draw falls on another item of the best slate.

    A subclass writes `_best` and `_loss`, and hands its networks to `_take`.
    """

    keys: ClassVar[tuple[str, ...]] = FEATURE_KEYS
    config: ItemValueConfig
    online: CandidateValues
    target: CandidateValues

    def __init__(self, task: Task, config: ItemValueConfig) -> None:
        super().__init__(task, config)
        self._by_place = PlaceRewards(task.serving.world, task.device)
        keys = (*FEATURE_KEYS, *(("profile",) if task.spec.profile_dim else ()))
        k = self.slate_size
        layout: Layout = {
            "positions": ((k,), torch.int32),
            "facts": ((len(FACTS), k), torch.float32),
            "own": ((k,), torch.float32),
            "consumed": ((k,), torch.bool),
        }
        self.replay = Replay(
            task,
            config.buffer_size,
            keys,
            after_keys=(*keys, "candidates"),
            candidates=self.retriever.size,
            extra={**layout, **self._extra_layout()},
            steps=config.return_steps,
            gamma=config.gamma,
        )

    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """The best slate by present values, explored around."""
        with torch.no_grad():
            look = self.online.look(seen)
            positions = explored_places(self._best(seen, look), look.mask, self._epsilon, draw)
            slate = look.items.gather(1, positions).masked_fill(~look.mask.gather(1, positions), self.empty)
            facts = look.facts.gather(2, positions.unsqueeze(1).expand(-1, len(FACTS), -1))
        return ActionSample(slate, {"positions": positions, "facts": facts})

    @torch.no_grad()
    def keep(self, step: Step) -> None:
        """Store the step with each place's share of the reward."""
        response = step.response
        extra = {
            **step.acted.extra,
            "own": self._by_place(step.acted.slate, response),
            "consumed": (response.signals[..., 0] > 0.5) & response.given[..., 0],
            **self._extra(step),
        }
        self.replay.keep(step, extra)

    @abstractmethod
    def _best(self, seen: Observation, look: CandidateInputs) -> Tensor:
        """Positions (B, K) among the candidates of the best slate; inadmissible ones fill its end."""

    def _chosen(self, drawn: Replayed) -> CandidateInputs:
        """At the slates (M, K) that were shown, as they looked among the candidates then."""
        inputs = self.online.actor.features.inputs(drawn.seen)
        return CandidateInputs(inputs, drawn.slate, drawn.extra["facts"], drawn.slate < self.empty)

    def _extra_layout(self) -> Layout:
        """What else is stored with a step."""
        return {}

    def _extra(self, step: Step) -> dict[str, Tensor]:
        """The values of `_extra_layout`."""
        return {}

    def _fresh_actor(self, head: HeadName = "candidates") -> Actor:
        """An actor over candidates with weights from torch's global generator."""
        return make_actor(head, self.task.tables, self.task.spec, self.config.network)
