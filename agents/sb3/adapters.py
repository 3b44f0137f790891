"""Our actors inside Stable-Baselines3's policy classes, overriding as little as can be.

The features extractor is the whole actor: it hands SB3 one tensor, [features | action scores]. So what SB3 calls
`action_net`, `q_net` or `mu` only cuts the scores out, and value networks read the features; `forward`,
`evaluate_actions`, `predict_values` and target networks stay SB3's own.
"""

from collections.abc import Mapping
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor, nn

from recloop.agents.networks.features import ItemTables, LoopFeatures, NetworkConfig
from recloop.agents.networks.heads import Carried, HeadName, RecurrentActor, ValueHead, make_actor
from recloop.agents.sb3.distribution import PlackettLuceDistribution
from recloop.envs.interaction.observation import Observation, ObservationSpec


class Layout:
    """Where the keys of an observation lie in one flat float32 vector; exact for catalogues up to 16.7 million items.

    Args:
        space: of the observations; keys in its order.
    """

    def __init__(self, space: gym.spaces.Dict) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {key: box.shape or () for key, box in space.spaces.items()}
        self.sizes = [int(np.prod(shape)) for shape in self.shapes.values()]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    def pack(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Observation of B lanes -> (B, size)."""
        return torch.cat([observation[key].flatten(1).float() for key in self.shapes], dim=1)

    def unpack(self, flat: Tensor) -> Observation:
        """Undo `pack`, but for the types of numbers."""
        parts = zip(self.shapes.items(), torch.split(flat, self.sizes, dim=1), strict=True)
        return {key: part.view(-1, *shape) for (key, shape), part in parts}


class FlatVecEnv(VecEnvWrapper):
    """Observations as one vector, for algorithms that join batches of them and so cannot read a Dict."""

    def __init__(self, venv: VecEnv) -> None:
        self.layout = Layout(cast(gym.spaces.Dict, venv.observation_space))
        super().__init__(venv, gym.spaces.Box(-np.inf, np.inf, (self.layout.size,), np.float32))

    def reset(self) -> np.ndarray:
        """Observations (B, size)."""
        return self._flat(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        """As the wrapped environment's, with flat observations."""
        observation, reward, done, infos = self.venv.step_wait()
        for lane in done.nonzero()[0]:
            last = {key: value[None] for key, value in infos[lane]["terminal_observation"].items()}
            infos[lane]["terminal_observation"] = self._flat(last)[0]
        return self._flat(observation), reward, done, infos

    def _flat(self, observation: Any) -> np.ndarray:
        return self.layout.pack({key: torch.as_tensor(value) for key, value in observation.items()}).numpy()


class CriticFeatures(BaseFeaturesExtractor):
    """`LoopFeatures` alone, for critics that are given an action.

    Args:
        observation_space: of the environment.
        space: of the observations as a Dict, which `observation_space` may hold flat.
        tables, spec, config: of the features.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        space: gym.spaces.Dict,
        tables: ItemTables,
        spec: ObservationSpec,
        config: NetworkConfig,
        **of_actors: Any,
    ) -> None:
        features = LoopFeatures(tables, spec, config)
        super().__init__(observation_space, features.size)
        self.features, self.layout = features, Layout(space)

    def forward(self, observations: Observation | Tensor) -> Tensor:
        features: Tensor = self.features(_by_key(observations, self.layout))
        return features


class ItemActor(BaseFeaturesExtractor):
    """An `Actor` as a features extractor: observation -> [features | action scores].

    SB3 casts observations to float32 on the way. A `RecurrentActor` can score only once its memory was asked, so here
    it gives [features | observation], and its scores are worked out by `ScoresOf`.

    Args:
        observation_space: of the environment.
        space: of the observations as a Dict, which `observation_space` may hold flat; C is read from it.
        head: action mode.
        tables: the items.
        spec: of observations.
        config: sizes.
        memory: units of a `RecurrentActor`; 0 for an `Actor`.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        space: gym.spaces.Dict,
        head: HeadName,
        tables: ItemTables,
        spec: ObservationSpec,
        config: NetworkConfig,
        memory: int = 0,
    ) -> None:
        actor = make_actor(head, tables, spec, config, memory)
        layout = Layout(space)
        as_long_as = {"candidates": "candidates", "item": "action_mask"}
        actions = tables.dim if head == "proto" else layout.shapes[as_long_as[head]][0]
        super().__init__(observation_space, actor.features.size + (layout.size if memory else actions))
        self.actor, self.layout, self.head = actor, layout, head

    @property
    def size(self) -> int:
        """Length of the features."""
        return self.actor.features.size

    def forward(self, observations: Observation | Tensor) -> Tensor:
        observation = _by_key(observations, self.layout)
        features = self.actor.features(observation)
        if isinstance(self.actor, RecurrentActor):
            return torch.cat([features, self.layout.pack(observation)], dim=1)
        return torch.cat([features, self.actor.head(features, observation)], dim=1)

    def scores(self) -> nn.Module:
        """What makes action scores of a latent vector."""
        return ScoresOf(self) if isinstance(self.actor, RecurrentActor) else Cut(self.size)


