"""The zoo: every algorithm in every mode it can take trains, is saved, is read again and acts as it did."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recloop.agents import FitOptions, facts_of, load_policy, make_policy, save_policy
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.registry import check_settings
from recloop.agents.sb3.adapters import FlatVecEnv, Layout
from recloop.agents.sb3.configs import SB3Config
from recloop.agents.sb3.training import SB3Agent, _actor
from recloop.agents.sb3.zoo import ALGORITHMS, TUNED, agent
from recloop.agents.settings import settings_of
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.core import Core
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.world.world import World

ASKED = {"PPO", "A2C", "DQN", "SAC", "TD3", "DDPG", "MaskablePPO", "RecurrentPPO", "QRDQN", "TRPO", "CrossQ"}
NAMES = [f"{name}-{mode}" for name, (_, family) in ALGORITHMS.items() for mode in family.modes]
SMALL: dict[str, Any] = {
    "num_envs": 8,
    "validations": 1,
    "validation_episodes": 4,
    "network": NetworkConfig(hidden=8, slate_dim=4, layers=1),
}


def small(name: str, **changes: Any) -> SB3Config:
    """Few lanes and small batches, so that some updates fit in a few hundred steps."""
    own = {"learning_starts": 32, "batch_size": 16, "gradient_steps": 1, "lstm_hidden_size": 4, "n_steps": 4}
    kind = agent(name).config_class
    known = {s.name for s in settings_of(kind())}
    replay = "buffer_size" in known
    fitting = {key: value for key, value in own.items() if key in known and (key != "n_steps" or not replay)}
    return kind(**{**SMALL, **fitting, **changes})


def slates(policy: ActorPolicy, world: World) -> list[torch.Tensor]:
    core = Core(world, batch=6, seed=5, keys=(*DEFAULT_KEYS, "action_mask"))
    found, carry = [], None
    for _ in range(3):
        zeros = torch.zeros(6, dtype=torch.int64)
        slate, carry = policy.act(core.observe(), carry, 3, Draw.at(0, core.lanes, zeros, zeros))
        core.step(slate)
        found.append(slate)
    return found


def test_the_zoo_holds_what_was_asked_for() -> None:
    assert set(ALGORITHMS) >= ASKED
    assert set(ALGORITHMS) <= set(TUNED), "each has defaults of its own"
    for name in TUNED:
        agent(name)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, SB3VecEnv]]:
    """The algorithms that are made, with their environments."""
    made: list[tuple[Any, SB3VecEnv]] = []
    build = SB3Agent._build.__func__  # type: ignore[attr-defined]

    def watched(cls: Any, config: Any, env: SB3VecEnv, features: Any, options: FitOptions) -> Any:
        made.append((build(cls, config, env, features, options), env))
        return made[-1][0]

    monkeypatch.setattr(SB3Agent, "_build", classmethod(watched))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_is_saved_is_read_and_acts_alike(
    tiny_world: World, tmp_path: Path, models: list[tuple[Any, SB3VecEnv]], name: str
) -> None:
    policy = agent(name).fit(tiny_world, FitOptions(seed=1, steps=96), small(name))
    assert models[0][0]._n_updates > 0
    assert (policy.name, policy.kind) == (f"sb3:{name}", "actor")
    save_policy(policy, tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    assert isinstance(again, ActorPolicy)
    for mine, theirs in zip(slates(policy, tiny_world), slates(again, tiny_world), strict=True):
        assert torch.equal(mine, theirs)
        assert all(len(set(row)) == 3 for row in mine.tolist())


@pytest.mark.parametrize("name", ["PPO", "RecurrentPPO-proto", "SAC", "TD3", "CrossQ", "DQN", "QRDQN"])
def test_what_is_served_is_what_stable_baselines_predicts(
    tiny_world: World, models: list[tuple[Any, SB3VecEnv]], name: str
) -> None:
    """SB3's own deterministic action leads to the slate that the policy shows; of `item` both have one place."""
    policy = agent(name).fit(tiny_world, FitOptions(seed=2, steps=64), small(name))
    model, env = models[0]
    policy.actor.load_state_dict(_actor(model).state_dict())  # the last weights, be they the best or not
    action, _ = model.policy.predict(model.get_env().reset(), deterministic=True)
    shown = env.driver.codec.decode(torch.as_tensor(action), env.driver._full)
    observation = env.driver.core.observe((*DEFAULT_KEYS, "action_mask"))
    zeros = torch.zeros(env.num_envs, dtype=torch.int64)
    slate, _ = policy.act(observation, None, env.driver.core.slate_size, Draw.at(0, zeros, zeros, zeros))
    assert torch.equal(slate, shown)


