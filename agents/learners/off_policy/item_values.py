"""What learners of item values share: how they explore, what they keep of a step, and the round of updates."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from recloop.agents.configs import AgentConfig
from recloop.agents.learners.checkpoints import optimizer_state, restore_module, restore_optimizer, within
from recloop.agents.learners.contract import ActionSample, Learner, Step, Task
from recloop.agents.learners.off_policy.critics import follow
from recloop.agents.learners.off_policy.replay import Layout, Replay, Replayed
from recloop.agents.learners.returns import PlaceRewards
from recloop.agents.networks.features import FEATURE_KEYS, FeatureInputs, NetworkConfig
from recloop.agents.networks.heads import FACTS, Actor, CandidateHead, HeadName, ValueHead, admissible, make_actor
from recloop.agents.slates import FORBIDDEN, sample
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw


@dataclass(frozen=True)
class ItemValueConfig(AgentConfig):
    """What learners of item values share.

    Args:
        buffer_size: transitions kept.
        learning_starts: transitions before the first update, made while exploring.
        batch_size: transitions a gradient step.
        train_every: steps a lane between two rounds of updates.
        updates: gradient steps a round.
        return_steps: n of n-step returns, uncorrected for exploration as in Rainbow (Hessel et al. 2018).
        tau: what the target networks take of the online ones after each gradient step, in (0, 1].
        exploration: share of training over which epsilon falls linearly.
        last_epsilon: what it falls to, from 1.
        network: sizes, and a prior that is small beside values learned.
    """

    learning_rate: float = 2e-3
    max_grad_norm: float = 10.0
    buffer_size: int = 100_000
    learning_starts: int = 2_000
    batch_size: int = 256
    train_every: int = 4
    updates: int = 4
    return_steps: int = 3
    tau: float = 0.02
    exploration: float = 0.1
    last_epsilon: float = 0.05
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(prior=0.3))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("buffer_size", "batch_size", "train_every", "updates", "return_steps"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        for name in ("tau", "exploration"):
            if not 0 < getattr(self, name) <= 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must lie in (0, 1]")
        if not 0 <= self.last_epsilon <= 1:
            raise PolicyError(f"last_epsilon={self.last_epsilon}; it must lie in [0, 1]")


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


class ItemValueLearner(Learner):
    """Learns what items are worth to a user from a replay of steps, and shows the best slate by that.

    Exploration is epsilon-greedy by place: with chance epsilon a place of the best slate is given to an item drawn
    uniformly from the candidates; it stays as it is where the draw falls on another item of the best slate.

    A subclass writes `_best` and `_loss`, and hands its networks to `_take`.
    """

    keys: ClassVar[tuple[str, ...]] = FEATURE_KEYS
    chooses_candidates = True
    values_candidates = True
    config: ItemValueConfig

    def __init__(self, task: Task, config: ItemValueConfig) -> None:
        super().__init__(task, config)
        if task.retriever is None:
            raise PolicyError(f"{self.name} chooses among candidates; give its task a retriever")
        self.retriever = task.retriever
        self.horizon = config.train_every
        self.empty, self.slate_size = task.spec.catalogue_size, task.spec.slate_size
        if self.retriever.size < self.slate_size:
            raise PolicyError(
                f"candidates={self.retriever.size} is smaller than slate_size={self.slate_size}; raise candidates"
            )
        self._by_place = PlaceRewards(task.serving.world, task.device)
        self._epsilon = torch.ones((), device=task.device)
        self._modules: dict[str, nn.Module] = {}
        places = torch.arange(self.slate_size, device=task.device)
        self._places = places.expand(task.lanes, -1)
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
            positions = self._explored(self._best(seen, look), look.mask, draw)
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

    def update(self, progress: float) -> dict[str, Tensor]:
        """A round of gradient steps, once enough is kept; the learning rate falls linearly to zero."""
        config = self.config
        self._epsilon.fill_(max(1.0 - progress / config.exploration, 0.0) * (1 - config.last_epsilon))
        self._epsilon.add_(config.last_epsilon)
        if not self.replay.holds(config.learning_starts):
            return {}
        rounds: list[dict[str, Tensor]] = []
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - progress)
        for _ in range(config.updates):
            tags = self._loss(self.replay.sample(config.batch_size))
            self._optimizer.zero_grad(set_to_none=True)
            tags["train/loss"].backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._parameters, config.max_grad_norm, foreach=True)
            self._optimizer.step()
            follow(self.target, self.online, config.tau)
            rounds.append({name: value.detach() for name, value in tags.items()})
        means = {name: torch.stack([tags[name] for tags in rounds]).mean() for name in rounds[0]}
        return {**means, "train/epsilon": self._epsilon.clone()}

    def state(self) -> dict[str, Tensor]:
        """Weights, targets, optimizer, replay and epsilon."""
        parts = {name: module.state_dict() for name, module in self._modules.items()}
        parts["optimizer"] = optimizer_state(self._optimizer)
        parts["replay"] = self.replay.state()
        named = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        return {**named, "epsilon": self._epsilon}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Learner`."""
        for name, module in self._modules.items():
            restore_module(module, within(state, name))
        restore_optimizer(self._optimizer, within(state, "optimizer"))
        self.replay.restore(within(state, "replay"))
        self._epsilon.copy_(state["epsilon"])

    @abstractmethod
    def _best(self, seen: Observation, look: CandidateInputs) -> Tensor:
        """Positions (B, K) among the candidates of the best slate; inadmissible ones fill its end."""

    @abstractmethod
    def _loss(self, drawn: Replayed) -> dict[str, Tensor]:
        """Scalars by tag, `train/loss` among them, which is descended."""

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

    def _take(self, online: CandidateValues, **others: nn.Module) -> None:
        """Train these networks; `others` learn along. The target of `online` starts as a copy."""
        learning = {name: module.to(self.task.device) for name, module in {"online": online, **others}.items()}
        self.online, self.target = online, copy.deepcopy(online).requires_grad_(False)
        self._modules = {**learning, "target": self.target}
        self._parameters = [parameter for module in learning.values() for parameter in module.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=self.config.learning_rate, fused=True)

    def _explored(self, best: Tensor, mask: Tensor, draw: Draw) -> Tensor:
        """The slate (B, K) of positions with some places given to random candidates."""
        everywhere = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        drawn = sample(
            torch.zeros_like(mask, dtype=torch.float32), mask, self.slate_size, draw.gumbel("any", everywhere)
        )
        explores = draw.uniform("explore", self._places) < self._epsilon
        new = ~(drawn.unsqueeze(2) == best.unsqueeze(1)).any(2) & mask.gather(1, drawn)
        return torch.where(explores & new, drawn, best)
