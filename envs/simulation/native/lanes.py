"""Lanes that are stepped natively: their rows, the tables of users and encoder, and the calls of the loops."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.state.encoder import CELL, StateEncoder
from recloop.envs.interaction.randomness import purpose_code, signed
from recloop.envs.interaction.response import Past, Response
from recloop.envs.interaction.reward import Reward, WeightedReward
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.interaction.seen import SeenBits
from recloop.envs.simulation.arrivals import ArrivalTables
from recloop.envs.simulation.native.packed import Floats, Ints, RowLayout
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fast import NativeForm, NativeUsers
from recloop.envs.world.world import World

Bools = npt.NDArray[np.bool_]

HELD = ("past", "encoded", "vector", "profile", "instructions", "state", "users", "episode", "luck")
"""What these lanes keep for a core, by the names it has there."""
_MOST_BYTES = 1 << 30
"""Of the rows of all users; where they need more, torch steps."""
_NONE = np.zeros(1, np.float32)


class SteppedCore(Protocol):
    """What is read of a core; the parts in `HELD` besides."""

    world: World
    simulator: UserSimulator
    encoder: StateEncoder
    reward: Reward
    ruled: RuledSlates | None
    arrivals: ArrivalTables
    pool: Tensor
    lanes: Tensor
    past: Past
    device: torch.device
    batch: int
    slate_size: int
    empty: int
    max_steps: int
    sessions: int
    seed: int


@dataclass(frozen=True)
class NativeStep:
    """What a slate led to, B lanes: arrays of their own.

    Args:
        slate: int64 (B, K) what was shown; N where a place is invalid.
        invalid: int64 (B,) places without an item.
        signals, given: float32 and bool (B, K, S).
        left, truncated: bool (B,); never both.
        reward: float32 (B,); None where it is no plain sum of weights.
    """

    slate: Ints
    invalid: Ints
    signals: Floats
    given: Bools
    left: Bools
    truncated: Bools
    reward: Floats | None

    def response(self) -> Response:
        """The answers as tensors, which share memory with these."""
        return Response(*(torch.from_numpy(part) for part in (self.signals, self.given, self.left)))


class _Loop:
    """A compiled function that is always called with the same types: numba's look at them took most of a short call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._entry: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._entry is not None:
            return self._entry(*arguments)
        found = self._function(*arguments)
        overloads = getattr(self._function, "overloads", None)
        if overloads:
            from numba import typeof

            self._entry = overloads[tuple(typeof(one) for one in arguments)].entry_point  # type: ignore[no-untyped-call]
        return found


