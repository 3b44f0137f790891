"""What off-policy learners learn from: a ring of the last steps of all lanes, on the device, in place."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.agents.learners.contract import Step, Task
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import CONTEXT, Observation, ObservationSpec

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Name -> shape of one lane and dtype."""

_SHARE = 0.8
"""The share of a device's memory that a buffer may take."""


@dataclass(frozen=True)
class Replayed:
    """M windows of n steps drawn from the buffer, each of one lane; a window stops early where an episode ends.

    Args:
        seen: the observation acted on at the window's first step; leading dimension M.
        slate: int64 (M, K) what was chosen then.
        extra: what the learner stored with the first step, by name.
        reward: float32 (M,) rewards of the window, discounted to its first step.
        discount: float32 (M,) what the value of `after` counts: gamma to the number of steps; 0 where the user left.
        next_observation: the observation after the window's last step.
        last_extra: what was stored with that last step.
        follows: bool (M,) the episode went on after the window.
        next_slate: int64 (M, K) what was chosen at `after`; of another episode where not `follows`.
        next_extra: what was stored with that choice.
    """

    seen: Observation
    slate: Tensor
    extra: dict[str, Tensor]
    reward: Tensor
    discount: Tensor
    next_observation: Observation
    last_extra: dict[str, Tensor]
    follows: Tensor
    next_slate: Tensor
    next_extra: dict[str, Tensor]


