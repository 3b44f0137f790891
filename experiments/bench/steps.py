"""What is stepped in the benchmark of the environment: the core by given slates, and the three skins over it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.tensor_struct import tensors_of
from recloop.envs import ENV_ID
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.simulation.driver import Driver
from recloop.envs.simulation.item_index import IndexKind
from recloop.envs.simulation.tasks import make_driver
from recloop.envs.skins.gym_vector import RecommendVectorEnv
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.world.world import World
from recloop.experiments.bench.bounds import tensor_bytes
from recloop.experiments.bench.timing import Paced

Skin = Literal["core", "single", "vector", "tensors", "sb3"]
"""The core by itself; `gym.make`; `gym.make_vec` with NumPy arrays and with tensors; Stable-Baselines3."""
_ACTIONS = 16
"""Batches of actions drawn beforehand, that come round."""


@dataclass(frozen=True)
class StepSubject:
    """What is asked of the environment.

    Args:
        world: to act in.
        batch: B, lanes.
        observation: `dict`, the default; `no state`: all but it; `state` alone.
        action: `slate` (given slates), or `proto`: points in item space, whose nearest items are looked up.
        index: by which they are; None scores all items.
        compiled: whether the step is compiled.
        native: whether it may run in compiled loops.
        device: any torch device.
        seed: of lanes and actions.
    """

    world: World
    batch: int
    observation: Literal["dict", "no state", "state"] = "dict"
    action: Literal["slate", "proto"] = "slate"
    index: IndexKind | None = None
    compiled: bool = False
    native: bool = True
    device: str = "cpu"
    seed: int = 0

    def options(self) -> dict[str, Any]:
        """As `recloop.envs.simulation.tasks.TaskOptions` has them."""
        keys: Any = self.observation
        if keys == "no state":
            spec = self.world.spec()
            keys = tuple(key for key in DEFAULT_KEYS[1:] if 0 not in (spec.space(key).shape or ()))
        found = {"observation": keys, "action_mode": self.action, "device": self.device}
        if self.index is not None:
            found["index"] = self.index
        return {**found, "compile": self.compiled, "native": self.native}

    def actions(self) -> Tensor:
        """Drawn beforehand, (16, B, K) item rows or (16, B, d)."""
        draw = torch.Generator().manual_seed(self.seed)
        if self.action == "slate":
            shape = (_ACTIONS, self.batch, self.world.slate_size)
            return torch.randint(len(self.world.catalogue), shape, generator=draw)
        return torch.rand(_ACTIONS, self.batch, self.world.state_encoder.dim, generator=draw) * 2 - 1


def paced(task: StepSubject, skin: Skin, name: str) -> Paced:
    """A skin in a task, its episodes started."""
    makers: dict[str, Callable[[StepSubject], Callable[[], object]]] = {
        "core": _core,
        "single": _single,
        "vector": lambda task: _vector(task, tensors=False),
        "tensors": lambda task: _vector(task, tensors=True),
        "sb3": _sb3,
    }
    return Paced(name, task.batch, makers[skin](task), task.device)


def driver_of(task: StepSubject) -> Driver:
    """The core and the driver over it, which all skins share."""
    return make_driver(task.world, task.batch, seed=task.seed, **task.options())


def lane_bytes(driver: Driver) -> float:
    """Bytes that the core keeps of a lane: past, encoder's state, users' state."""
    core = driver.core
    return _kept_bytes(core.past, core.encoded, core.state) / core.batch


def item_bytes(driver: Driver) -> float:
    """Bytes of one item's rows in all tables of encoder and users, every member's."""
    return _row_bytes(driver, [dict(driver.core.encoder.state_dict()), driver.core.simulator])


def compulsory_bytes(driver: Driver) -> float:
    """Bytes that a step must move for a lane at least, after a step was made.

    The lane's state read and written; for each item shown, its rows in the tables of the one member who answers; for
    each consumed, as often as in the last step, its rows in the encoder's. Without `state` nothing of the encoder.
    """
    core, turn = driver.core, driver.last
    users = next(iter(getattr(core.simulator, "members", (core.simulator,))))
    moved = 2 * _kept_bytes(core.past, core.state) / core.batch + core.slate_size * _row_bytes(driver, users)
    if "state" not in core.keys or turn is None or turn.transition is None:
        return moved
    response = turn.transition.response
    consumed = float(((response.signals[..., 0] > 0.5) & response.given[..., 0]).sum()) / core.batch
    encoder = _row_bytes(driver, dict(core.encoder.state_dict()))
    return moved + 2 * _kept_bytes(core.encoded, core.vector) / core.batch + consumed * encoder


def _kept_bytes(*lanes: object) -> int:
    return sum(tensor.nbytes for tensor in tensors_of(lanes))


def _row_bytes(driver: Driver, held: object) -> float:
    """Bytes of one item's rows in all tables by item that an object holds."""
    n = driver.core.empty
    return tensor_bytes(held, rows=(n, n + 1)) / (n + 1)


def _core(task: StepSubject) -> Callable[[], object]:
    driver = driver_of(task)
    actions = cycle(task.actions().to(task.device))
    return lambda: driver.step(next(actions))


def _single(task: StepSubject) -> Callable[[], object]:
    env = gym.make(ENV_ID, world=task.world, disable_env_checker=True, **task.options())
    env.reset(seed=task.seed)
    actions = cycle(task.actions()[:, 0].numpy())

    def step() -> object:
        _, _, left, late, _ = env.step(next(actions))
        return env.reset() if left or late else None

    return step


def _vector(task: StepSubject, tensors: bool) -> Callable[[], object]:
    env = RecommendVectorEnv(task.batch, task.world, tensors=tensors, **task.options())
    env.reset(seed=task.seed)
    drawn = task.actions()
    actions: Any = cycle(drawn.to(task.device) if tensors else drawn.numpy())
    return lambda: env.step(next(actions))


def _sb3(task: StepSubject) -> Callable[[], object]:
    env = SB3VecEnv(task.world, task.batch, seed=task.seed, **task.options())
    env.reset()
    actions = cycle(np.asarray(task.actions()))
    return lambda: env.step(next(actions))
