"""Training Stable-Baselines3 agents in a world.

from recloop.agents.policy import FitOptions
from recloop.agents.sb3 import train_sb3
policy = train_sb3("ppo", world, FitOptions(seed=0, steps=200_000, progress=True))
policy.save("policies/ppo")
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from recloop.agents.configs import AgentConfig
from recloop.agents.isolation import isolated_randomness
from recloop.agents.networks.features import FEATURE_KEYS, ItemTables
from recloop.agents.networks.heads import HeadName
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.policy import FitOptions
from recloop.agents.sb3.adapters import (
    ItemActor,
    ItemDQNPolicy,
    MaskedDQN,
    PickActorCritic,
    ProtoActorCritic,
    SlateActorCritic,
)
from recloop.agents.sb3.configs import (
    DQNConfig,
    MaskablePPOConfig,
    PPOConfig,
    ProtoPPOConfig,
    SlatePPOConfig,
)
from recloop.agents.sb3.monitoring import Watch, logger_to
from recloop.agents.serving import Serving
from recloop.agents.validation import Validation
from recloop.encoders.base.errors import PolicyError, unknown_name
from recloop.encoders.base.storage import json_like
from recloop.envs.simulation.penalties import training_reward
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.world.world import World

Algorithm = Callable[["AgentConfig", VecEnv, dict[str, Any], int, str], BaseAlgorithm]
"""(config, environment, policy arguments, seed, device) -> an algorithm ready to learn."""


@dataclass(frozen=True)
class Recipe:
    """How one agent is put together.

    Args:
        head: action mode.
        config: the class of its config; its defaults are the agent's.
        build: makes the algorithm.
        one_at_a_time: a slate takes K actions.
        keys: observation keys besides the features'.
    """

    head: HeadName
    config: type[AgentConfig]
    build: Algorithm
    one_at_a_time: bool = False
    keys: tuple[str, ...] = ()


def train_sb3(name: str, world: World, options: FitOptions, config: AgentConfig | None = None) -> ActorPolicy:
    """Train an agent on the train users of a world, in its training simulator.

    The weights kept are those with the best mean return in the validation simulator. One seed, device and
    number of threads give equal weights; global random generators are left as they were.

    Args:
        name: `ppo`, `ppo-proto`, `dqn` or `maskable-ppo`.
        world: where to train.
        options: `steps` replaces the config's; the unit is one action of one lane, for maskable-ppo one pick.
        config: of the class the agent's recipe names; default its defaults.

    Raises:
        PolicyError: an unknown name, a config of another agent, a loss that is not a number.
    """
    if name not in RECIPES:
        raise PolicyError(unknown_name("agent", name, RECIPES))
    recipe = RECIPES[name]
    config = config or recipe.config()
    if not isinstance(config, recipe.config):
        raise PolicyError(f"{name} takes a {recipe.config.__name__}, not a {type(config).__name__}")
    config = config if options.steps is None else replace(config, steps=options.steps)
    with isolated_randomness(options.seed):
        return _train(name, world, options, recipe, config)


def ppo(world: World, options: FitOptions) -> ActorPolicy:
    """PPO on `candidates`, with Plackett-Luce slates."""
    return train_sb3("ppo", world, options)


def ppo_proto(world: World, options: FitOptions) -> ActorPolicy:
    """PPO on `proto`."""
    return train_sb3("ppo-proto", world, options)


def dqn(world: World, options: FitOptions) -> ActorPolicy:
    """DQN on `item`: trained on slates of one, shows its K best."""
    return train_sb3("dqn", world, options)


def maskable_ppo(world: World, options: FitOptions) -> ActorPolicy:
    """MaskablePPO on `candidates`, one pick at a time."""
    return train_sb3("maskable-ppo", world, options)


def _train(name: str, world: World, options: FitOptions, recipe: Recipe, config: AgentConfig) -> ActorPolicy:
    env = SB3VecEnv(
        world,
        config.lanes,
        seed=options.seed,
        action_mode=recipe.head,
        one_at_a_time=recipe.one_at_a_time,
        observation=(*FEATURE_KEYS, *(["profile"] if world.spec().profile_dim else []), *recipe.keys),
        candidates=config.candidates,
        reward=training_reward(world, options.penalties, options.device),
        device=options.device,
    )
    tables = ItemTables.of(world.state_encoder, world.catalogue.popularity)
    features = {"head": recipe.head, "tables": tables, "config": config.network}
    arguments = {"features_extractor_class": ItemActor, "features_extractor_kwargs": features, "net_arch": []}
    model = recipe.build(config, env, arguments, options.seed, options.device)
    model.set_logger(logger_to(options.log))
    policy = ActorPolicy(
        Serving.of(world),
        _actor(model),
        recipe.head,
        config.network,
        candidates=env.driver.retriever.size if env.driver.retriever else None,
        one_at_a_time=recipe.one_at_a_time,
        log_std=getattr(model.policy, "log_std", None),
        training={"agent": name, "seed": options.seed, **json_like(asdict(options.penalties)), **config.as_dict()},
        name=name,
    )
    watch = Watch(
        policy,
        Validation(world, config.validation_lanes, options.device),
        max(config.steps // config.validations, 1),
        options.log,
        options.progress,
        config.steps,
    )
    model.learn(config.steps, callback=watch, log_interval=1 if isinstance(config, PPOConfig) else 200)
    trained = ActorPolicy.restore(policy._serving(), policy.config(), watch.best_weights)
    trained.name = name
    return trained


def _actor(model: BaseAlgorithm) -> Any:
    """The `Actor` inside an algorithm's policy."""
    policy: Any = model.policy
    return (policy.q_net if isinstance(model, MaskedDQN) else policy).features_extractor.actor


