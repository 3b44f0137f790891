"""PPO with Plackett-Luce slates, on the device from rollout to update."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import torch
from torch import Tensor

from recloop.agents.configs import AgentConfig
from recloop.agents.learners.contract import Task
from recloop.agents.learners.on_policy.actor_critic import ActorCriticConfig, ActorCriticLearner
from recloop.agents.learners.on_policy.slate_odds import slate_odds
from recloop.encoders.base.errors import PolicyError

_STREAM = 314_159
"""Added to the seed for the order of transitions, apart from weights and slates."""
_SB3_NAMES = {
    "rollout": "n_steps",
    "epochs": "n_epochs",
    "clip": "clip_range",
    "entropy": "ent_coef",
    "value": "vf_coef",
}
"""Settings that Stable-Baselines3 calls otherwise."""


@dataclass(frozen=True)
class PPOConfig(ActorCriticConfig):
    """PPO (Schulman et al. 2017); the defaults were chosen for wall-clock time in the built-in world.

    Args:
        batch_size: transitions a gradient step; what does not fill one is left out of the epoch.
        epochs: passes over a rollout.
        clip: range of the probability ratio.
        entropy_falls: whether the weight of the entropy falls linearly to zero, as the learning rate does.
        target_kl: an update stops early beyond 1.5 times this divergence, which makes it wait for the device at every
            gradient step; None for never.
    """

    num_envs: int = 256
    learning_rate: float = 1.5e-3
    rollout: int = 4
    batch_size: int = 256
    epochs: int = 3
    clip: float = 0.4
    entropy_falls: bool = False
    target_kl: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if not self.clip > 0:
            raise PolicyError(f"clip={self.clip}; it must be above 0")

    @classmethod
    def equal_to(cls, config: AgentConfig) -> Self:
        """The settings of `ppo` in Stable-Baselines3, by the names they have here."""
        named = {f.name: getattr(config, _SB3_NAMES.get(f.name, f.name), None) for f in fields(cls)}
        return cls(**{name: value for name, value in named.items() if value is not None})


class PPO(ActorCriticLearner):
    """Proximal policy optimisation of ordered slates (Schulman et al. 2017).

    The policy is Plackett-Luce over the scores of C candidates; a slate's log-probability is exact, masks are kept and
    no item comes twice. Differences from the paper: the entropy bonus is that of the first pick; rewards are divided
    by the running spread of the discounted return, advantages standardised a batch; actor and critic share a trunk.
    Differences from `ppo` (Stable-Baselines3): what holds no parameter (means of past slates, facts about candidates)
    is worked out once a step instead of at every pass; the last, smaller batch of an epoch is left out.
    """

    name = "recloop-ppo"
    paper: ClassVar[str] = "Schulman et al. 2017"
    config_class = PPOConfig
    config: PPOConfig

    def __init__(self, task: Task, config: PPOConfig) -> None:
        super().__init__(task, config)
        self._look = tuple(f.name for f in fields(self.look_class))  # a compiler cannot follow `fields`
        self._entropy = torch.tensor(config.entropy, device=task.device)
        self.generator = torch.Generator(task.device).manual_seed(task.seed + _STREAM)
        self._loss = task.compiled(self._loss_of, "the loss of recloop-ppo")

    def update(self, progress: float) -> dict[str, Tensor]:
        """`epochs` passes over the rollout in batches of a random order."""
        config = self.config
        self._entropy.fill_(config.entropy * (1 - progress if config.entropy_falls else 1))
        kept = self._kept()
        count = len(kept["target"])
        size = min(config.batch_size, count)
        rate = config.learning_rate * (1 - progress)
        told: list[dict[str, Tensor]] = []
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=self.generator, device=self.task.device)
            for start in range(0, count - size + 1, size):
                rows = order[start : start + size]
                batch = {name: value.index_select(0, rows) for name, value in kept.items()}
                loss, parts = self._loss(batch)
                told.append({"train/loss": loss.detach(), **parts})
                if config.target_kl is not None and float(parts["train/approx_kl"]) > 1.5 * config.target_kl:
                    return _means(told, rate)
                self._step_down(loss, rate)
        return _means(told, rate)

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        return {**super().state(), "generator": self.generator.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Learner`."""
        super().restore(state)
        self.generator.set_state(state["generator"])

    def _kept(self) -> dict[str, Tensor]:
        """What an update learns from, (T B, ...) by name."""
        rollout, advantages = self.rollout, self._advantages()
        kept = {name: rollout.flat(name) for name in [*self._look, "positions", "log_prob"]}
        return {**kept, "advantage": advantages.flatten(), "target": (advantages + rollout["value"]).flatten()}

    def _gain(self, scores: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What is to be made large, the change of log-probabilities, and the entropy (M,), of scores (M, C)."""
        found, entropy = slate_odds(scores, batch["positions"])
        advantage = batch["advantage"]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        change = found - batch["log_prob"]
        ratio = change.exp()
        clipped = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        return torch.minimum(ratio * advantage, clipped * advantage).mean(), change, entropy

    def _loss_of(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        scores, value = self.networks(self.look_class(*(batch[name] for name in self._look)))
        gain, change, entropy = self._gain(scores, batch)
        ratio = change.exp()
        miss = (value - batch["target"]).square().mean()
        unsure = entropy.mean()
        loss = config.value * miss - gain - self._entropy * unsure
        with torch.no_grad():
            parts = {
                "train/policy_loss": -gain,
                "train/value_loss": miss,
                "train/entropy_loss": -unsure,
                "train/approx_kl": (ratio - 1 - change).mean(),
                "train/clip_fraction": ((ratio - 1).abs() > config.clip).float().mean(),
            }
        return loss, {name: part.detach() for name, part in parts.items()}


def _means(told: list[dict[str, Tensor]], rate: float) -> dict[str, Tensor]:
    """Mean of every scalar over the batches, and the learning rate."""
    means = {name: torch.stack([one[name] for one in told]).mean() for name in told[0]}
    return {**means, "train/learning_rate": means["train/loss"].new_full((), rate)}