class Cut(nn.Module):
    """The action scores of [features | action scores]."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def forward(self, latent: Tensor) -> Tensor:
        return latent[:, self.start :]


class ScoresOf(nn.Module):
    """[features | observation] -> action scores, by the head of an actor."""

    def __init__(self, extractor: ItemActor) -> None:
        super().__init__()
        self.head, self.layout, self.size = extractor.actor.head, extractor.layout, extractor.size

    def forward(self, latent: Tensor) -> Tensor:
        scores: Tensor = self.head(latent[:, : self.size], self.layout.unpack(latent[:, self.size :]))
        return scores


class CutValue(nn.Module):
    """The value network on the features of a latent vector."""

    def __init__(self, end: int, value: ValueHead) -> None:
        super().__init__()
        self.end, self.value = end, value

    def forward(self, latent: Tensor) -> Tensor:
        value: Tensor = self.value(latent[:, : self.end])
        return value


class ItemActorCritic:
    """Before an actor-critic policy class: networks that score items; slates of `MultiDiscrete` do not repeat one."""

    def _build(self: Any, lr_schedule: Schedule) -> None:
        if isinstance(self.action_space, gym.spaces.Box):
            self.log_std = nn.Parameter(torch.full(self.action_space.shape, float(self.log_std_init)))
        if isinstance(self.action_space, gym.spaces.MultiDiscrete):
            self.action_dist = PlackettLuceDistribution(len(self.action_space.nvec))
        self._build_mlp_extractor()  # the identity, as net_arch is empty
        extractor = self.features_extractor
        self.action_net = extractor.scores()
        self.value_net = CutValue(extractor.size, ValueHead(extractor.actor.features))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_action_dist_from_latent(self: Any, latent_pi: Tensor) -> Distribution:
        if isinstance(self.action_dist, PlackettLuceDistribution):
            return self.action_dist.proba_distribution(self.action_net(latent_pi))
        found: Distribution = cast(Any, super())._get_action_dist_from_latent(latent_pi)
        return found


class SequenceMemory(nn.Module):
    """What RecurrentPPO takes for its LSTM: [features | observation] -> the same, the features with memory.

    Args:
        extractor: of a `RecurrentActor`.
    """

    num_layers = 1

    def __init__(self, extractor: ItemActor) -> None:
        super().__init__()
        self.actor = cast(RecurrentActor, extractor.actor)
        self.size, self.input_size = extractor.size, extractor.features_dim
        self.hidden_size = self.actor.memory.hidden_size

    def forward(self, inputs: Tensor, carried: Carried) -> tuple[Tensor, Carried]:
        """Inputs (T, B, input_size) and an LSTM's states."""
        features, carried = self.actor.remember(inputs[..., : self.size], carried)
        return torch.cat([features, inputs[..., self.size :]], dim=2), carried