class NativeLanes:
    """The lanes of a core as rows that compiled loops change in place; what is handed out are copies.

    Args:
        core: its arguments never change.
        form: of its users.

    Attributes:
        floats, ints: float32 (B, F) and int64 (B, I), the lanes.
        lanes: int64 (B,) their names.
        layout, at: where what lies in them.

    Raises:
        TypeError: users' states of other types than float32 and int64.
    """

    def __init__(self, core: SteppedCore, form: NativeForm) -> None:
        from recloop.envs.simulation.native import kernels

        if not kernels.COMPILES:
            raise ImportError("numba cannot be imported, or is told to compile nothing")
        self._form, self.reward, self._max_steps = form, core.reward, core.max_steps
        self._seed, self.lanes, self._pool = 0, np.arange(core.batch), core.pool.numpy()
        everyone, number = core.arrivals.everyone(), torch.zeros(1, dtype=torch.int64)
        strangers = everyone.pop("state")
        state, self._members = (form.arrivals, form.members) if strangers is None else (strangers, 1)
        self.layout = RowLayout({**everyone, "state": state, "users": number, "episode": number, "luck": number})
        tables, states = RowLayout(everyone), RowLayout({"state": state})
        self._world, self._states = (
            tables.rows(len(core.world.users)),
            states.rows(len(core.world.users) * self._members),
        )
        tables.pack(everyone, *self._world)
        states.pack({"state": state}, *self._states)
        self.at = _lane(core, self.layout)
        self._tables = _encoder_tables(core.encoder, kernels)
        answer, self._users = form.bind(lambda name: self.layout.start(f"state.{name}"))
        self._member = self.layout.start("state.member")
        self._answer, self._strike, self._follow = _Loop(answer), _Loop(kernels.strike), _Loop(kernels.follow)
        self._conclude, self._restart = _Loop(kernels.conclude), _Loop(kernels.restart)
        self._purposes = np.array([purpose_code("user"), purpose_code("member")], np.uint64)
        self._steps = np.empty((kernels.BLOCK, core.encoder.dim), np.float32)
        self._weights = _weights(core)
        self._watch(form.sources())
        self.floats, self.ints = self.layout.rows(core.batch)

    @property
    def weighs(self) -> bool:
        """Whether steps come with their reward."""
        return self._weights is not None

    @property
    def fresh(self) -> bool:
        """Whether users and encoder still hold what the tables were read from."""
        now = self._form.sources()
        if [id(source) for source in now] != self._ids:
            pairs = zip(now, self._sources, strict=True)
            if not all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs):
                return False
            self._watch(now)  # prepared again, to the same tables
        return [tensor._version for tensor in self._watched] == self._versions

    def load(self, core: SteppedCore) -> None:
        """Go on from where a core stands."""
        self._seed, self.lanes = signed(core.seed), core.lanes.numpy()
        self.layout.pack({name: getattr(core, name) for name in HELD}, self.floats, self.ints)

    def copied(self, name: str) -> Any:
        """What a core holds under one of the names `HELD`, as it is now."""
        return self.layout.copied(name, self.floats, self.ints)

    def step(self, slate: Ints, encodes: bool) -> NativeStep:
        """Show a slate (B, K) of rows 0 to N to every lane; `encodes` lets the state encoder follow."""
        floats, ints, at = self.floats, self.ints, self.at
        b = len(slate)
        slate, invalid = slate.copy(), np.empty(b, np.int64)
        signals = np.empty((b, at.places, at.signals), np.float32)
        given, left, late = np.empty(signals.shape, np.bool_), np.empty(b, np.bool_), np.empty(b, np.bool_)
        self._strike(ints, slate, invalid, at)
        alone = self._users[ints[0, self._member]] if b == 1 and len(self._users) > 1 else None
        for tables in self._users if alone is None else (alone,):
            self._answer(floats, ints, slate, signals, given, left, at, tables)
        self._follow(floats, ints, slate, signals, given, self._steps, at, self._tables, encodes)
        weights = self._weights or (_NONE, _NONE[0], _NONE[0])
        reward = self._conclude(ints, signals, given, left, invalid, late, *weights, self._max_steps, at)
        return NativeStep(slate, invalid, signals, given, left, late, reward if self._weights else None)

    def restart(self, done: Bools) -> None:
        """Give the lanes `done` (B,) the users of their next episodes."""
        self._restart(
            *(self.floats, self.ints, done, *self._world, *self._states, self._pool, self.lanes),
            *(self._seed, self._members, self._purposes, self.at),
        )

    def rehearse(self) -> None:
        """Run everything once, in a lane of its own, so that it is compiled, or loaded from disk."""
        kept, self.floats, self.ints = (self.floats, self.ints), *self.layout.rows(1)
        self.restart(np.ones(1, np.bool_))
        self.step(np.arange(self.at.places)[None] % self.at.items, encodes=True)
        self.floats, self.ints = kept

    def _watch(self, sources: tuple[Any, ...]) -> None:
        self._sources, self._ids = sources, [id(source) for source in sources]
        self._watched = [source for source in sources if isinstance(source, Tensor)]
        self._versions = [tensor._version for tensor in self._watched]


