"""What a core does while its lanes stand in native rows: it steps them, and copies of them what somebody asks for."""

import math
import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from recloop.envs.interaction.reward import Reward, checked_reward
from recloop.envs.simulation.deferred_checks import DeferredChecks
from recloop.envs.simulation.native.lanes import HELD, Bools, NativeLanes, NativeStep, SteppedCore
from recloop.envs.simulation.native.packed import Ints


class NativeStepping:
    """The native half of a core.

    While torch steps, `past`, `state` and all else in `HELD` are attributes like any other. While the loops do, they
    lie in rows, and are copied into attributes when they are first read after a step.
    """

    lanes: Tensor
    reward: Reward
    _keys: tuple[str, ...]
    _faults: DeferredChecks
    _native: NativeLanes | None
    _loaded: bool
    _stale: bool

    @property
    def native(self) -> NativeLanes | None:
        """The lanes of the native step, standing where this core stands; None where torch steps."""
        native = self._native
        if native is None:
            return None
        if not native.fresh:
            for name in HELD:
                getattr(self, name)
            self._native = None
            said = "the users changed their tables after `prepare`; torch steps from here on"
            warnings.warn(said, RuntimeWarning, stacklevel=4)
            return None
        if not self._loaded:
            native.load(cast(SteppedCore, self))
            self._loaded = True
        return native

    def native_step(self, native: NativeLanes, slate: Ints) -> NativeStep:
        """Step `native` lanes by checked slates (B, K); lanes that end wait for `native_restart`."""
        self._stale = "state" not in self._keys
        step = native.step(slate, not self._stale)
        self._moved()
        if step.reward is not None and not math.isfinite(step.reward.sum()):
            checked_reward(torch.from_numpy(step.reward), self.lanes, self._faults, self.reward)
        return step

    def native_restart(self, native: NativeLanes, done: Bools) -> None:
        """Start the next episode of the lanes `done`, bool (B,)."""
        native.restart(done)
        self._moved()

    def _moved(self) -> None:
        """What was read from native lanes before stays as it is; what is read now is new."""
        for name in HELD:
            self.__dict__.pop(name, None)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What native lanes hold is copied when somebody asks for it."""
            native = self.__dict__.get("_native")
            if native is None or name not in HELD:
                raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
            value = self.__dict__[name] = native.copied(name)
            return value
