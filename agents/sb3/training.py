"""Training Stable-Baselines3 agents in a world.

from recloop.agents.policy import FitOptions
from recloop.agents.sb3.zoo import agent
policy = agent("PPO").fit(world, FitOptions(seed=0, steps=200_000, progress=True))
policy.save("policies/ppo")
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from recloop.agents.facts import Group, Trains
from recloop.agents.isolation import isolated_randomness
from recloop.agents.networks.features import FEATURE_KEYS, ItemTables
from recloop.agents.networks.heads import HeadName
from recloop.agents.networks.policy import ActorPolicy, refuse_to_hear
from recloop.agents.policy import FitOptions, Trainer
from recloop.agents.sb3.adapters import FlatVecEnv, ItemActor, ItemContinuous
from recloop.agents.sb3.configs import SB3Config
from recloop.agents.serving import Serving
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import json_like
from recloop.envs.simulation.penalties import training_reward
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.world.world import World

Log = Callable[[str, float, int], None]
"""Takes (tag, value, step)."""


class ScalarWriter(KVWriter):
    """Hands the scalars of SB3's logger on, under SB3's own tags."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Pass on numbers that are not kept from TensorBoard."""
        for tag, value in sorted(key_values.items()):
            if "tensorboard" not in (key_excluded.get(tag) or ()) and isinstance(value, int | float | np.number):
                self.log(tag, float(value), step)

    def close(self) -> None:
        """Nothing to close."""


def logger_to(log: Log | None) -> Logger:
    """An SB3 logger that writes to `log`, or nowhere; never to the terminal or a folder."""
    return Logger(folder=None, output_formats=[ScalarWriter(log)] if log else [])


class Watch(BaseCallback):
    """Validates every so many steps, keeps the best weights, stops on NaN, moves the progress bar.

    Args:
        policy: acts with the very actor that is being trained.
        validation: where it is tried.
        every: environment steps between two tries.
        options: take the validation curve, and say whether to show a bar over `steps`.
        steps: of the whole training.
    """

    def __init__(
        self, policy: ActorPolicy, validation: PolicyValidation, every: int, options: FitOptions, steps: int
    ) -> None:
        super().__init__()
        self.policy, self.validation, self.every, self.options = policy, validation, every, options
        self.best_rank = (-math.inf, -math.inf)
        self.best_weights: dict[str, Tensor] = {}
        self.steps, self._next = steps, 0
        self._bar = progress_bar(total=steps, desc=policy.name, unit="step", disable=not options.progress)

    def _on_rollout_start(self) -> None:
        self._check_numbers()
        if self.num_timesteps >= self._next:
            self._validate()
            self._next += self.every

    def _on_step(self) -> bool:
        self._bar.update(min(self.num_timesteps, self.steps) - self._bar.n)
        return True

    def _on_training_end(self) -> None:
        self._check_numbers()
        self._validate()
        self._bar.close()

    def _check_numbers(self) -> None:
        """After an update: is the loss a number, are the weights?"""
        loss = self.logger.name_to_value.get("train/loss", 0.0)
        weights = all(bool(torch.isfinite(p).all()) for p in self.model.policy.parameters())
        if not (math.isfinite(loss) and weights):
            self._bar.close()
            raise PolicyError(
                f"{self.policy.name}: the loss became {loss} at step {self.num_timesteps}; lower learning_rate "
                f"({self.model.learning_rate}) or check the reward's scale"
            )

    def _validate(self) -> None:
        found = self.validation.trial(self.policy)
        self.options.validated(self.policy, found.value, self.num_timesteps)
        self._bar.set_postfix({"return": f"{found.value:.3f}"})
        if found.rank > self.best_rank:
            self.best_rank = found.rank
            self.best_weights = {name: value.clone() for name, value in self.policy.tensors().items()}


