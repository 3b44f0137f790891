"""Learners that draw slates of candidates from the policy they improve: how they act, and what they keep of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recloop.agents.configs import AgentConfig
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.checkpoints import flattened, restore_module, within
from recloop.agents.learners.contract import ActionSample, Learner, Step, Task
from recloop.agents.learners.on_policy.rollouts import RewardScale, RolloutBuffer
from recloop.agents.learners.on_policy.slate_odds import slate_odds
from recloop.agents.networks.features import FEATURE_KEYS, FeatureInputs, ItemTables, NetworkConfig
from recloop.agents.networks.heads import CandidateHead, ValueHead, admissible, make_actor
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.policy import Policy
from recloop.agents.slates import FORBIDDEN, sample
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import optimizer_state, restore_optimizer
from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw


@dataclass(frozen=True)
class ActorCriticConfig(AgentConfig):
    """What on-policy learners share.

    Args:
        rollout: steps a lane between two updates.
        gae_lambda: of generalised advantage estimation; 1 gives n-step returns.
        entropy: weight of the entropy of the first pick.
        value: weight of the value loss.
        max_grad_norm: longest gradient step.
        scale_rewards: divide rewards by the running spread of the discounted return.
        expects: learn from what the users expect of a slate, its reward and whether they leave, in place of what is
            drawn, where they tell (`Expected`): the same in the mean, and less noise.
    """

    rollout: int = 8
    gae_lambda: float = 0.5
    entropy: float = 0.01
    value: float = 0.5
    max_grad_norm: float = 5.0
    scale_rewards: bool = True
    expects: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollout < 1:
            raise PolicyError(f"rollout={self.rollout}; it must be at least 1")
        if not 0 <= self.gae_lambda <= 1:
            raise PolicyError(f"gae_lambda={self.gae_lambda}; it must lie in [0, 1]")


@dataclass(frozen=True)
class RolloutInputs(TensorStruct):
    """What a slate is chosen from, before any parameter is involved: worked out when acting, reused in every update.

    Args:
        user: float32 (B, d + c); see `FeatureInputs`.
        slates: float32 (B, L, 2 d).
        rest: float32 (B, d + p).
        items: int64 (B, C) candidates; N fills up.
        facts: float32 (B, F, C) of the candidates; see `ItemScores`.
    """

    user: Tensor
    slates: Tensor
    rest: Tensor
    items: Tensor
    facts: Tensor


class SlateActorCritic(nn.Module):
    """An actor on candidates and a value network on one trunk: the networks of `ppo` in Stable-Baselines3.

    Args:
        tables: the items.
        spec: sizes of observations.
        network: sizes.
    """

    def __init__(self, tables: ItemTables, spec: ObservationSpec, network: NetworkConfig) -> None:
        super().__init__()
        self.actor = make_actor("candidates", tables, spec, network)
        self.value = ValueHead(self.actor.features)
        self.empty = tables.catalogue_size

    @torch.no_grad()
    def look(self, observation: Observation) -> tuple[RolloutInputs, Tensor, Tensor]:
        """All that acting needs: what later updates reuse, scores (B, C), values (B,)."""
        inputs = self.actor.features.inputs(observation)
        trunk = self.actor.features.trunk_of(inputs)
        items = observation["candidates"].long()
        mask = admissible(observation, self.empty)
        scores, facts = self._head.scores.with_facts(trunk, inputs.anchors, observation, items, mask)
        look = RolloutInputs(inputs.user, inputs.slates, inputs.rest, items, facts)
        return look, scores.masked_fill(~mask, FORBIDDEN), self.value.of_trunk(trunk)

    def forward(self, look: RolloutInputs) -> tuple[Tensor, Tensor]:
        """Scores (B, C), `FORBIDDEN` at empty places, and values (B,)."""
        inputs = FeatureInputs(look.user, look.slates, look.rest, look.rest)  # anchors are in the facts already
        trunk = self.actor.features.trunk_of(inputs)
        scores = self._head.scores.of_facts(trunk, look.items, look.facts)
        return scores.masked_fill(look.items >= self.empty, FORBIDDEN), self.value.of_trunk(trunk)

    @torch.no_grad()
    def value_of(self, observation: Observation) -> Tensor:
        """Values (B,)."""
        features = self.actor.features
        return self.value.of_trunk(features.trunk_of(features.inputs(observation)))

    @property
    def _head(self) -> CandidateHead:
        head = self.actor.head
        assert isinstance(head, CandidateHead)
        return head


class ActorCriticLearner(Learner):
    """Acts by a Plackett-Luce policy over candidates and keeps rollouts; the update is the subclass's.

    Values of the last observation of an episode that the time limit ended come from `Step.next_observation`: on the
    CPU of those lanes alone, on a GPU of all lanes, which is cheaper there than asking how many they are.
    """

    policy_class: ClassVar[type[Policy]] = ActorPolicy
    look_class: ClassVar[type[Any]] = RolloutInputs
    """The dataclass of what an update reads of an observation."""
    keys: ClassVar[tuple[str, ...]] = FEATURE_KEYS
    chooses_candidates = True
    may_hear = True
    config: ActorCriticConfig

    def __init__(self, task: Task, config: ActorCriticConfig) -> None:
        super().__init__(task, config)
        assert task.retriever is not None
        self.retriever = task.retriever
        if self.retriever.size < task.spec.slate_size:
            raise PolicyError(
                f"candidates={self.retriever.size} is smaller than slate_size={task.spec.slate_size}; raise candidates "
                "or lower slate_size"
            )
        self.horizon, self.wants_expected = config.rollout, config.expects
        with isolated_randomness(task.seed):
            self.networks = self._fresh_networks().to(task.device)
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
        self.rollout = RolloutBuffer(config.rollout)
        self.scale = RewardScale(config.gamma, task.lanes, task.device)

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """A slate drawn by Gumbel top-k, with its exact log-probability."""
        look, scores, value = self.networks.look(seen)
        mask = scores > FORBIDDEN / 2
        positions = sample(scores, mask, self.task.spec.slate_size, draw.gumbel("slate", look.items))
        empty = self.networks.empty
        slate = look.items.gather(1, positions).masked_fill(~mask.gather(1, positions), empty)
        extra = {"positions": positions, "log_prob": slate_odds(scores, positions)[0], "value": value}
        return ActionSample(slate, {**extra, **{f.name: getattr(look, f.name) for f in fields(look)}})

    @torch.no_grad()
    def keep(self, step: Step) -> None:
        """Everything that the update needs, in place."""
        config, done, stays = self.config, step.terminated | step.truncated, (~step.terminated).float()
        reward = self.scale(step.reward, done) if config.scale_rewards else step.reward
        owed = step.truncated
        if step.expected is not None:  # who left might have stayed: what they then saw is worth something
            stays, owed = step.expected.stays, done
            reward = self.scale.scaled(step.expected.reward) if config.scale_rewards else step.expected.reward
        kept = {"reward": reward, "done": done, "discount": config.gamma * stays}
        owed = done | True if self.rollout.at_last else owed
        self.rollout.put({**step.acted.extra, **kept, "next_value": self._values_after(step.next_observation, owed)})

    def _fresh_networks(self) -> Any:
        """`SlateActorCritic`, or what has its methods."""
        return SlateActorCritic(self.task.tables, self.task.spec, self.config.network)

    def policy(self) -> Policy:
        """The most likely slate."""
        policy = ActorPolicy(
            self.task.serving,
            self.networks.actor,
            "candidates",
            self.config.network,
            candidates=self.retriever.size,
            training={"agent": self.name, "seed": self.task.seed, **self.config.as_dict()},
            name=self.name,
        )
        return policy

    def state(self) -> dict[str, Tensor]:
        """See `Learner`; a rollout is empty between two updates."""
        parts = {
            "networks": self.networks.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "scale": self.scale.state(),
        }
        return flattened(parts)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Learner`."""
        restore_module(self.networks, within(state, "networks"))
        restore_optimizer(self.optimizer, within(state, "optimizer"))
        self.scale.restore(within(state, "scale"))

    def _advantages(self) -> Tensor:
        """(T, B); fills in the values of what came next where they were those of the next observation acted on."""
        rollout = self.rollout
        done, following = rollout["done"], rollout["next_value"].clone()
        following[:-1] = torch.where(done[:-1], following[:-1], rollout["value"][1:])
        return estimated_advantages(
            rollout["reward"],
            rollout["value"],
            following,
            rollout["discount"],
            done,
            self.config.gae_lambda,
        )

    def _values_after(self, after: Observation, owed: Tensor) -> Tensor:
        """Values (B,) of the lanes `owed` (B,) at least; anything elsewhere."""
        if self.task.device.type != "cpu":
            every: Tensor = self.networks.value_of(after)
            return every
        rows = owed.nonzero()[:, 0]
        values = torch.zeros(len(owed))
        if len(rows):
            some = {key: value[rows] for key, value in after.items()} if len(rows) < len(owed) else after
            values[rows] = self.networks.value_of(some)
        return values

    def _step_down(self, loss: Tensor, rate: float) -> None:
        """One step of Adam against the gradient of the loss, no longer than `max_grad_norm`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.networks.parameters(), self.config.max_grad_norm, foreach=True)
        self.optimizer.step()


@torch.no_grad()
def estimated_advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, discount: Tensor, done: Tensor, trace: float
) -> Tensor:
    """Generalised advantages (T, B), Schulman et al. 2016; `advantage + value` is what the value net learns.

    Args:
        reward: float32 (T, B).
        value: float32 (T, B) of the observations acted on.
        next_value: float32 (T, B) of what the same user's observation was after the step.
        discount: float32 (T, B) of what comes after the step, in [0, 1]: 0 where the user left for good; where the time
            limit came first it is still owed.
        done: bool (T, B) the next step is another user's.
        trace: lambda in [0, 1]; 1 gives n-step returns that reach as far as the rollout does, 0 one-step ones.
    """
    surprise = reward + discount * next_value - value  # (T, B)
    decay = discount * trace * ~done
    advantage = torch.empty_like(surprise)
    after = torch.zeros_like(surprise[0])
    for step in range(len(surprise) - 1, -1, -1):
        after = torch.addcmul(surprise[step], decay[step], after, out=advantage[step])
    return advantage
