"""Lanes that do not fit: one line that names the batch that does, before and while memory runs out."""

import gymnasium as gym
import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs import ENV_ID
from recloop.envs.simulation import memory_guard as memory
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.memory_guard import MemoryGuard, is_out_of_memory
from recloop.envs.world.world import World

CPU = torch.device("cpu")


def test_lanes_that_need_more_than_is_free_say_how_many_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3.0 * 2**30)
    most, safe = (3 * 2**30 // (times * 1024) for times in (memory._LEAST, memory._AMPLE))
    MemoryGuard(most, 1024, CPU)
    with pytest.raises(RecloopError, match=rf"^batch={most + 1:,} lanes .*; choose {safe:,} or fewer$"):
        MemoryGuard(most + 1, 1024, CPU)


def test_what_a_lane_keeps_is_counted(world: World) -> None:
    core = Core(world, batch=5)
    past = core.past
    held = [
        past.history,
        past.feedback,
        past.shown,
        past.answers,
        past.step,
        past.days_away,
        core.vector,
        core.instructions,
    ]
    held += [core.profile, core.state.taste, core.state.tired, *core.encoded.held().values()]
    assert core.arrivals.lane_bytes() == sum(tensor.nbytes for tensor in held) / 5


def test_an_environment_too_large_for_this_machine_is_refused_at_once() -> None:
    with pytest.raises(RecloopError, match=r"^batch=1,000,000,000 lanes need at least .* choose [\d,]+ or fewer$"):
        gym.make_vec(f"recloop.envs:{ENV_ID}", num_envs=10**9, vectorization_mode="vector_entry_point")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_in_a_step_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    core = Core(world, batch=6)

    def full(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(core, "_kernel", full)
    with pytest.raises(RecloopError, match=r"^batch=6 lanes .* choose 3 or fewer$") as raised:
        core.step(torch.zeros(6, core.slate_size, dtype=torch.int64))
    assert raised.value.__cause__ is error


def test_other_errors_are_left_as_they_are() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(ValueError, match="mine"), MemoryGuard(1, 1, CPU):
        raise ValueError("mine")