class SB3Agent(Trainer):
    """One agent of Stable-Baselines3, trained on the train users of a world, in its training simulator.

    The weights kept are those with the best mean return in the validation simulator. One seed, device and
    number of threads give equal weights; global random generators are left as they were.

    Made by `recloop.agents.sb3.zoo.agent`.

    Attributes:
        algorithm: of Stable-Baselines3 or its contrib package.
        network: its class of policies, with our actor in it.
        head: action mode.
        one_at_a_time: a slate takes K actions.
    """

    trains: ClassVar[Trains] = "loop"
    group: ClassVar[Group] = "rl"
    policy_class = ActorPolicy
    config_class: ClassVar[type[SB3Config]]
    algorithm: ClassVar[type[Any]]
    network: ClassVar[type[Any]]
    head: ClassVar[HeadName]
    one_at_a_time: ClassVar[bool] = False

    @classmethod
    def fit(cls, world: World, options: FitOptions, config: SB3Config | None = None) -> ActorPolicy:
        """Train the agent.

        Args:
            world: where to train.
            options: `steps` and `settings` replace the config's; the unit of steps is one action of one lane, which
                is one pick where a slate takes several.
            config: of `config_class`; default its defaults.

        Raises:
            PolicyError: a config of another agent, a loss that is not a number.
        """
        config = config or cls.config_class()
        if not isinstance(config, cls.config_class):
            raise PolicyError(f"{cls.name} takes a {cls.config_class.__name__}, not a {type(config).__name__}")
        config = options.over(config, cls.name)
        with isolated_randomness(options.seed):
            return cls._train(world, options, config)

    @classmethod
    def _train(cls, world: World, options: FitOptions, config: SB3Config) -> ActorPolicy:
        refuse_to_hear(cls.name, config.network)
        # Slates of one item stand for single places of a slate: rules of whole slates wait for these.
        env = SB3VecEnv(
            replace(world, rules=world.rules.by_item()) if cls.head == "item" else world,
            config.num_envs,
            seed=options.seed,
            action_mode=cls.head,
            one_at_a_time=cls.one_at_a_time,
            observation=(
                *FEATURE_KEYS,
                *(["profile"] if world.spec().profile_dim else []),
                *(["action_mask"] if cls.head == "item" else []),
            ),
            candidates=config.candidates,
            reward=training_reward(world, options.penalties, options.device),
            device=options.device,
        )
        tables = ItemTables.of(world.state_encoder, world.catalogue.popularity)
        if cls.head == "proto":
            tables = tables.with_popularity()
        memory = int(getattr(config, "lstm_hidden_size", 0))
        features = {
            "space": env.observation_space,
            "head": cls.head,
            "tables": tables,
            "spec": world.spec(),
            "config": config.network,
            "memory": memory,
        }
        model = cls._build(config, env, features, options)
        model.set_logger(logger_to(options.log))
        on_policy = isinstance(model, OnPolicyAlgorithm)
        policy = ActorPolicy(
            Serving.of(world),
            _actor(model),
            cls.head,
            config.network,
            candidates=env.driver.retriever.size if env.driver.retriever else None,
            one_at_a_time=cls.one_at_a_time,
            memory=memory,
            squashed=cls.head == "proto" and not on_policy,
            log_std=getattr(model.policy, "log_std", None),
            training={
                "agent": cls.name,
                "seed": options.seed,
                **json_like(asdict(options.penalties)),
                **config.as_dict(),
            },
            name=cls.name,
        )
        watch = Watch(
            policy,
            PolicyValidation(world, config.validation_episodes, options.device, floor=options.penalties.held),
            max(config.steps // config.validations, 1),
            options,
            config.steps,
        )
        model.learn(config.steps, callback=watch, log_interval=1 if on_policy else 200)
        trained = ActorPolicy.restore(policy._serving(), policy.config(), watch.best_weights)
        trained.name = cls.name
        return trained

    @classmethod
    def _build(cls, config: SB3Config, env: SB3VecEnv, features: dict[str, Any], options: FitOptions) -> BaseAlgorithm:
        """The algorithm, ready to learn; `features` are the arguments of its features extractor."""
        given = {**config.keywords(), "seed": options.seed, "device": options.device}
        given["learning_rate"] = LinearSchedule(config.learning_rate, 0.0, 1.0)
        if cls.one_at_a_time:
            given["gamma"] = config.gamma ** (1 / env.driver.core.slate_size)
        if issubclass(cls.algorithm, OnPolicyAlgorithm) and given.get("batch_size") is not None:
            given["batch_size"] = min(given["batch_size"], given["n_steps"] * env.num_envs)
        if getattr(config, "noise_std", 0):
            zeros = np.zeros(env.action_space.shape or ())
            given["action_noise"] = NormalActionNoise(zeros, zeros + float(getattr(config, "noise_std", 0.0)))
        network = config.network
        layers = {"pi": [], "qf": [network.hidden] * network.layers} if issubclass(cls.network, ItemContinuous) else []
        given["policy_kwargs"] = {
            "features_extractor_class": ItemActor,
            "features_extractor_kwargs": features,
            "net_arch": layers,
            **config.policy_keywords(),
        }
        # Where it joins batches of observations, an algorithm has no policy for a Dict of them.
        reads_dicts = any(name.startswith("MultiInput") for name in cls.algorithm.policy_aliases)
        seen: VecEnv = env if reads_dicts else FlatVecEnv(env)
        if config.scale_rewards:
            seen = VecNormalize(seen, norm_obs=False, gamma=given["gamma"], clip_reward=1e9)
        try:
            made: BaseAlgorithm = cls.algorithm(cls.network, seen, **given)
            return made
        except (AssertionError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise PolicyError(f"{cls.name} cannot be made with these settings: {reason}") from error


def _actor(model: BaseAlgorithm) -> Any:
    """The `Actor` inside an algorithm's policy."""
    policy: Any = model.policy
    networks = [getattr(policy, name) for name in ("actor", "q_net", "quantile_net") if hasattr(policy, name)]
    holder = networks[0] if networks else policy
    return holder.features_extractor.actor
