"""REINFORCE in the loop: the policy's own slates, item by item."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from recloop.agents.learners.contract import Step, Task
from recloop.agents.learners.on_policy.actor_critic import ActorCriticConfig, ActorCriticLearner, RolloutInputs
from recloop.agents.learners.on_policy.rollouts import RolloutBuffer
from recloop.agents.learners.returns import PlaceRewards
from recloop.agents.learners.top_k import Correction
from recloop.agents.slates import first_pick_entropy, pick_log_probs
from recloop.encoders.base.errors import PolicyError

_STREAM = 271_828
"""Added to the seed for the order of steps, apart from weights and slates."""


@dataclass(frozen=True)
class ReinforceConfig(ActorCriticConfig):
    """REINFORCE on slates; see `Reinforce`.

    Args:
        gae_lambda: 1 for returns that reach to the rollout's end, where the value network takes over.
        cap: largest importance weight.
        normalised: importance weights of a batch are divided by their mean.
        credit: what an item is held to have brought: `item`, its own signals and all that came after the slate, or
            `slate`, what its whole slate brought.
        batch_size: steps a gradient step; later batches are off-policy, which the weights correct.
        epochs: passes over a rollout.
    """

    learning_rate: float = 2e-3
    gae_lambda: float = 1.0
    entropy: float = 0.002
    cap: float = 10.0
    normalised: bool = False
    credit: Literal["item", "slate"] = "item"
    batch_size: int = 512
    epochs: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if self.credit not in ("item", "slate"):
            raise PolicyError(f"credit='{self.credit}'; choose 'item' or 'slate'")


class Reinforce(ActorCriticLearner):
    """REINFORCE (Williams 1992) on slates, in the loop.

    Slates are drawn by Plackett-Luce from the softmax over C candidates. Each of their items is one example: the
    gradient of log pi(a | s, places above), times min(pi / beta, cap) and what the item brought; beta is pi when the
    slate was drawn, so that later batches of a rollout, which are off-policy, are corrected. The picks are those of the
    policy itself, with their exact probabilities, so nothing of the top-K correction (Chen et al., WSDM 2019) is left
    to do: that is for items of a log, see `reinforce-logged`.
    Differences from Williams: returns are cut at the rollout's end, where a value network takes over, which is their
    baseline too; what an item brought is its own signals and the return after its slate, for the reward of a slate is
    known place by place; rewards are divided by the running spread of the discounted return and worths standardised;
    an entropy bonus.
    """

    name = "reinforce"
    paper: ClassVar[str] = "Williams 1992"
    config_class = ReinforceConfig
    config: ReinforceConfig

    def __init__(self, task: Task, config: ReinforceConfig) -> None:
        super().__init__(task, config)
        self.correction = Correction(1, config.cap, config.normalised)
        self.by_place = PlaceRewards(task.serving.world, task.device)
        self.own = RolloutBuffer(config.rollout)
        self.generator = torch.Generator(task.device).manual_seed(task.seed + _STREAM)
        self._loss = task.compiled(self._loss_of, "the loss of reinforce")

    @torch.no_grad()
    def keep(self, step: Step) -> None:
        """As all that draw slates do, and what each place earned by itself, (B, K), in the unit of the rewards."""
        super().keep(step)
        own = self.by_place(step.acted.slate, step.response)
        if self.config.scale_rewards:
            own = self.scale.scaled(own)
        self.own.put({"own": own})

    def update(self, progress: float) -> dict[str, Tensor]:
        """`epochs` passes over the rollout in batches of a random order."""
        config, rollout = self.config, self.rollout
        advantages = self._advantages()
        kept = {f.name: rollout.flat(f.name) for f in fields(RolloutInputs)}
        kept["positions"] = rollout.flat("positions")
        kept["target"] = (advantages + rollout["value"]).flatten()
        kept["counted"] = kept["items"].gather(1, kept["positions"]) < self.networks.empty
        kept["log_beta"] = self._acted_by(kept)
        kept["worth"] = self._worth(advantages.flatten(), kept["counted"])
        count = len(kept["target"])
        size = min(config.batch_size, count)
        rate = config.learning_rate * (1 - progress)
        told: list[dict[str, Tensor]] = []
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=self.generator, device=self.task.device)
            for start in range(0, count - size + 1, size):
                rows = order[start : start + size]
                loss, parts = self._loss({name: value.index_select(0, rows) for name, value in kept.items()})
                told.append({"train/loss": loss.detach(), **parts})
                self._step_down(loss, rate)
        means = {name: torch.stack([one[name] for one in told]).mean() for name in told[0]}
        return {**means, "train/learning_rate": means["train/loss"].new_full((), rate)}

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        return {**super().state(), "generator": self.generator.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Learner`."""
        super().restore(state)
        self.generator.set_state(state["generator"])

    def _worth(self, advantage: Tensor, counted: Tensor) -> Tensor:
        """What each place brought more than expected, (M, K), standardised over those that hold an item."""
        own = self.own.flat("own")
        worth = advantage.unsqueeze(1).expand_as(own)
        if self.config.credit == "item":
            worth = worth - own.sum(1, keepdim=True) + own
        count = counted.sum().clamp_min(1)
        worth = worth - (worth * counted).sum() / count
        return worth / (((worth.square() * counted).sum() / count).sqrt() + 1e-8)

    @torch.no_grad()
    def _acted_by(self, kept: Mapping[str, Tensor]) -> Tensor:
        """Log-probability (M, K) of each item in its place when it was drawn: the weights are still those."""
        look = _look(kept)
        return pick_log_probs(self.networks(look)[0], look.items < self.networks.empty, kept["positions"])

    def _loss_of(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        look = _look(batch)
        scores, value = self.networks(look)
        mask = look.items < self.networks.empty
        log_pi = pick_log_probs(scores, mask, batch["positions"])
        policy_loss = self.correction.loss(log_pi, batch["log_beta"], batch["worth"], batch["counted"])
        miss, unsure = (value - batch["target"]).square().mean(), first_pick_entropy(scores, mask).mean()
        loss = policy_loss + config.value * miss - config.entropy * unsure
        parts = {"train/policy_loss": policy_loss, "train/value_loss": miss, "train/entropy_loss": -unsure}
        return loss, {name: part.detach() for name, part in parts.items()}


def _look(kept: Mapping[str, Tensor]) -> RolloutInputs:
    return RolloutInputs(*(kept[f.name] for f in fields(RolloutInputs)))
