"""What speed is held against: a bare NumPy loop, CartPole, and what the machine could do at most.

The roofline of a user-step (Williams, Waterman and Patterson 2009), as `recloop bench env` tells it:

- kFLOP: operations of the matrix products that the eager step makes, counted by torch; all else is not.
- kB at least: what any implementation moves whose observations stay as they are once handed out: the lane's state read
  and written, the rows of what is shown in the tables of who answers, and of what is consumed in the encoder's.
- kB moved: inputs and outputs of every kernel of the eager step, as if nothing stayed in a cache between two of them.
- GFLOP/s and GB/s: of a float32 product of 1,024 squared and of a copy of 128 MiB, in turns with the step.
- of bound: the measured rate as a share of the lower of GB/s by kB at least and GFLOP/s by kFLOP.
- of kernels' bound: the same with kB moved. The rest is lost in small and irregular kernels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import cycle
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from recloop.experiments.bench.timing import Paced

LOOP_ITEMS, LOOP_DIM = 10_000, 64
"""Of the bare NumPy loop, whatever the size of the world beside it."""
_SLATES = 16
"""Slates drawn beforehand, that come round."""
_MATRIX = 1024
_COPIED = 32 * 2**20
"""float32 numbers a copy moves: far more than a cache holds."""
_GATHERS = ("index", "embedding", "gather", "index_select", "embedding_bag")


def numpy_loop(batch: int, slate: int = 10, seed: int = 0) -> Paced:
    """Score K given items of 10,000 (d = 64, float32) for B users, sigmoid, Bernoulli draw, nothing else."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((LOOP_ITEMS, LOOP_DIM), dtype=np.float32)
    users = rng.standard_normal((batch, LOOP_DIM), dtype=np.float32)
    slates = cycle(rng.integers(LOOP_ITEMS, size=(_SLATES, batch, slate)))

    def step() -> object:
        scores = np.einsum("bkd,bd->bk", table.take(next(slates), axis=0), users)
        return rng.random((batch, slate), dtype=np.float32) < 1 / (1 + np.exp(-scores))

    return Paced(f"bare NumPy loop at {batch:,}", batch, step)


def cart_pole(seed: int = 0) -> Paced:
    """`gym.make("CartPole-v1", disable_env_checker=True)` with actions drawn beforehand, reset where it falls."""
    env = gym.make("CartPole-v1", disable_env_checker=True)
    env.reset(seed=seed)
    actions = cycle(np.random.default_rng(seed).integers(2, size=1024).tolist())

    def step() -> object:
        _, _, fallen, late, _ = env.step(next(actions))
        return env.reset() if fallen or late else None

    return Paced("CartPole-v1", 1, step)


def sardine(seed: int = 0) -> Paced:
    """SARDINE's own environment of `sardine-rec`, slates of 10 among 1,000 items, with actions drawn beforehand."""
    import_module("sardine")  # registers it
    env = gym.make("sardine/SlateTopK-Bored-v0", disable_env_checker=True)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    actions = cycle([env.action_space.sample() for _ in range(256)])

    def step() -> object:
        _, _, over, late, _ = env.step(next(actions))
        return env.reset() if over or late else None

    return Paced("SARDINE", 1, step)


@dataclass(frozen=True)
class Machine:
    """What the device did, measured in this run.

    Args:
        flops: float32 operations a second in a matrix product of 1,024 squared (bf16 is not counted).
        bandwidth: bytes a second, read and written, in a copy of 128 MiB.
    """

    flops: float
    bandwidth: float


def machine_paces(device: str = "cpu") -> tuple[Paced, Paced]:
    """What tells a `Machine` in turns with what is held against it: operations, and bytes read and written."""
    left, right = (torch.randn(_MATRIX, _MATRIX, device=device) for _ in range(2))
    source = torch.zeros(_COPIED, device=device)
    target = torch.empty_like(source)
    product = Paced("matrix product", 2 * _MATRIX**3, lambda: torch.mm(left, right), device)
    return product, Paced("copy", 2 * source.nbytes, lambda: target.copy_(source), device)


@dataclass(frozen=True)
class Cost:
    """What one user-step takes.

    Args:
        flops: operations in matrix products.
        traffic: bytes that the kernels read and write one after the other, as if nothing stayed in a cache.
        compulsory: bytes that any implementation must move, which hands out observations that stay as they are; see
            `recloop.experiments.bench.steps.compulsory_bytes`.
        kernels: operations dispatched in one step of the whole batch.
    """

    flops: float
    traffic: float
    compulsory: float
    kernels: int

    def bound(self, of: Machine, traffic: bool = False) -> float:
        """Most user-steps a second: by the compulsory bytes and the products, or by the kernels' own `traffic`."""
        moved = self.traffic if traffic else self.compulsory
        return 1 / max(moved / of.bandwidth, self.flops / of.flops)


def cost(step: Callable[[], object], batch: int, compulsory: float) -> Cost:
    """Count one call of `step`, which makes `batch` user-steps in eager mode; `compulsory` as in `Cost`."""
    step()
    with FlopCounterMode(display=False) as products:
        step()
    with _Traffic() as seen:
        step()
    return Cost(products.get_total_flops() / batch, seen.bytes / batch, compulsory, seen.kernels)


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the inputs and outputs of every operation that moves any; gathers read what they return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes, self.kernels = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.kernels += 1
            written = _bytes(found)
            gathers = func.overloadpacket.__name__.split(".")[-1] in _GATHERS
            self.bytes += written + (written if gathers else _bytes([args, kwargs]))
        return found


def _bytes(value: Any) -> int:
    """Of all tensors inside, each no larger than its memory: an expanded one is read from where it lies."""
    if isinstance(value, Tensor):
        return min(value.nbytes, value.untyped_storage().nbytes())
    if isinstance(value, dict):
        value = list(value.values())
    return sum(_bytes(one) for one in value) if isinstance(value, list | tuple) else 0


def tensor_bytes(value: Any, rows: Sequence[int] | None = None, seen: set[int] | None = None) -> int:
    """Bytes of all tensors that an object holds, at any depth; of those with so many `rows`, where they are named."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, type | str | bytes | np.ndarray):
        return 0
    seen.add(id(value))
    if isinstance(value, Tensor):
        return value.nbytes if rows is None or (value.dim() > 0 and len(value) in rows) else 0
    if isinstance(value, dict):
        inside: list[Any] = list(value.values())
    elif isinstance(value, list | tuple):
        inside = list(value)
    else:
        inside = list(getattr(value, "__dict__", {}).values())
    return sum(tensor_bytes(one, rows, seen) for one in inside)
