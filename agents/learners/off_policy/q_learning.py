"""What learners of values from a replay share: the round of updates, the targets, and how exploration falls."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recloop.agents.configs import AgentConfig
from recloop.agents.learners.checkpoints import restore_module, within
from recloop.agents.learners.contract import Learner, Task
from recloop.agents.learners.off_policy.critics import follow
from recloop.agents.learners.off_policy.replay import Replay, Replayed
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import optimizer_state, restore_optimizer


@dataclass(frozen=True)
class QConfig(AgentConfig):
    """What learners of values from a replay share.

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
        max_grad_norm: longest gradient step.
    """

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


class QLearner(Learner):
    """Fits values to a replay of steps by rounds of gradient steps; epsilon falls linearly meanwhile.

    A subclass writes `_loss`, makes its `replay`, and hands its networks to `_take`.
    """

    chooses_candidates = True
    values_candidates = True
    config: QConfig
    online: Any
    target: Any
    replay: Replay

    def __init__(self, task: Task, config: QConfig) -> None:
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
        self._epsilon = torch.ones((), device=task.device)
        self._modules: dict[str, nn.Module] = {}

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
    def _loss(self, drawn: Replayed) -> dict[str, Tensor]:
        """Scalars by tag, `train/loss` among them, which is descended."""

    def _take(self, online: nn.Module, **others: nn.Module) -> None:
        """Train these networks; `others` learn along. The target of `online` starts as a copy."""
        learning = {name: module.to(self.task.device) for name, module in {"online": online, **others}.items()}
        self.online, self.target = online, copy.deepcopy(online).requires_grad_(False)
        self._modules = {**learning, "target": self.target}
        self._parameters = [parameter for module in learning.values() for parameter in module.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=self.config.learning_rate, fused=True)