class Replay:
    """The last `capacity` transitions of B lanes as tables (T, B, ...), T = capacity / B; the oldest are overwritten.

    Kept compact, and exactly: item rows as int16 where the catalogue allows, else int32; `action_mask` as bool.
    `sample` gives them back in the dtypes of an observation. Neither `keep` nor `sample` waits for the device.
    Experience replay (Lin 1992) as in DQN (Mnih et al. 2015): uniform, with replacement.

    Args:
        task: sizes, lanes, device and seed.
        capacity: transitions over all lanes.
        keys: observation keys to keep.
        after_keys: those of the observation after a step; default the same.
        candidates: C, where `candidates` is among the keys.
        extra: what a learner stores with a step besides.
        steps: n of n-step returns.
        gamma: discount a step.

    Raises:
        PolicyError: a capacity that holds fewer than n + 2 steps of each lane, or more than the memory.
    """

    def __init__(
        self,
        task: Task,
        capacity: int,
        keys: Sequence[str],
        *,
        after_keys: Sequence[str] | None = None,
        candidates: int = 0,
        extra: Layout | None = None,
        steps: int = 1,
        gamma: float = 0.9,
    ) -> None:
        self.lanes, self.device, self.steps, self.gamma = task.lanes, task.device, steps, gamma
        self.rows = capacity // task.lanes  # T
        if self.rows < steps + 2:
            raise PolicyError(
                f"a replay of {capacity} transitions holds {self.rows} steps of {task.lanes} lanes; {steps}-step "
                f"returns need {steps + 2}: raise the capacity to {(steps + 2) * task.lanes} or lower the lanes"
            )
        known = _observed(task.spec, candidates)
        self._keys = {"seen": tuple(keys), "after": tuple(keys if after_keys is None else after_keys)}
        extra = dict(extra or {})
        small = _rows_dtype(task.spec.catalogue_size)
        layout: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            **{f"{which}.{key}": known[key] for which, names in self._keys.items() for key in names},
            **{f"extra.{name}": entry for name, entry in extra.items()},
            "slate": ((task.spec.slate_size,), small),
            "reward": ((), torch.float32),
            "terminated": ((), torch.bool),
            "done": ((), torch.bool),
        }
        self.bytes = self.rows * task.lanes * _bytes_a_transition(layout)
        _check_memory(self.bytes, capacity, task)
        self._extra = tuple(extra)
        self._tables = {
            name: torch.zeros(self.rows, task.lanes, *shape, dtype=dtype, device=task.device)
            for name, (shape, dtype) in layout.items()
        }
        self._generator = torch.Generator(task.device).manual_seed(task.seed)
        self._written = 0  # steps since the beginning
        self._ahead = torch.arange(steps, device=task.device)
        self._fades = torch.tensor([gamma**i for i in range(steps + 1)], device=task.device)

    def __len__(self) -> int:
        """Transitions held."""
        return min(self._written, self.rows) * self.lanes

    @property
    def ready(self) -> bool:
        """Whether a whole window, and what followed it, is held."""
        return self._written >= self.steps + 1

    def holds(self, least: int) -> bool:
        """Whether it is ready and holds so many transitions, or all that it has room for."""
        return self.ready and len(self) >= min(least, self.rows * self.lanes)

    def keep(self, step: Step, extra: Mapping[str, Tensor] | None = None) -> None:
        """Write one step of all lanes over the oldest.

        Args:
            step: the step; everything is copied.
            extra: the values of `extra` by name; default `step.acted.extra`.
        """
        row = self._written % self.rows
        extra = step.acted.extra if extra is None else extra
        values = {
            **{f"seen.{key}": _packed(key, step.seen) for key in self._keys["seen"]},
            **{f"after.{key}": _packed(key, step.next_observation) for key in self._keys["after"]},
            **{f"extra.{name}": extra[name] for name in self._extra},
            "slate": step.acted.slate,
            "reward": step.reward,
            "terminated": step.terminated,
            "done": step.terminated | step.truncated,
        }
        for name, value in values.items():
            self._tables[name][row].copy_(value)
        self._written += 1

    def sample(self, size: int) -> Replayed:
        """M = `size` windows, uniformly among all that are whole; `ready` must be True."""
        held = min(self._written, self.rows)
        first = torch.randint(held - self.steps, (size,), generator=self._generator, device=self.device)
        lane = torch.randint(self.lanes, (size,), generator=self._generator, device=self.device)
        start = (self._written - held + first) % self.rows  # (M,)
        window = (start.unsqueeze(1) + self._ahead) % self.rows  # (M, n)
        lanes = lane.unsqueeze(1)
        done = self._tables["done"][window, lanes]  # (M, n)
        alive = torch.cat([torch.zeros_like(done[:, :1]), done[:, :-1]], dim=1).cumsum(1) == 0  # up to the first end
        length = alive.sum(1)  # (M,)
        last = (start + length - 1) % self.rows
        following = (last + 1) % self.rows
        left = self._tables["terminated"][last, lane]
        return Replayed(
            seen=self._observation("seen", start, lane),
            slate=self._tables["slate"][start, lane].long(),
            extra={name: self._tables[f"extra.{name}"][start, lane] for name in self._extra},
            reward=(self._tables["reward"][window, lanes] * alive * self._fades[:-1]).sum(1),
            discount=self._fades[length] * ~left,
            next_observation=self._observation("after", last, lane),
            last_extra={name: self._tables[f"extra.{name}"][last, lane] for name in self._extra},
            follows=~self._tables["done"][last, lane],
            next_slate=self._tables["slate"][following, lane].long(),
            next_extra={name: self._tables[f"extra.{name}"][following, lane] for name in self._extra},
        )

    def held(self, name: str) -> Tensor:
        """What a learner stored under this name with every step held, (T, B, ...), in no order of time."""
        return self._tables[f"extra.{name}"][: min(self._written, self.rows)]

    def state(self) -> dict[str, Tensor]:
        """Everything, by name; the tables are the buffer's own, not copies."""
        return {
            **{f"table.{name}": table for name, table in self._tables.items()},
            "written": torch.tensor(self._written),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`, bit for bit.

        Raises:
            PolicyError: a state of other sizes.
        """
        for name, table in self._tables.items():
            value = state.get(f"table.{name}")
            if value is None or value.shape != table.shape:
                found = "nothing" if value is None else f"{tuple(value.shape)}"
                raise PolicyError(
                    f"the replay's '{name}' is {tuple(table.shape)}, the checkpoint has {found}; go on with the config "
                    "it was made with, or start anew"
                )
            table.copy_(value)
        self._written = int(state["written"])
        self._generator.set_state(state["generator"].cpu())

    def _observation(self, which: str, row: Tensor, lane: Tensor) -> Observation:
        return {key: _unpacked(key, self._tables[f"{which}.{key}"][row, lane]) for key in self._keys[which]}


def _observed(spec: ObservationSpec, candidates: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """How each observation key is kept."""
    rows = _rows_dtype(spec.catalogue_size)
    slates = (spec.shown_length, spec.slate_size)
    return {
        "state": ((spec.state_dim,), torch.float32),
        "shown": (slates, rows),
        "answers": ((*slates, len(spec.signals)), torch.float32),
        "context": ((len(CONTEXT),), torch.float32),
        "profile": ((spec.profile_dim,), torch.float32),
        "candidates": ((candidates,), rows),
        "action_mask": ((spec.catalogue_size,), torch.bool),
    }


def _rows_dtype(catalogue_size: int) -> torch.dtype:
    """The smallest integers that hold item rows 0 to N."""
    return torch.int16 if catalogue_size <= torch.iinfo(torch.int16).max else torch.int32


def _packed(key: str, observation: Observation) -> Tensor:
    value = observation[key]
    return value != 0 if key == "action_mask" else value


def _unpacked(key: str, value: Tensor) -> Tensor:
    return value.long() if key in ("shown", "candidates") else value


def _bytes_a_transition(layout: Layout) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())


def _check_memory(needed: int, capacity: int, task: Task) -> None:
    if task.device.type == "cuda":
        memory = torch.cuda.mem_get_info(task.device)[0]
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed <= _SHARE * memory:
        return
    rows = int(capacity * _SHARE * memory / needed) // task.lanes
    raise PolicyError(
        f"a replay of {capacity} transitions takes {needed / 2**30:.1f} GiB, {_SHARE:.0%} of the memory of "
        f"{task.device} are {_SHARE * memory / 2**30:.1f} GiB; lower the capacity to {rows * task.lanes}"
    )