class ItemRecurrentPolicy(ItemActorCritic, RecurrentActorCriticPolicy):  # type: ignore[misc]
    """RecurrentPPO's policy, whose actor remembers; the value network reads the features without memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "shared_lstm": False, "enable_critic_lstm": False})
        rate = self.optimizer.param_groups[0]["lr"]
        self.lstm_actor = cast(nn.LSTM, SequenceMemory(cast(ItemActor, self.features_extractor)))
        self.critic = cast(Any, nn.Identity())
        self.optimizer = cast(Any, self.optimizer_class)(self.parameters(), lr=rate, **self.optimizer_kwargs)


class QValues(nn.Module):
    """[features | item scores] -> Q-values (B, A), or quantiles (B, Q x A) of what each action returns.

    A head of `item` has the state's value in its scores already. Quantiles spread around an action's score as those of
    the state do, alike for all of its actions, so that the best action is the one of the highest score.

    Args:
        extractor: whose scores they are.
        quantiles: Q; 0 for Q-values.
    """

    def __init__(self, extractor: ItemActor, quantiles: int = 0) -> None:
        super().__init__()
        features = extractor.actor.features
        self.size, self.dim = extractor.size, features.dim
        self.value = nn.Linear(features.hidden, quantiles or 1) if quantiles or extractor.head != "item" else None

    def forward(self, latent: Tensor) -> Tensor:
        scores = latent[:, self.size :]
        if self.value is None:
            return scores
        trunk, _ = LoopFeatures.split(latent[:, : self.size], self.dim)
        values: Tensor = self.value(trunk)
        return (values.unsqueeze(2) + scores.unsqueeze(1)).flatten(1)


class ItemQNetwork(QNetwork):
    """Q-values of what `ItemActor` scores."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "net_arch": []})
        self.q_net = nn.Sequential(QValues(cast(ItemActor, self.features_extractor)))


class ItemDQNPolicy(DQNPolicy):
    """DQN: both networks score item vectors."""

    def make_q_net(self) -> ItemQNetwork:
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return ItemQNetwork(**arguments).to(self.device)


class ItemQuantileNetwork(QuantileNetwork):
    """Quantiles around what `ItemActor` scores."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "net_arch": []})
        self.quantile_net = nn.Sequential(QValues(cast(ItemActor, self.features_extractor), self.n_quantiles))


class ItemQRDQNPolicy(QRDQNPolicy):
    """QR-DQN: both networks score item vectors."""

    def make_quantile_net(self) -> ItemQuantileNetwork:
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return ItemQuantileNetwork(**arguments).to(self.device)


class ItemContinuous:
    """Before the policy class of an off-policy algorithm on Box actions: an actor in item space, critics on features.

    The mean is the actor's direction; tanh keeps it inside the space, as SB3 has it.
    """

    def make_actor(self: Any, features_extractor: Any = None) -> nn.Module:
        """The actor, whose spread starts alike for all states."""
        actor = cast(Any, super()).make_actor(features_extractor)
        cut = actor.features_extractor.scores()
        if hasattr(actor, "log_std"):
            actor.mu = cut
            nn.init.zeros_(actor.log_std.weight)
            nn.init.constant_(actor.log_std.bias, actor.log_std_init)
        else:
            actor.mu = nn.Sequential(cut, nn.Tanh())
        return cast(nn.Module, actor.to(self.device))

    def make_critic(self: Any, features_extractor: Any = None) -> nn.Module:
        """Critics on features of their own."""
        own = CriticFeatures(self.observation_space, **self.features_extractor_kwargs)
        return cast(nn.Module, cast(Any, super()).make_critic(own))


def _by_key(observations: Observation | Tensor, layout: Layout) -> Observation:
    return layout.unpack(observations) if isinstance(observations, Tensor) else observations