def test_keyword_arguments_of_an_algorithm_are_settings() -> None:
    check_settings("sb3:SAC", {"tau": "0.01", "ent_coef": "auto_0.1", "n_critics": "3", "network.hidden": "32"})
    check_settings("sb3:QR-DQN", {"n_quantiles": "10"})
    check_settings("sb3:sac", {"target_entropy": "-3.5"})
    with pytest.raises(RecloopError, match="unknown setting of sb3:SAC 'taus'; did you mean 'tau'"):
        check_settings("sb3:SAC", {"taus": "0.01"})
    with pytest.raises(RecloopError, match="max_grad_norm"):
        check_settings("sb3:SAC", {"max_grad_norm": "1"})
    with pytest.raises(RecloopError, match="it takes int, not the str 'many'"):
        check_settings("sb3:PPO", {"n_epochs": "many"})
    told = {s.name: s.told for s in settings_of(facts_of("sb3:SAC").config_class())}  # type: ignore[misc]
    assert told["tau"].startswith("the soft update coefficient")
    assert [name for name, text in told.items() if not text] == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sb3:SAC-item", "SAC cannot take action mode 'item', it takes proto; 'item' is taken by A2C, DQN"),
        ("sb3:DQN-proto", "DQN cannot take action mode 'proto', it takes item and picks; 'proto' is taken by A2C"),
        ("sb3:PPO-slate", "'slate' is taken by no agent, since its places would repeat items; choose candidates"),
        ("sb3:SACC", "unknown algorithm of Stable-Baselines3 'SACC'; did you mean 'SAC'?"),
        ("sb3:ARS", "unknown algorithm of Stable-Baselines3 'ARS'"),
    ],
)
def test_what_cannot_be_says_what_can(name: str, says: str) -> None:
    with pytest.raises(PolicyError) as error:
        facts_of(name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_that_an_algorithm_refuses_are_one_line(tiny_world: World) -> None:
    with pytest.raises(PolicyError, match="SAC cannot be made with these settings"):
        make_policy("sb3:SAC", tiny_world, FitOptions(steps=1, settings={"ent_coef": "often"}))


def test_a_flat_observation_holds_what_the_dict_held(tiny_world: World) -> None:
    env = SB3VecEnv(tiny_world, 4, action_mode="item", observation=("state", "shown", "action_mask"), seed=3)
    flat = FlatVecEnv(
        SB3VecEnv(tiny_world, 4, action_mode="item", observation=("state", "shown", "action_mask"), seed=3)
    )
    layout = Layout(env.observation_space)  # type: ignore[arg-type]
    kept, vector = env.reset(), torch.as_tensor(flat.reset())
    ended = False
    for _ in range(8):
        for key, value in layout.unpack(vector).items():
            assert torch.equal(value, torch.as_tensor(kept[key]).float()), key
        action = kept["action_mask"].argmax(1)
        kept, _, done, infos = env.step(action)
        found, _, _, others = flat.step(action)
        vector = torch.as_tensor(found)
        for lane in done.nonzero()[0]:
            ended = True
            last = layout.unpack(torch.as_tensor(others[lane]["terminal_observation"])[None])
            assert torch.equal(last["state"][0], torch.as_tensor(infos[lane]["terminal_observation"]["state"]))
    assert ended
