"""Instructions from the loop to serving, in a world whose items have a colour and a shape in their titles."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import recloop.envs  # noqa: F401 - registers the environment
from recloop.agents import Observed, Serving, load_policy, make_policy, save_policy
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.encoders.instruction.encoder import InstructionEncoder, InstructionWarning
from recloop.encoders.text.encoder import HashedText
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World
from recloop.experiments.commands.recommend import RecommendConfig, main
from recloop.experiments.comparison.evaluate import evaluate

COLOURS = ("red", "blue")
ASK_FOR_IT = re.escape("--encoder.instruction")


@pytest.fixture(scope="module")
def world(tiny_world: World) -> World:
    """Even items are red, odd ones blue; users with an even row wish for red, the others for nothing."""
    text = HashedText(32)
    table = torch.cat([text.encode([COLOURS[row % 2] for row in range(10)]), torch.zeros(1, 32)])
    encoder = InstructionEncoder(text, torch.eye(32), torch.zeros(32), table)
    instructions = tuple("red" if user % 2 == 0 else "" for user in range(len(tiny_world.users)))
    users = replace(tiny_world.users, instructions=instructions, instruction_vectors=encoder.encode(instructions))
    return replace(tiny_world, instruction=encoder, users=users)


def test_the_key_holds_each_users_wish_and_changes_with_the_user(world: World) -> None:
    core = Core(world, batch=4, users="all", keys=("state", "instruction"))
    core.reset(users=torch.tensor([0, 1, 2, 3]))
    for _ in range(2 * core.max_steps):
        assert torch.equal(core.observe()["instruction"], world.users.instruction_vectors[core.users])
        before = core.users
        step = core.step(torch.tensor([[7, 8, 9]] * 4))
        if step.final is not None:
            assert torch.equal(step.final["instruction"], world.users.instruction_vectors[before[step.finished]])
    assert int(core.episode.min()) >= 1


def test_reset_takes_words_for_one_episode(world: World) -> None:
    env: Any = gym.make(
        "recloop/Recommend-v0", world=world, observation=("state", "instruction"), disable_env_checker=True
    )
    observation, _ = env.reset(seed=1, options={"instruction": "blue", "users": 0})
    assert env.observation_space.contains(observation)
    blue = world.instruction.encode(["blue"])[0].numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(observation["instruction"], blue)
    observation, info = env.reset()
    np.testing.assert_allclose(observation["instruction"], world.users.instruction_vectors[info["user"]].numpy())


def test_reset_takes_one_text_a_lane(world: World) -> None:
    env: Any = gym.make_vec(
        "recloop/Recommend-v0", num_envs=2, vectorization_mode="vector_entry_point", world=world,
        observation=("instruction",),
    )  # fmt: skip
    observation, _ = env.reset(seed=1, options={"instruction": ["blue", ""]})
    assert observation["instruction"].any(axis=1).tolist() == [True, False]
    with pytest.raises(RecloopError, match="give one text or a list of 2"):
        env.reset(seed=1, options={"instruction": ["blue"]})


def test_a_world_without_an_encoder_refuses_key_and_words(tiny_world: World) -> None:
    with pytest.raises(RecloopError, match=ASK_FOR_IT):
        gym.make("recloop/Recommend-v0", world=tiny_world, observation=("instruction",))
    with pytest.raises(RecloopError, match=ASK_FOR_IT):
        Core(tiny_world, keys=("instruction",)).observe()
    env: Any = gym.make("recloop/Recommend-v0", world=tiny_world)
    with pytest.raises(RecloopError, match=ASK_FOR_IT):
        env.reset(seed=0, options={"instruction": "red"})
    with pytest.raises(PolicyError, match=ASK_FOR_IT):
        make_policy("popularity", tiny_world).recommend(Observed(instruction="red"), 2)
    with pytest.raises(PolicyError, match=ASK_FOR_IT):
        make_policy("instructed", tiny_world)


def test_any_policy_orders_what_the_instruction_asks_for(world: World) -> None:
    popularity = make_policy("popularity", world)
    asked = popularity.recommend(Observed(instruction="blue"), 3, shortlist=5)
    assert asked == ["item-101", "item-105", "item-107"]  # blue ones, by popularity
    assert popularity.recommend(Observed(), 3, shortlist=5) == ["item-100", "item-101", "item-102"]
    many = popularity.recommend_many([Observed(instruction="blue"), Observed()], 3, shortlist=3)
    assert many[1] == ["item-100", "item-101", "item-102"]


def test_a_shortlist_never_leaves_too_few(world: World) -> None:
    popularity = make_policy("popularity", world)
    asked = popularity.recommend(Observed(history=["item-101"], instruction="blue"), 9, shortlist=2)
    assert len(set(asked)) == 9
    assert "item-101" not in asked


def test_instructed_hears_and_otherwise_follows_the_state(world: World, tmp_path: Path) -> None:
    policy = make_policy("instructed", world)
    save_policy(policy, tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    person = Observed(history=["item-100"])
    blue = again.recommend(replace(person, instruction="blue"), 5)
    assert {int(name[5:]) % 2 for name in blue} == {1}
    silent = Serving.of(world).observe([person])
    state = world.state_encoder.scores(silent["state"])[0].masked_fill(~silent["action_mask"][0], -torch.inf)
    assert again.recommend(person, 5) == [world.catalogue.ids[row] for row in state.topk(5).indices]


def test_a_comparison_lets_policies_hear(world: World) -> None:
    found = evaluate(make_policy("instructed", world), world, "train", episodes=4, seed=0)
    assert np.isfinite(found.value).all()


def test_no_users_wish_is_served(world: World, tmp_path: Path) -> None:
    Serving.of(world).save(tmp_path / "serving")
    assert Serving.load(tmp_path / "serving").world.users.instructions == ()
    assert not any(b"wish" in path.read_bytes() for path in (tmp_path / "serving" / "world").glob("users.*"))


def test_the_disk_gives_wishes_and_encoder_back(world: World, tiny_world: World, tmp_path: Path) -> None:
    replace(world, simulators={}, user_model=None).save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    assert again.users.instructions == world.users.instructions
    assert torch.equal(again.users.instruction_vectors, world.users.instruction_vectors)
    assert again.instruction is not None
    assert torch.equal(again.instruction.scores(["red"]), world.instruction.scores(["red"]))  # type: ignore[union-attr]
    assert world.fingerprint != tiny_world.fingerprint


def test_without_the_key_an_observation_is_as_before(world: World, tiny_world: World) -> None:
    mine, plain = (Core(w, batch=3, users="all", seed=4).observe() for w in (world, tiny_world))
    assert tuple(mine) == tuple(plain) == DEFAULT_KEYS
    assert all(torch.equal(mine[key], plain[key]) for key in plain)


def test_the_command_answers_and_says_what_it_doubts(world: World, tmp_path: Path, capsys: Any) -> None:
    save_policy(make_policy("popularity", world), tmp_path / "policy")
    found = main(RecommendConfig(tmp_path / "policy", instruction="blue", k=2, shortlist=5))
    assert found == ["item-101", "item-105"]
    assert "asked for 'blue'" in " ".join(capsys.readouterr().out.split())
    main(RecommendConfig(tmp_path / "policy", instruction="ich möchte etwas mit blue", k=2))
    said = capsys.readouterr().err.strip()
    assert "does not seem to be English" in said
    assert "\n" not in said


def test_a_policy_in_another_language_still_warns_by_python(world: World) -> None:
    with pytest.warns(InstructionWarning):
        make_policy("popularity", world).recommend(Observed(instruction="ich möchte etwas mit blue"), 2)
