"""One user at a time without tensors in between: what `RecommendEnv` does where its core steps natively."""

from __future__ import annotations

from typing import Any

import numpy as np

from recloop.envs.simulation.driver import Driver, Observed
from recloop.envs.simulation.native.lanes import NativeLanes
from recloop.envs.simulation.native.packed import Ints

_NAMES = {"state": "vector", "profile": "profile", "instruction": "instructions"}
"""Of the observation's keys that lie elsewhere than in the past."""


class OneLane:
    """Steps the core of a driver past it; the same as by it, for the modes whose actions are item rows.

    Args:
        driver: of one lane, whose `plain` says that this may be done.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver, self.core = driver, driver.core
        self._signals = [signal.name for signal in self.core.world.signals]
        self._shape = driver.action_space.shape
        self._one = np.ones(1, np.bool_)
        self._places: list[tuple[str, bool, slice, tuple[int, ...]]] = []

    def step(self, action: Any) -> tuple[Observed, float, bool, bool, dict[str, Any]] | None:
        """As `RecommendEnv.step`; None, and nothing done, where the driver must see to it, a wrong action included."""
        core, slate = self.core, self._slate(action)
        native = core.native
        if slate is None or native is None or not native.weighs or core.reward is not native.reward:
            return None
        step = core.native_step(native, slate)
        assert step.reward is not None
        reward, left, late = float(step.reward[0]), bool(step.left[0]), bool(step.truncated[0])
        observation = self._observation(native)
        if left or late:
            core.native_restart(native, self._one)
        self.driver.passed(left or late)
        signals, given = step.signals[0], step.given[0]
        info = {
            "slate": step.slate[0],
            "invalid": int(step.invalid[0]),
            "left": left,
            "response": {name: signals[:, i].copy() for i, name in enumerate(self._signals)},
            "given": {name: given[:, i].copy() for i, name in enumerate(self._signals)},
        }
        return observation, reward, left, late, info

    def begin(self) -> tuple[Observed, dict[str, Any]] | None:
        """As `RecommendEnv.reset` into the episode that waits since the last step; None where the driver must do it."""
        native = self.core.native
        if native is None:
            return None
        self.driver.passed(over=False)
        at, row = native.at, native.ints[0]
        facts = {"user": int(row[at.users]), "lane": int(native.lanes[0]), "episode_number": int(row[at.episode])}
        return self._observation(native), facts

    def _slate(self, action: Any) -> Ints | None:
        """The action as a slate (1, K); None where it is none of the action space."""
        array = np.asarray(action)
        if array.shape != self._shape or array.dtype.kind not in "iu":
            return None
        rows = array.astype(np.int64).reshape(1, -1)
        told = rows[0].tolist()  # of a few numbers faster than their minimum by NumPy
        return rows if min(told) >= 0 and max(told) < self.core.empty else None

    def _observation(self, native: NativeLanes) -> Observed:
        """What the agent sees, as arrays of its own."""
        if not self._places:
            for key in self.driver.keys:
                if key != "context":
                    place = native.layout.places[_NAMES.get(key, f"past.{key}")]
                    self._places.append((key, place.floats, slice(place.start, place.stop), place.shape))
        floats, ints = native.floats[0], native.ints[0]
        found = {
            key: (floats if real else ints)[columns].reshape(shape).copy() for key, real, columns, shape in self._places
        }
        if "context" in self.driver.keys:
            share = np.float32(ints[native.at.step]) / np.float32(self.core.max_steps)
            found["context"] = np.array([min(share, 1.0), np.log1p(floats[native.at.days])], np.float32)
        return found["state"] if self.driver.flat else found
