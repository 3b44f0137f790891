"""Trainings on disk: what is refused, what is told, what is left."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recloop.agents.learners.checkpoints import flattened, load_checkpoint, rebuilt
from recloop.agents.learners.loop import learn
from recloop.agents.learners.on_policy.a2c import A2C, A2CConfig
from recloop.agents.learners.on_policy.ppo import PPO, PPOConfig
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.manifest import Manifest
from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.reward import Outcome, WeightedReward
from recloop.envs.simulation.core import Core
from recloop.envs.users.per_user import PerUserSimulator
from recloop.envs.world.world import World

CONFIG = PPOConfig(
    steps=256,
    num_envs=8,
    rollout=8,
    validations=1,
    validation_episodes=4,
    network=NetworkConfig(hidden=8, slate_dim=4, layers=1),
)
"""Four updates."""


@dataclass(frozen=True)
class Inner(TensorStruct):
    number: Tensor
    missing: Tensor | None = None


@dataclass(frozen=True)
class Outer(TensorStruct):
    parts: tuple[Inner, ...]
    flag: Tensor


def test_trees_of_tensors_come_back_as_they_were() -> None:
    def tree(scale: float) -> dict[str, object]:
        inner = tuple(Inner(torch.full((2,), scale + i)) for i in range(2))
        return {"state": Outer(inner, torch.tensor([True, scale > 0])), "nothing": None}

    flat = flattened(tree(3.0))
    assert sorted(flat) == ["state.flag", "state.parts.0.number", "state.parts.1.number"]
    back = rebuilt(tree(0.0), flat)
    assert [part.number.tolist() for part in back["state"].parts] == [[3, 3], [4, 4]]
    assert back["state"].flag.tolist() == [True, True]
    assert back["state"].parts[0].missing is None
    assert back["nothing"] is None


def test_python_objects_are_refused_by_name() -> None:
    with pytest.raises(PolicyError, match=r"state holds a list, which a checkpoint cannot keep"):
        flattened({"state": [{}]})


def test_a_core_goes_on_from_its_snapshot(tiny_world: World) -> None:
    one, two = (Core(tiny_world, batch=5, seed=3) for _ in range(2))
    slate = torch.tensor([[0, 6, 2]]).expand(5, 3)
    for _ in range(5):
        one.step(slate)
    two.resume(rebuilt(two.snapshot(), flattened(one.snapshot())))
    for _ in range(5):
        mine, theirs = one.step(slate), two.step(slate)
        assert torch.equal(mine.reward, theirs.reward)
        assert all(
            torch.equal(mine.next_observation[key], theirs.next_observation[key]) for key in mine.next_observation
        )
        assert torch.equal(one.users, two.users)


@pytest.fixture
def kept(tiny_world: World, tmp_path: Path) -> Path:
    """A checkpoint of a finished training."""
    learn(PPO, tiny_world, FitOptions(checkpoint=tmp_path / "kept"), CONFIG)
    return tmp_path / "kept"


def test_another_training_is_refused_in_one_line_that_names_both(tiny_world: World, kept: Path) -> None:
    here = FitOptions(checkpoint=kept)
    larger = replace(CONFIG, network=replace(CONFIG.network, hidden=16))
    elsewhere = replace(tiny_world, name="elsewhere")
    attempts: list[tuple[Callable[[], object], str]] = [
        (lambda: learn(PPO, tiny_world, here, larger), "its config.network.hidden is 8, here it is 16"),
        (lambda: learn(PPO, tiny_world, FitOptions(seed=1, checkpoint=kept), CONFIG), "its seed is 0, here it is 1"),
        (lambda: learn(PPO, elsewhere, here, CONFIG), f"its world is {tiny_world.fingerprint[:60]}, here it is"),
        (lambda: learn(A2C, tiny_world, here, A2CConfig(num_envs=8)), "another training: its"),
    ]
    for attempt, message in attempts:
        with pytest.raises(PolicyError, match=message) as refusal:
            attempt()
        assert "name another folder" in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_other_formats_foreign_folders_and_damage_are_named(tiny_world: World, kept: Path, tmp_path: Path) -> None:
    facts = json.loads((kept / "checkpoint.json").read_text())
    (kept / "checkpoint.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(PolicyError, match="has format 99, this recloop reads 3"):
        learn(PPO, tiny_world, FitOptions(checkpoint=kept), CONFIG)
    (kept / "checkpoint.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    (kept / "learner.safetensors").write_bytes(b"nothing")
    with pytest.raises(PolicyError, match=r"is damaged: .*remove it to train anew"):
        learn(PPO, tiny_world, FitOptions(checkpoint=kept), CONFIG)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "note.txt").write_text("mine")
    with pytest.raises(PolicyError, match=r"is no checkpoint .*name a new folder"):
        learn(PPO, tiny_world, FitOptions(checkpoint=tmp_path / "letters"), CONFIG)
    assert (tmp_path / "letters" / "note.txt").read_text() == "mine"


def test_other_circumstances_are_told(tiny_world: World, kept: Path) -> None:
    facts = json.loads((kept / "checkpoint.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_checkpoint(kept, facts["facts"])
    facts["circumstances"]["torch"] = "1.0"
    (kept / "checkpoint.json").write_text(json.dumps(facts))
    Manifest.of(kept).write(kept)
    with pytest.warns(RuntimeWarning, match="not bit for bit: torch 1.0 then"):
        load_checkpoint(kept, facts["facts"])


def test_a_broken_loss_leaves_the_last_good_checkpoint(tiny_world: World, tmp_path: Path) -> None:
    calls: list[int] = []

    class Bursting(WeightedReward):
        def __call__(self, outcome: Outcome) -> Tensor:
            calls.append(len(outcome.slate))
            training_steps = sum(lanes == CONFIG.num_envs for lanes in calls)
            return super().__call__(outcome) * (1e30 if training_steps > 2 * CONFIG.rollout else 1.0)

    world = replace(tiny_world, reward=Bursting({"click": 1.0}))
    options = FitOptions(checkpoint=tmp_path / "kept", checkpoint_every=1)
    with pytest.raises(PolicyError, match=r"after update 3, step 192;.*kept holds the weights before it"):
        learn(PPO, world, options, replace(CONFIG, scale_rewards=False))
    assert json.loads((tmp_path / "kept" / "checkpoint.json").read_text())["counters"]["updates"] == 2


def test_users_who_are_python_objects_are_refused_before_training(tiny_world: World, tmp_path: Path) -> None:
    class Someone(PerUserSimulator):
        signals = tiny_world.signals

        def arrive_one(self, user_row, profile, rng):  # type: ignore[no-untyped-def]
            return {"mood": 1}

        def respond_one(self, state, slate, rng):  # type: ignore[no-untyped-def]
            return state, {"click": [0.0] * len(slate), "rating": [None] * len(slate)}, False

    world = replace(tiny_world, simulators={"train": Someone()})
    with pytest.raises(
        PolicyError,
        match=r"state.objects.0.mood holds a int, which a checkpoint cannot keep; train without --checkpoint",
    ):
        learn(PPO, world, FitOptions(checkpoint=tmp_path / "kept"), CONFIG)
    assert not (tmp_path / "kept").exists()


def test_out_of_memory_says_how_many_lanes_to_try(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError()):

        def fail(*arguments: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(PPO, "update", fail)
        with pytest.raises(PolicyError, match="8 lanes do not fit into the memory of cpu; try 4 lanes"):
            learn(PPO, tiny_world, FitOptions(), CONFIG)


def test_a_world_of_other_limits_or_rewards_does_not_take_a_checkpoint_up(tiny_world: World, kept: Path) -> None:
    for other in (replace(tiny_world, max_steps=3), replace(tiny_world, reward=WeightedReward({"click": 2.0}))):
        with pytest.raises(PolicyError, match="another training: its"):
            learn(PPO, other, FitOptions(checkpoint=kept), CONFIG)
