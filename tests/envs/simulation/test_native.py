"""The native step gives what torch's gives, step by step, and leaves to torch what it does not know."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs import ENV_ID
from recloop.envs.interaction.reward import Outcome, WeightedReward
from recloop.envs.interaction.rules import Rules
from recloop.envs.logs.schema import Signal
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.native import lanes as native_module
from recloop.envs.truth.boredom import BoredomRules, BoredomUsers
from recloop.envs.truth.worlds import truth_world
from recloop.envs.users.fitted.config import AssumedLeaving
from recloop.envs.users.fitted.ensemble import EnsembleUsers
from recloop.envs.users.fitted.memory import Sizes
from recloop.envs.users.fitted.recurrent import RecurrentUsers
from recloop.envs.world.world import World

ITEMS, K = 70, 4
needs_numba = pytest.mark.skipif(
    native_module.find_spec("numba") is None, reason="numba is not installed (extra `fast`): torch steps"
)


def random_world(seed: int, **changes: Any) -> World:
    """Users of whom some are soon bored, an encoder with parts by the seed and weights that all say something."""
    draw = np.random.default_rng(seed)
    rules = BoredomRules(leave=float(draw.uniform(0, 0.2)), leave_bored=0.3, bored_at=int(draw.integers(1, 4)))
    size = {"users": 20, "items": ITEMS, "slate_size": K, "max_steps": int(draw.integers(2, 9))}
    world = truth_world("boredom", seed=seed, rules=rules, **size)
    generator = torch.Generator().manual_seed(seed)
    relations = int(draw.integers(0, 3))
    config = StateEncoderConfig(
        dim=12, hidden=10, key_dim=4, value_dim=6, patterns=int(draw.integers(0, 3)), fusion=bool(draw.integers(0, 4))
    )
    vectors = torch.randn(ITEMS, config.dim, generator=generator)
    tables = torch.randn(ITEMS + 1, relations, 3, generator=generator) if relations else None
    if tables is not None:
        tables[::3] = 0
    encoder = StateEncoder(
        vectors, [s.bounds for s in world.signals], 0, [f"r{i}" for i in range(relations)], tables, config, seed
    )
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    encoder.set_items(vectors, tables)
    users = world.users
    history = torch.randint(ITEMS + 1, users.history.shape, generator=generator)
    feedback = torch.randint(1, 6, users.feedback.shape, generator=generator) * (history < ITEMS).unsqueeze(2)
    feedback[..., 0] = (history < ITEMS).float()
    users = replace(users, history=history[:, :7], feedback=feedback[:, :7].float())
    given = {"state_encoder": encoder, "users": users, "consumes_twice": seed % 2 == 0, **changes}
    return replace(world, **given)


def fitted_world(seed: int, members: int = 2, **changes: Any) -> World:
    """Recurrent users of a log of consumption, their weights drawn."""
    world = random_world(seed, **changes)
    generator = torch.Generator().manual_seed(seed)
    like = Signal("like", given_on="click")
    signals = (world.signals[0], like, world.signals[1]) if seed % 2 else world.signals
    sizes = Sizes(ITEMS, world.state_encoder.dim, 0, False, 1, False, hidden=7, rank=5, residual=3)
    users = [RecurrentUsers(signals, sizes, AssumedLeaving(0.05, 0.4)) for _ in range(members)]
    with torch.no_grad():
        for weight in (w for one in users for w in one.parts().parameters()):
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.4)
    feedback = world.users.feedback
    table = replace(
        world.users,
        feedback=F.pad(feedback, (0, len(signals) - 2)),
        answers=F.pad(world.users.answers, (0, len(signals) - 2)),
    )
    encoder = world.state_encoder
    if len(signals) > 2:
        encoder = StateEncoder(world.item_vectors[:-1], [s.bounds for s in signals], config=encoder.config, seed=seed)
    return replace(
        world, signals=signals, users=table, state_encoder=encoder, simulators={"train": EnsembleUsers(users)}
    )


def slates(steps: int, lanes: int, seed: int) -> Tensor:
    """Random, many with repeated items or empty places."""
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randint(ITEMS, (steps, lanes, K), generator=draw)
    drawn[::3] = drawn[::3] % 5
    drawn[1::4, :, -1] = ITEMS
    return drawn


def assert_alike(torchs: Any, natives: Any) -> None:
    """Discrete answers are equal, floats within 1e-5; dicts and tuples by their parts."""
    if isinstance(torchs, dict):
        assert torchs.keys() == natives.keys()
        for key in torchs:
            assert_alike(torchs[key], natives[key])
        return
    first, second = torch.as_tensor(torchs), torch.as_tensor(natives)
    assert first.dtype == second.dtype
    assert first.shape == second.shape
    torch.testing.assert_close(second, first, atol=1e-5 if first.is_floating_point() else 0, rtol=0)


def step_alike(plain: Core, native: Core, slate: Tensor) -> None:
    first, second = plain.step(slate), native.step(slate)
    for name in ("slate", "invalid", "reward", "terminated", "truncated", "next_observation"):
        assert_alike(getattr(first, name), getattr(second, name))
    for name in ("signals", "given", "left"):
        assert_alike(getattr(first.response, name), getattr(second.response, name))
    assert_alike(plain.observe(), native.observe())
    for name in ("users", "episode", "luck"):
        assert_alike(getattr(plain, name), getattr(native, name))


def both(world: World, lanes: int = 3, **options: Any) -> tuple[Core, Core]:
    plain, native = (Core(world, batch=lanes, native=native, **options) for native in (False, True))
    assert plain.native is None
    assert native.native is not None
    return plain, native


@needs_numba
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("lanes", [1, 40])
@pytest.mark.parametrize("seed", range(8))
def test_the_native_step_is_torchs(seed: int, lanes: int) -> None:
    reward = WeightedReward({"click": 1.0, "rating": 0.5}, leaving=-2.0, repeats=-0.25)
    plain, native = both(random_world(seed, reward=reward), lanes, seed=seed, start="cold" if seed == 3 else "history")
    for slate in slates(30, lanes, seed):
        step_alike(plain, native, slate)
    assert int(native.episode.max()) > 1
    assert_alike(plain.state.boredom, native.state.boredom)
    assert native.native is not None


@needs_numba
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("lanes", [1, 21])
@pytest.mark.parametrize("seed", range(6))
def test_so_it_is_with_users_fitted_on_consumption(seed: int, lanes: int) -> None:
    world = fitted_world(seed, members=1 + seed % 3)
    plain, native = both(world, lanes, seed=seed, start="cold" if seed == 3 else "history")
    for number, slate in enumerate(slates(25, lanes, seed)):
        if number == 10:  # prepared again, to the same tables
            Core(world, batch=1)
        step_alike(plain, native, slate)
    assert_alike(plain.state.own.hidden, native.state.own.hidden)
    assert native.native is not None


@needs_numba
def test_a_core_goes_on_from_anywhere() -> None:
    plain, native = both(random_world(2), seed=4)
    drawn = slates(20, 3, 0)
    kept, some = [], torch.tensor([True, False, True])
    for slate in drawn[:5]:
        kept = [core.snapshot() for core in (plain, native)]
        step_alike(plain, native, slate)
    for core, before in zip((plain, native), kept, strict=True):
        core.put_back(some, before)
    step_alike(plain, native, drawn[5])
    for core, before in zip((plain, native), kept, strict=True):
        core.resume(before)
    step_alike(plain, native, drawn[6])
    for core in (plain, native):
        core.next_episode(some)
    step_alike(plain, native, drawn[7])
    for core in (plain, native):
        core.reset(seed=9, users=torch.tensor([3, 1, 2]), lanes=torch.tensor([5, 0, 7]))
    for slate in drawn[8:]:
        step_alike(plain, native, slate)


@needs_numba
def test_what_was_handed_out_stays_as_it_was() -> None:
    core = Core(random_world(0), batch=2)
    past, state, seen = core.past, core.state, core.observe()
    before = {name: value.clone() for name, value in {**past.held(), **state.held(), **seen}.items()}
    step = core.step(slates(1, 2, 0)[0])
    signals = step.response.signals.clone()
    for slate in slates(10, 2, 1):
        core.step(slate)
    for name, value in {**past.held(), **state.held(), **seen}.items():
        assert torch.equal(value, before[name])
    assert torch.equal(step.response.signals, signals)


@needs_numba
def test_an_encoder_that_is_not_read_stands_still() -> None:
    plain, native = both(random_world(1), keys=("history", "context"))
    for slate in slates(6, 3, 0):
        step_alike(plain, native, slate)
    with pytest.raises(RecloopError, match="stepped without observation key 'state'"):
        native.observe(("state",))


@needs_numba
@pytest.mark.parametrize("observation", ["dict", "state", ("context", "shown")])
def test_one_lane_is_the_same_without_tensors(observation: Any) -> None:
    plain, native = (
        gym.make(ENV_ID, world=random_world(1), observation=observation, native=native) for native in (False, True)
    )
    for options in (None, {"users": 4}, None):
        for env in (plain, native):
            env.reset(seed=3, options=options)
        for slate in slates(25, 1, 2)[:, 0] % ITEMS:
            first, second = plain.step(slate.numpy()), native.step(slate.numpy())
            assert_alike(first[0], second[0])
            assert_alike(first[4], second[4])
            assert first[1] == pytest.approx(second[1], abs=1e-5)
            assert first[2:4] == second[2:4]
            driver = native.unwrapped.driver  # type: ignore[attr-defined]
            assert_alike(plain.unwrapped.driver.observation, driver.observation)  # type: ignore[attr-defined]
            if first[2] or first[3]:
                (one, told), (two, said) = plain.reset(), native.reset()
                assert_alike(one, two)
                assert told == said
        one, two = plain.reset(), native.reset()  # amid an episode, too
        assert_alike(one[0], two[0])


@needs_numba
def test_tables_that_change_at_an_episodes_end_skip_none() -> None:
    made = random_world(1)
    env: Any = gym.make(ENV_ID, world=made)
    env.reset(seed=0)
    over, slates_left = False, iter(slates(50, 1, 2)[:, 0] % ITEMS)
    while not over:
        _, _, left, late, _ = env.step(next(slates_left).numpy())
        over = left or late
    made.simulators["truth"].preference.mul_(0.5)  # type: ignore[attr-defined]
    with pytest.warns(RuntimeWarning, match="torch steps from here on"):
        assert env.reset()[1]["episode_number"] == 1


@needs_numba
def test_a_wrong_action_gets_the_same_error() -> None:
    env = gym.make(ENV_ID, world=random_world(0), disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(RecloopError, match=f"action holds {ITEMS}; mode 'slate' takes 0 to {ITEMS - 1}"):
        env.step(np.full(K, ITEMS))
    with pytest.raises(RecloopError, match="action has shape"):
        env.step(np.zeros(K + 1, dtype=np.int64))
    with pytest.raises(RecloopError, match="slate holds item row -1"):
        Core(random_world(0)).step(torch.full((1, K), -1))


@needs_numba
def test_a_reward_of_ones_own_is_asked_by_torch() -> None:
    def lasting(outcome: Outcome) -> Tensor:
        assert outcome.past is not None
        return outcome.past.step + outcome.response.signals.sum((1, 2))

    plain, native = both(random_world(4), reward=lasting)
    for slate in slates(8, 3, 0):
        step_alike(plain, native, slate)
    plain, native = both(random_world(4), reward=WeightedReward({"click": 1.0}, diversity=1.0))
    step_alike(plain, native, slates(1, 3, 0)[0])
    with pytest.raises(RecloopError, match="the reward of lane 0 is"):
        Core(random_world(4), reward=WeightedReward({}, leaving=float("inf"))).step(slates(1, 1, 0)[0])


class Hermits(BoredomUsers):
    """Users with a law of their own."""

    def _leaving(self, state: Any, slate: Tensor, signals: Tensor) -> Tensor:
        return torch.ones(len(slate))


@pytest.mark.filterwarnings("error")
def test_what_has_no_native_form_stays_with_torch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = random_world(0)
    truth = made.simulators["truth"]
    assert isinstance(truth, BoredomUsers)
    own = Hermits(truth.preference, truth.topic, truth.traits, truth.rules)
    lstm = StateEncoder(
        made.item_vectors[:-1], [s.bounds for s in made.signals], config=StateEncoderConfig(12, sequence="lstm")
    )
    cores = [
        Core(world),
        Core(replace(made, simulators={"truth": own})),
        Core(replace(made, state_encoder=lstm)),
        Core(made, sessions=2),
        Core(made, rules=Rules(never=made.catalogue.ids[:2])),
        Core(made, native=False),
    ]
    monkeypatch.setattr(native_module, "find_spec", lambda name: None)
    cores.append(Core(made))
    for core in cores:
        assert core.native is None
        core.step(torch.arange(core.slate_size).unsqueeze(0))


@needs_numba
def test_changed_tables_are_noticed() -> None:
    made = random_world(0)
    truth = made.simulators["truth"]
    assert isinstance(truth, BoredomUsers)
    core, drawn = Core(made, batch=3), slates(6, 3, 0)
    for slate in drawn[:3]:
        core.step(slate)
    before = core.snapshot()
    truth.preference.mul_(0.5)
    with pytest.warns(RuntimeWarning, match="torch steps from here on"):
        found = core.step(drawn[3])
    plain = Core(made, batch=3, native=False)
    plain.resume(before)
    assert_alike(plain.step(drawn[3]).next_observation, found.next_observation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step_alike(plain, core, drawn[4])


@needs_numba
def test_loops_that_cannot_be_compiled_are_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(core: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(native_module.NativeLanes, "rehearse", broken)
    with pytest.warns(RuntimeWarning, match=r"\(OSError: no space left\) and torch steps instead") as told:
        core = Core(random_world(0))
    core.step(slates(1, 1, 0)[0])
    assert len(told) == 1


@needs_numba
def test_a_numba_that_compiles_nothing_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from recloop.envs.simulation.native import kernels

    monkeypatch.setattr(kernels, "COMPILES", False)
    with pytest.warns(RuntimeWarning, match="numba cannot be imported"):
        assert Core(random_world(0)).native is None


@needs_numba
@pytest.mark.slow
def test_a_cache_that_cannot_be_written_does_no_harm() -> None:
    code = "from recloop import make; e = make(); e.reset(seed=0); print(e.step(e.action_space.sample())[1])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_CACHE_DIR": "/dev/null/x"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) >= 0


@needs_numba
def test_compiled_functions_hold_the_code_of_their_helpers() -> None:
    """A call between two of them would lead to another copy in a process that compiles than in one that does not."""
    from recloop.envs.simulation.native import kernels

    inlined = {
        name: function.targetoptions.get("forceinline", False)
        for name, function in vars(kernels).items()
        if hasattr(function, "targetoptions")
    }
    assert inlined == {name: name.startswith("_") for name in inlined}
    assert len(inlined) > 6


@needs_numba
@pytest.mark.slow
def test_a_process_that_compiles_gives_the_bits_of_one_that_reads_the_cache(tmp_path: Path) -> None:
    code = """
import hashlib
import torch
from recloop.envs.simulation.core import Core
from recloop.envs.truth.worlds import truth_world
core, draw = Core(truth_world("boredom", users=20, items=70), batch=9), torch.Generator().manual_seed(0)
for _ in range(40):
    core.step(torch.randint(70, (9, core.slate_size), generator=draw))
assert core.native is not None
print(hashlib.sha256(core.native.floats.tobytes() + core.native.ints.tobytes()).hexdigest())
"""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert len(first) == 65
    assert first == second
