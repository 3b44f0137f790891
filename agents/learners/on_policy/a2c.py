"""A2C with Plackett-Luce slates, on the device from rollout to update."""

from dataclasses import dataclass, fields

from torch import Tensor

from recloop.agents.learners.contract import Task
from recloop.agents.learners.on_policy.actor_critic import ActorCriticConfig, ActorCriticLearner, RolloutInputs
from recloop.agents.learners.on_policy.slate_odds import slate_odds


@dataclass(frozen=True)
class A2CConfig(ActorCriticConfig):
    """A2C (Mnih et al. 2016): one gradient step a rollout, so short rollouts and larger steps than PPO's."""

    learning_rate: float = 2e-3
    rollout: int = 4
    gae_lambda: float = 1.0


class A2C(ActorCriticLearner):
    """Advantage actor-critic of ordered slates (Mnih et al. 2016), its lanes in step.

    One gradient step over the whole rollout, with n-step returns that reach to its end. Differences from the paper:
    Adam instead of shared RMSProp, lanes of one batch instead of asynchronous actors, the entropy bonus is that of the
    first pick, rewards are divided by the running spread of the discounted return, and advantages are standardised.
    """

    name = "a2c"
    paper = "Mnih et al. 2016"
    config_class = A2CConfig
    config: A2CConfig

    def __init__(self, task: Task, config: A2CConfig) -> None:
        super().__init__(task, config)
        self._scores_and_values = task.compiled(self.networks.forward, "the networks of a2c")

    def update(self, progress: float) -> dict[str, Tensor]:
        """One step of Adam over the whole rollout."""
        config, rollout = self.config, self.rollout
        advantages = self._advantages()
        target = (advantages + rollout["value"]).flatten()
        scores, value = self._scores_and_values(RolloutInputs(*(rollout.flat(f.name) for f in fields(RolloutInputs))))
        found, entropy = slate_odds(scores, rollout.flat("positions"))
        advantage = advantages.flatten()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gain, miss, unsure = (found * advantage).mean(), (value - target).square().mean(), entropy.mean()
        loss = config.value * miss - gain - config.entropy * unsure
        rate = config.learning_rate * (1 - progress)
        self._step_down(loss, rate)
        return {
            "train/loss": loss.detach(),
            "train/policy_loss": -gain.detach(),
            "train/value_loss": miss.detach(),
            "train/entropy_loss": -unsure.detach(),
            "train/learning_rate": advantage.new_full((), rate),
        }