def native_lanes(core: SteppedCore) -> NativeLanes | None:
    """The lanes of a core for the native step; None where there is none for all that the core does.

    Silent where nothing was promised: without numba, on a GPU, for users, rewards that ask for spread, rules, sessions,
    encoders and catalogues that have no native form. A warning of one line where it should work and does not.
    """
    users, past = core.simulator, core.past
    if not isinstance(users, NativeUsers) or core.device.type != "cpu" or find_spec("numba") is None:
        return None
    if core.sessions > 1 or core.ruled is not None or getattr(core.reward, "needs_spread", False):
        return None
    if not _follows(core.encoder) or not isinstance(past.seen, SeenBits | None) or not past.shown.shape[1]:
        return None
    if len(core.world.users) * core.arrivals.lane_bytes() > _MOST_BYTES:
        return None
    try:
        form = users.native(core.slate_size)
        if form is None:
            return None
        lanes = NativeLanes(core, form)
        lanes.rehearse()
    except Exception as error:  # whatever it is, torch can do without
        first = next(iter(str(error).strip().splitlines()), "")
        warnings.warn(
            f"the native step does not work here ({type(error).__name__}: {first}) and torch steps instead; "
            "native=False says nothing",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return lanes


def _follows(encoder: StateEncoder) -> bool:
    """Whether the loops know all parts of an encoder."""
    return type(encoder) is StateEncoder and encoder.config.sequence == "gru" and encoder.behavior is None


def _weights(core: SteppedCore) -> tuple[Floats, np.float32, np.float32] | None:
    """Of signals (S,), leaving and repeats, where the reward is made of these."""
    reward = core.reward
    if type(reward) is not WeightedReward or reward.columns or reward.diversity:
        return None
    names = [signal.name for signal in core.world.signals]
    if not set(reward.signals) <= set(names):
        return None  # torch says which one nobody knows
    units = [reward.signals.get(name, 0.0) for name in names]
    return np.array(units, np.float32), np.float32(reward.leaving), np.float32(reward.repeats)


def _lane(core: SteppedCore, layout: RowLayout) -> Any:
    from recloop.envs.simulation.native.kernels import Lane

    past, start = core.past, layout.start
    return Lane(
        items=core.empty,
        places=core.slate_size,
        signals=len(core.world.signals),
        length=past.history.shape[1],
        slates=past.shown.shape[1],
        words=start("past.seen.words") if past.seen is not None else -1,
        **{name: start(f"past.{name}") for name in ("history", "shown", "step", "feedback", "answers")},
        days=start("past.days_away"),
        **{name: start(name) for name in ("luck", "users", "episode", "vector")},
        consumed=start("encoded.count"),
        **{name: start(f"encoded.{name}") for name in ("hidden", "keys", "values", "presence", "patterns", "mass")},
    )


def _encoder_tables(encoder: StateEncoder, kernels: Any) -> Any:
    """All that the loops read of an encoder, sharing memory with it."""
    weights = encoder.state_dict(keep_vars=True)
    weights["relation_rows"] = encoder.relation_rows.flatten(1)
    weights["gate"] = encoder.relation_gate.weight[0]
    names = {
        **{name: name for name in ("out_items", "pattern_weights", "relation_rows", "gate")},
        **{"low": "signal_low", "high": "signal_high", "gate_bias": "relation_gate.bias"},
        **{"signal": "signal.weight", "signal_bias": "signal.bias", "head": "head.weight", "head_bias": "head.bias"},
        **{"pattern_input": "pattern_input.weight", "pattern_bias": "pattern_input.bias"},
        **{name.removesuffix("_l0"): f"sequence.{name}" for name in CELL},
        **{name: f"fusion.{name}" for name in ("token_key", "token_value")},
    }
    for name in ("query", "attended", "norm", "wide", "narrow"):
        names |= {name: f"fusion.{name}.weight", f"{name}_bias": f"fusion.{name}.bias"}
    relations, c = len(encoder.relations), encoder.config
    absent = {name: torch.zeros(0, 0) for name in ("pattern_input", "query", "attended", "wide", "narrow")}
    absent |= {"token_key": torch.zeros(relations, c.key_dim), "token_value": torch.zeros(relations, c.value_dim)}
    tables = {name: weights.get(key, absent.get(name, torch.zeros(0))) for name, key in names.items()}
    arrays = {name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in tables.items()}
    return kernels.EncoderTables(**arrays, decay=np.float32(c.decay), heads=c.heads)