def _ppo(algorithm: type[PPO] | type[MaskablePPO], policy: type[Any]) -> Algorithm:
    def build(config: AgentConfig, env: VecEnv, arguments: dict[str, Any], seed: int, device: str) -> BaseAlgorithm:
        assert isinstance(config, PPOConfig)
        one_at_a_time = algorithm is MaskablePPO
        gamma = config.gamma
        if isinstance(env, SB3VecEnv) and one_at_a_time:
            gamma = gamma ** (1 / env.driver.core.slate_size)
        if config.scale_rewards:
            env = VecNormalize(env, norm_obs=False, gamma=gamma, clip_reward=1e9)
        if policy is ProtoActorCritic:
            arguments = {**arguments, "log_std_init": config.log_std}
        return algorithm(
            policy,
            env,
            learning_rate=LinearSchedule(config.learning_rate, 0.0, 1.0),
            n_steps=config.rollout,
            batch_size=min(config.batch_size, config.rollout * env.num_envs),
            n_epochs=config.epochs,
            gamma=gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip,
            ent_coef=config.entropy,
            vf_coef=config.value,
            max_grad_norm=config.max_grad_norm,
            target_kl=config.target_kl,
            policy_kwargs=arguments,
            seed=seed,
            device=device,
        )

    return build


def _dqn(config: AgentConfig, env: VecEnv, arguments: dict[str, Any], seed: int, device: str) -> BaseAlgorithm:
    assert isinstance(config, DQNConfig)
    return MaskedDQN(
        ItemDQNPolicy,
        env,
        learning_rate=LinearSchedule(config.learning_rate, 0.0, 1.0),
        buffer_size=config.buffer_size,
        learning_starts=config.learning_starts,
        batch_size=config.batch_size,
        gamma=config.gamma,
        train_freq=config.train_every,
        gradient_steps=config.updates,
        target_update_interval=config.target_every,
        exploration_fraction=config.exploration,
        exploration_final_eps=config.last_epsilon,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs=arguments,
        seed=seed,
        device=device,
    )


RECIPES: dict[str, Recipe] = {
    "ppo": Recipe("candidates", SlatePPOConfig, _ppo(PPO, SlateActorCritic)),
    "ppo-proto": Recipe("proto", ProtoPPOConfig, _ppo(PPO, ProtoActorCritic)),
    "dqn": Recipe("item", DQNConfig, _dqn, keys=("action_mask",)),
    "maskable-ppo": Recipe("candidates", MaskablePPOConfig, _ppo(MaskablePPO, PickActorCritic), one_at_a_time=True),
}
"""The agents by name."""
