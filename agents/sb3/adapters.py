"""Our actors inside Stable-Baselines3's policy classes, overriding as little as can be.

The features extractor is the whole actor: it hands SB3 one tensor, [features | action scores]. So what SB3 calls
`action_net` or `q_net` only cuts the scores out, and the value network reads the features; `forward`,
`evaluate_actions`, `predict_values` and the target network stay SB3's own.
"""

from typing import Any, Self, cast

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3 import DQN
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor, nn

from recloop.agents.networks.features import ItemTables, NetworkConfig
from recloop.agents.networks.heads import HeadName, ValueHead, make_actor
from recloop.agents.slates import FORBIDDEN, first_pick_entropy, log_prob, sample
from recloop.envs.interaction.observation import Observation, ObservationSpec


class PlackettLuceDistribution(Distribution):
    """Distribution over slates (B, K) of positions into C candidates, without repeats.

    SB3 samples each place of a `MultiDiscrete` action by itself, and so repeats items. This draws by Gumbel top-k.
    Noise comes from torch's global generator, as everywhere in SB3; `training` gives it back as it was.

    Args:
        slate_size: K.

    Entropy is that of the *first pick*, (B,): exact and cheap. The slate's own entropy has no closed form; for
    scores that change slowly from pick to pick it is about K times this.
    """

    def __init__(self, slate_size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slate_size = slate_size

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Not used: the scores come from a `CandidateHead`."""
        raise NotImplementedError("scores come from recloop.agents.networks.heads.CandidateHead")

    def proba_distribution(self, scores: Tensor) -> Self:
        """Scores (B, C); inadmissible candidates score `FORBIDDEN`."""
        self.scores = scores
        self.mask = scores > FORBIDDEN / 2
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Exact log-probability (B,) of ordered slates (B, K)."""
        return log_prob(self.scores, self.mask, actions.long())

    def entropy(self) -> Tensor:
        return first_pick_entropy(self.scores, self.mask)

    def sample(self) -> Tensor:
        uniform = torch.rand_like(self.scores).clamp_min(1e-20)
        return sample(self.scores, self.mask, self.slate_size, -torch.log(-torch.log(uniform)))

    def mode(self) -> Tensor:
        """The most likely slate: the K best candidates, best first."""
        return sample(self.scores, self.mask, self.slate_size)

    def actions_from_params(self, scores: Tensor, deterministic: bool = False) -> Tensor:
        return self.proba_distribution(scores).get_actions(deterministic)

    def log_prob_from_params(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        actions = self.actions_from_params(scores)
        return actions, self.log_prob(actions)


class ItemActor(BaseFeaturesExtractor):
    """An `Actor` as a features extractor: observation -> [features | action scores].

    SB3 casts observations to float32 on the way, which is exact for catalogues up to 16.7 million items.

    Args:
        observation_space: a Dict; C is read from it.
        head: action mode.
        tables: the items.
        spec: of observations.
        config: sizes.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        head: HeadName,
        tables: ItemTables,
        spec: ObservationSpec,
        config: NetworkConfig,
    ) -> None:
        actor = make_actor(head, tables, spec, config)
        as_long_as = {"candidates": "candidates", "item": "action_mask"}
        actions = tables.dim if head == "proto" else _length(observation_space, as_long_as[head])
        super().__init__(observation_space, actor.features.size + actions)
        self.actor = actor

    def forward(self, observations: Observation) -> Tensor:
        features = self.actor.features(observations)
        return torch.cat([features, self.actor.head(features, observations)], dim=1)


class Cut(nn.Module):
    """The action scores of [features | action scores]."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def forward(self, latent: Tensor) -> Tensor:
        return latent[:, self.start :]


class CutValue(nn.Module):
    """The value network on the features of [features | action scores]."""

    def __init__(self, end: int, value: ValueHead) -> None:
        super().__init__()
        self.end, self.value = end, value

    def forward(self, latent: Tensor) -> Tensor:
        value: Tensor = self.value(latent[:, : self.end])
        return value


class SB3SlatePolicy(ActorCriticPolicy):
    """PPO on `candidates`: `MultiDiscrete([C] * K)` actions from a Plackett-Luce distribution over slates."""

    def _build(self, lr_schedule: Schedule) -> None:
        _install(self, lr_schedule)
        self.action_dist = PlackettLuceDistribution(_length_of(self.action_space))

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        distribution = cast(PlackettLuceDistribution, self.action_dist)
        return distribution.proba_distribution(self.action_net(latent_pi))


class ProtoActorCritic(ActorCriticPolicy):
    """PPO on `proto`: a Gaussian around a direction in item space."""

    def _build(self, lr_schedule: Schedule) -> None:
        start = torch.full((_length_of(self.action_space),), float(self.log_std_init))
        self.log_std = nn.Parameter(start)
        _install(self, lr_schedule)


class PickActorCritic(MaskableActorCriticPolicy):
    """MaskablePPO on `candidates`, one pick of the slate a step."""

    def _build(self, lr_schedule: Schedule) -> None:
        _install(self, lr_schedule)


class ItemQNetwork(QNetwork):
    """Q-values of all items, cut out of what `ItemActor` hands over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "net_arch": []})
        self.q_net = nn.Sequential(Cut(_actor_of(self).actor.features.size))


class ItemDQNPolicy(DQNPolicy):
    """DQN on `item`: both networks score item vectors."""

    def make_q_net(self) -> ItemQNetwork:
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return ItemQNetwork(**arguments).to(self.device)


class MaskedDQN(DQN):
    """DQN that explores among admissible items only, each lane by itself.

    Differences from SB3's: epsilon is drawn a lane instead of once for the whole batch; random actions keep to
    `action_mask`; exploration has a generator of its own.
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        self._exploration = np.random.default_rng(self.seed)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        observation = cast(dict[str, np.ndarray], self._last_obs)
        mask = observation["action_mask"] > 0  # (B, N)
        random = (mask * self._exploration.random(mask.shape, dtype=np.float32)).argmax(1)
        if self.num_timesteps < learning_starts:
            return random, random
        best, _ = self.policy.predict(observation, deterministic=True)
        explores = self._exploration.random(n_envs) < self.exploration_rate
        actions = np.where(explores, random, best)
        return actions, actions


def _install(policy: ActorCriticPolicy | MaskableActorCriticPolicy, lr_schedule: Schedule) -> None:
    """Give an actor-critic policy its networks and optimizer."""
    policy._build_mlp_extractor()  # the identity, as net_arch is empty
    actor = _actor_of(policy)
    size = actor.actor.features.size
    policy.action_net = Cut(size)
    policy.value_net = CutValue(size, ValueHead(actor.actor.features))  # type: ignore[assignment]
    adam = cast(Any, policy.optimizer_class)
    policy.optimizer = adam(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)


def _actor_of(policy: BasePolicy) -> ItemActor:
    return cast(ItemActor, policy.features_extractor)


def _length(space: gym.spaces.Dict, key: str) -> int:
    """The first length of one key's shape; 0 where the key is not observed."""
    return _length_of(space[key]) if key in space.spaces else 0


def _length_of(space: gym.Space[Any]) -> int:
    return int((space.shape or (0,))[0])
