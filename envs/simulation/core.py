"""The batched simulation on any torch device: the only place where a step is computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from recloop.encoders.base.errors import DeviceError, RecloopError, UserSimulatorError
from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.checked_slate import slate_fault
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.interaction.reward import Outcome, Reward, checked_reward
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.interaction.rules import Rules
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.arrivals import ArrivalTables
from recloop.envs.simulation.deferred_checks import DeferredChecks
from recloop.envs.simulation.memory_guard import MemoryGuard
from recloop.envs.simulation.native.lanes import NativeLanes, native_lanes
from recloop.envs.simulation.native.stepping import NativeStepping
from recloop.envs.simulation.step_kernel import StepKernel
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fast import SpreadFreeUsers
from recloop.envs.world.world import World

_IN_MOTION = (
    *("past", "encoded", "vector", "profile", "instructions", "state"),
    *("users", "lanes", "episode", "session", "days", "stock", "age"),
)
"""What of a core changes from step to step."""
_ARRIVAL = -1
"""The step whose draws decide who arrives, and how."""


class Core(NativeStepping):
    """B lanes of simulated users, each in an episode of its own. Takes slates only.

    A lane's user is a function of (seed, lane, episode); its luck of (seed, lane, episode, step, item). Finished
    lanes start their next episode in the same step.

    Args:
        world: the world to act in.
        simulator: name of one of its simulators, or a `UserSimulator` of your own; default: the one to train in.
        batch: B, lanes.
        slate_size: K, items a slate; default the world's.
        max_steps: time limit of an episode in slates; default the world's.
        users: a part of the world's users, or rows of the users table to draw from.
        seed: of all randomness.
        reward: a callable of `Outcome`; default the world's.
        rules: what every slate keeps, whoever picks it; default the world's.
        sessions: sessions an episode; after the last one the user has left for good. Default the world's.
        max_days: days away that an episode holds; it is truncated when a user stays away beyond them. Default the
            world's; None knows no such limit.
        start: `history`: past, state and users are warm from the log; `cold`: nothing has happened yet.
        keys: what observations hold.
        device: any torch device.
        spread: whether somebody asks the simulator how unsure it is of its answers (a reward that does need not say
            so): an ensemble then follows every lane with all its members, not with the one who answers alone.
        compile: generate code for this machine at the first step, which takes a minute, and run that: for one lane
            twice to four times as fast, for thousands hardly faster, since matrix products are most of their step.
            Where it cannot be done the step runs as it is, with a warning. Where a native step exists, that runs.
        native: step in compiled loops on the CPU where the users offer that and numba is installed (extra `fast`):
            equal discrete answers, floats within 1e-5. False leaves every step to torch.
    """

    def __init__(
        self,
        world: World,
        simulator: str | UserSimulator | None = None,
        *,
        batch: int = 1,
        slate_size: int | None = None,
        max_steps: int | None = None,
        users: str | Sequence[int] | Tensor = "train",
        seed: int = 0,
        reward: Reward | None = None,
        rules: Rules | None = None,
        sessions: int | None = None,
        max_days: float | None = None,
        start: Literal["history", "cold"] = "history",
        keys: Sequence[str] = DEFAULT_KEYS,
        device: torch.device | str = "cpu",
        spread: bool = False,
        compile: bool = False,
        native: bool = True,
    ) -> None:
        self.sessions = world.sessions if sessions is None else sessions
        self.max_days = world.max_days if max_days is None else max_days
        for name, value in (("batch", batch), ("sessions", self.sessions), ("max_steps", max_steps or 1)):
            if value < 1:
                raise RecloopError(f"{name}={value}; it must be at least 1")
        if self.max_days is not None and not self.max_days > 0:
            raise RecloopError(f"max_days={self.max_days}; it must be above 0, or None for no limit")
        if start not in ("history", "cold"):
            raise RecloopError(f"start='{start}'; choose 'history' or 'cold'")
        self.world = world
        self.device = checked_device(device)
        self.batch = batch
        self.spec = world.spec(slate_size, max_steps)
        self.slate_size = self.spec.slate_size
        self.max_steps = self.spec.max_steps
        self.start = start
        self.seed = seed
        self.reward = reward or world.reward
        asked = world.rules if rules is None else rules
        self.ruled = RuledSlates.of(asked, world.catalogue, world.signals, self.slate_size, self.device)
        self.stock: Tensor | None = None
        self.age: Tensor | None = None
        chosen = world.training_simulator if simulator is None else simulator
        simulator = world.simulator(chosen) if isinstance(chosen, str) else chosen
        _check_signals(world, simulator)
        if isinstance(simulator, SpreadFreeUsers) and not (spread or getattr(self.reward, "needs_spread", False)):
            simulator = simulator.without_spread()
        self.simulator = simulator
        self.simulator.prepare(world, self.device)
        self.encoder = world.state_encoder.to(self.device)
        self._reads_every = self.encoder.behavior.refresh if self.encoder.behavior is not None else 0
        self.empty = len(world.catalogue)
        self.columns = world.catalogue.columns.to(self.device)
        self.pool = _user_rows(world, users).to(self.device)
        most = self.slate_size * self.max_steps
        self.arrivals = ArrivalTables(world, self.simulator, self.slate_size, start == "cold", self.device, most)
        self._keys, self._compile, self._stale = tuple(keys), compile, False
        self._kernel = self._kernel_for("state" in self._keys)
        self._faults = DeferredChecks(self.device)
        self._room = MemoryGuard(batch, self.arrivals.lane_bytes(), self.device)
        with self._room:
            self._every = torch.arange(batch, device=self.device)
            self.lanes = self._every
            self._native: NativeLanes | None = None
            self.reset()
            self._native = native_lanes(self) if native else None

    @torch.no_grad()
    def reset(
        self,
        *,
        seed: int | None = None,
        lanes: Tensor | None = None,
        users: Tensor | None = None,
        instructions: Tensor | None = None,
    ) -> None:
        """Start episode 0 in every lane.

        Args:
            seed: replaces the core's seed.
            lanes: int64 (B,) names of the lanes; default 0 to B-1.
            users: int64 (B,) rows of the users table to start with; default drawn by (seed, lane, episode).
            instructions: float32 (B, u) instructions of this episode; default, and in later episodes, each user's own.
        """
        self.seed = self.seed if seed is None else seed
        if lanes is not None:
            self.lanes = self._per_lane("lanes", lanes)
        self.episode = torch.zeros_like(self.lanes)
        luck = Draw.of_episode(self.seed, self.lanes, self.episode)
        self.luck = luck.key
        draw = luck.at_step(torch.full_like(self.lanes, _ARRIVAL))
        self.users = self._drawn_users(draw) if users is None else self._per_lane("users", users)
        if int(self.users.min()) < 0 or int(self.users.max()) >= len(self.world.users):
            raise RecloopError(
                f"users holds {int(self.users.min())} to {int(self.users.max())}; the world's users table has "
                f"rows 0 to {len(self.world.users) - 1}"
            )
        if self.ruled is not None and self.ruled.units is not None:
            self.stock, self.age = self.ruled.units, torch.zeros((), dtype=torch.int64, device=self.device)
        self._stale = self._loaded = False
        self.session = torch.zeros_like(self.lanes)
        self.days = torch.zeros_like(self.lanes, dtype=torch.float32)
        arrival = self.arrivals.of(self.users, draw)
        self.past, self.encoded, self.vector = arrival.past, arrival.encoded, arrival.vector
        self.profile, self.state = arrival.profile, arrival.state
        self.instructions = arrival.instructions if instructions is None else self._given_instructions(instructions)

    def like(self, *, batch: int, seed: int, **arguments: Any) -> "Core":
        """Another core with the arguments of this one, except those given; it starts with episode 0 in every lane."""
        own: dict[str, Any] = {
            "simulator": self.simulator,
            "reward": self.reward,
            "users": self.pool,
            "start": self.start,
        }
        own |= {"slate_size": self.slate_size, "max_steps": self.max_steps, "keys": self.keys, "device": self.device}
        own |= {"sessions": self.sessions, "max_days": self.max_days}
        own["rules"] = None if self.ruled is None else self.ruled.rules
        return Core(self.world, batch=batch, seed=seed, **{**own, **arguments})

    @torch.no_grad()
    def next_episode(self, where: Tensor) -> None:
        """Break off the episode of the lanes `where`, bool (B,), and start their next one."""
        self._restart(where)
        self._loaded = False

    @torch.no_grad()
    def observe(self, keys: Sequence[str] | None = None) -> Observation:
        """The observation of every lane; `keys` default to the core's."""
        keys = self.keys if keys is None else keys
        if self._stale and "state" in keys:
            raise RecloopError("this core stepped without observation key 'state'; put it into `keys`, then reset()")
        return self.spec.observe(self.past, self.vector, self.profile, keys, self._said(keys), self.allowed)

    @torch.no_grad()
    def step(self, slate: Tensor) -> Transition:
        """Show a slate (B, K) of item rows to every lane and let the finished ones start anew."""
        with self._room:
            return self._step(slate)

    def _step(self, slate: Tensor) -> Transition:
        slate = self._checked(slate)
        if (native := self.native) is not None:
            return self._stepped_natively(native, slate)
        state, past = self.state, self.past
        slate, mended = self._mended(slate)
        moved = self._kernel(state, past, self.encoded, self.vector, slate, self.luck)
        self.past, self.encoded, self.vector = moved.past, moved.encoded, moved.vector
        self._stale = not self._kernel.encodes
        slate, invalid, response = moved.slate, moved.invalid, moved.response
        self._sell(slate, response)
        outcome = self._outcome(slate, response, invalid, *self._unsure(state, past, slate))
        reward = checked_reward(self.reward(outcome), self.lanes, self._faults, self.reward)
        if self._reads_every:
            self._read_again(self.past.step % self._reads_every == 0)
        self.state, terminated = self._leave_or_return(moved.state, response, past.step)
        over = self.past.step >= self.max_steps
        if self.max_days is not None:
            over = over | (self.days > self.max_days)
        truncated = over & ~terminated
        after = self.observe()
        self._restart(terminated | truncated)
        return Transition(slate, invalid, response, reward, terminated, truncated, after, mended)

    def _stepped_natively(self, native: NativeLanes, slate: Tensor) -> Transition:
        step = self.native_step(native, slate.numpy())
        shown, invalid, response = torch.from_numpy(step.slate), torch.from_numpy(step.invalid), step.response()
        if step.reward is None or self.reward is not native.reward:
            earned = self.reward(self._outcome(shown, response, invalid, None, None))
            reward = checked_reward(earned, self.lanes, self._faults, self.reward)
        else:
            reward = torch.from_numpy(step.reward)
        after = self.observe()
        done = step.left | step.truncated
        if done.any():
            self.native_restart(native, done)
        return Transition(shown, invalid, response, reward, response.left, torch.from_numpy(step.truncated), after)

    def snapshot(self) -> dict[str, Any]:
        """All that the next step depends on besides the arguments of this core; `resume` undoes it."""
        return {name: getattr(self, name) for name in _IN_MOTION}

    def resume(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from the `snapshot` of a core with the same arguments, bit for bit."""
        for name in _IN_MOTION:
            setattr(self, name, snapshot[name])
        self.luck = Draw.of_episode(self.seed, self.lanes, self.episode).key
        self._loaded = False

    def put_back(self, lanes: Tensor, snapshot: Mapping[str, Any]) -> None:
        """Let the lanes, bool (B,), stand where they stood at a `snapshot`; the others stay where they are.

        The stock is one for all lanes, and what was taken of it stays taken.
        """
        now = self.snapshot()
        self.resume({name: v if name == "stock" else _where(lanes, v, snapshot[name]) for name, v in now.items()})

    def draw(self) -> Draw:
        """This step's draws."""
        return Draw(self.luck).at_step(self.past.step)

    @property
    def allowed(self) -> Tensor | None:
        """bool (N,) what the rules allow to be shown now; None without rules."""
        return None if self.ruled is None else self.ruled.may_be_shown(self.stock)

    @property
    def masks_items(self) -> bool:
        """Whether there are items that may not be shown: consumed before, or against the rules."""
        return not self.world.consumes_twice or self.ruled is not None

    def action_mask(self) -> Tensor:
        """Which items may be shown now, bool (B, N)."""
        return self.spec.action_mask(self.past, self.allowed)

    @property
    def keys(self) -> tuple[str, ...]:
        """What observations hold. Without `state` nothing is encoded."""
        return self._keys

    @keys.setter
    def keys(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)
        if self._kernel.encodes != ("state" in self._keys):
            self._kernel = self._kernel_for("state" in self._keys)

    def _kernel_for(self, encodes: bool) -> StepKernel:
        return StepKernel(self.simulator, self.encoder, self.empty, encodes, self.batch if self._compile else None)

    def _unsure(self, state: Any, past: Past, slate: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """How unsure the users' model is of its answers to a slate, by spread and by the farthest member, where the
        reward asks for it."""
        if not getattr(self.reward, "needs_spread", False):
            return None, None
        expected = self.simulator.expected(state, past, slate)
        return (None, None) if expected is None else (expected.spread, expected.farthest)

    def _outcome(
        self, slate: Tensor, response: Response, invalid: Tensor, spread: Tensor | None, farthest: Tensor | None
    ) -> Outcome:
        vectors, signals = self.encoder.item_vectors, self.world.signals
        return Outcome(slate, response, invalid, vectors, signals, spread, farthest, self.past, self.columns)

    def _mended(self, slate: Tensor) -> tuple[Tensor, Tensor | None]:
        """The slate as the rules have it, and how many places they changed."""
        if self.ruled is None:
            return slate, None
        seen = self.past.seen

        def barred(lanes: Tensor, items: Tensor) -> Tensor:
            return torch.zeros_like(items, dtype=torch.bool) if seen is None else seen.rows(lanes).contains(items)

        return self.ruled.mended(slate, barred, self.stock)

    def _sell(self, slate: Tensor, response: Response) -> None:
        """Take what was sold from the stock; fill it up every time limit of an episode."""
        if self.ruled is None or self.ruled.units is None or self.stock is None or self.age is None:
            return
        place = self.ruled.takes
        sold = (response.signals[..., place] > 0.5) & response.given[..., place] & (slate < self.empty)
        left = self.stock.index_add(0, slate.flatten(), -sold.flatten().to(torch.int64))
        self.age = self.age + 1
        self.stock = torch.where(self.age % self.max_steps == 0, self.ruled.units, left)

    def _checked(self, slate: Tensor) -> Tensor:
        """The slate as int64 on the device, or `RecloopError`."""
        fault = slate_fault(slate, (self.batch, self.slate_size))
        if fault is not None:
            raise RecloopError(f"slate is {fault}; this core takes an int64 tensor ({self.batch}, {self.slate_size})")
        slate = slate.to(self.device, torch.int64)
        low, high = slate.aminmax()
        if self.device.type == "cpu":
            if int(low) < 0 or int(high) > self.empty:
                raise self._no_such_row(int(low), int(high))
            return slate.contiguous()
        self._faults.look((low < 0) | (high > self.empty), lambda: self._no_such_row(int(low), int(high)))
        return slate.clamp(0, self.empty).contiguous()  # it would read what is not there

    def _no_such_row(self, low: int, high: int) -> RecloopError:
        value = low if low < 0 else high
        return RecloopError(f"slate holds item row {value}; the catalogue has rows 0 to {self.empty - 1}")

    def _leave_or_return(self, state: Any, response: Response, step: Tensor) -> tuple[Any, Tensor]:
        """End sessions: who left for good, and everyone else in their next session."""
        if self.sessions == 1:
            return state, response.left
        self.session = self.session + response.left.to(torch.int64)
        gone = self.session >= self.sessions
        back = response.left & ~gone
        if self._reads_every:
            self._read_again(back)
        days = torch.ones_like(self.past.days_away) if response.days_away is None else response.days_away
        self.past = replace(self.past, days_away=torch.where(back, days, self.past.days_away))
        self.days = self.days + torch.where(back, days, torch.zeros_like(days))
        resumed = self.simulator.resume(state, days, Draw(self.luck).at_step(step))
        return state.where(back, resumed), response.left & gone

    def _restart(self, done: Tensor) -> None:
        """Give every finished lane, bool (B,), the user of its next episode."""
        if self.device.type != "cpu":  # looking which lanes they are would wait for the device
            self.episode = self.episode + done.to(torch.int64)
            self._arrive(self._every, lambda mine, theirs: _where(done, mine, theirs))
        elif done.any():
            self.episode = self.episode + done.to(torch.int64)
            rows = done.nonzero()[:, 0]
            if len(rows) == self.batch:
                self._arrive(rows, lambda mine, theirs: theirs)
            else:
                self._arrive(rows, lambda mine, theirs: _put(rows, mine, theirs, self._every))

    def _arrive(self, rows: Tensor, merged: Callable[[Any, Any], Any]) -> None:
        """Merge the arrivals of the lanes `rows` into what is in motion; observations handed out stay as they are."""
        lanes, episode = self.lanes[rows], self.episode[rows]
        luck = Draw.of_episode(self.seed, lanes, episode)
        self.luck = merged(self.luck, luck.key)
        draw = luck.at_step(torch.full_like(rows, _ARRIVAL))
        users = self._drawn_users(draw)
        arrival = self.arrivals.of(users, draw)
        nothing = torch.zeros_like(users)
        self.users, self.session = merged(self.users, users), merged(self.session, nothing)
        self.days = merged(self.days, nothing.to(torch.float32))
        for name in ("past", "encoded", "vector", "profile", "instructions", "state"):
            setattr(self, name, merged(getattr(self, name), getattr(arrival, name)))

    def _read_again(self, due: Tensor) -> None:
        """Let the language model read the histories of the lanes `due` (B,) anew, in one batch."""
        rows = due.nonzero()[:, 0]
        if len(rows):
            read = self.encoder.refresh(self.encoded.rows(rows), self.past.history[rows], self.past.feedback[rows])
            self.encoded = self.encoded.put(rows, read)
            self.vector = self.vector.index_copy(0, rows, self.encoder.vector(read))

    def _drawn_users(self, draw: Draw) -> Tensor:
        return self.pool[(draw.bits("user") >> 1).abs() % len(self.pool)]

    def _said(self, keys: Sequence[str]) -> Tensor | None:
        """What each user asks for, (B, u), where somebody looks: by users who speak, or by the table."""
        said = self.simulator.says(self.state) if "instruction" in keys else None
        return self.instructions if said is None else said

    def _given_instructions(self, instructions: Tensor) -> Tensor:
        if self.simulator.says(self.state) is not None:
            raise RecloopError("instructions are given, and these users say themselves what they want; leave them out")
        wanted = (self.batch, self.spec.instruction_dim)
        if tuple(instructions.shape) != wanted:
            raise RecloopError(
                f"instructions have shape {tuple(instructions.shape)}; this world takes {wanted}, one a lane"
            )
        return instructions.to(self.device, torch.float32)

    def _per_lane(self, name: str, values: Tensor) -> Tensor:
        if values.shape != (self.batch,):
            raise RecloopError(f"{name} has shape {tuple(values.shape)}; give one a lane, ({self.batch},)")
        return values.to(self.device, torch.int64)


def checked_device(device: torch.device | str) -> torch.device:
    """The device, if it is there; `DeviceError` otherwise."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0]
        raise DeviceError(f"device '{device}' is not usable ({reason}); there are: {', '.join(there)}") from None
    return found


def _put(rows: Tensor, mine: Any, theirs: Any, every: Tensor) -> Any:
    """`theirs` (F, ...) in the rows of `mine` (B, ...): tensors, lanes, or a simulator's own kind of state."""
    if isinstance(mine, Tensor):
        return mine.index_copy(0, rows, theirs)
    if isinstance(mine, TensorStruct):
        return mine.put(rows, theirs)
    place = torch.zeros_like(every).index_copy(0, rows, every[: len(rows)])
    return mine.where(torch.isin(every, rows), theirs.rows(place))


def _where(done: Tensor, mine: Any, theirs: Any) -> Any:
    """`theirs` where `done` (B,), `mine` elsewhere, tensors or lanes; None where a core has none."""
    if mine is None:
        return None
    if isinstance(mine, Tensor):
        return torch.where(done.view(-1, *[1] * (mine.dim() - 1)), theirs, mine)
    return mine.where(done, theirs)


def _user_rows(world: World, users: str | Sequence[int] | Tensor) -> Tensor:
    rows = world.users.rows(users) if isinstance(users, str) else torch.as_tensor(users, dtype=torch.int64)
    if len(rows) == 0:
        raise RecloopError(f"no users to draw from in '{users}'; choose another part of world '{world.name}'")
    if int(rows.min()) < 0 or int(rows.max()) >= len(world.users):
        raise RecloopError(
            f"users names row {int(rows.min())} to {int(rows.max())}; there are 0 to {len(world.users) - 1}"
        )
    return rows


def _check_signals(world: World, simulator: UserSimulator) -> None:
    mine, theirs = [s.name for s in world.signals], [s.name for s in simulator.signals]
    if mine != theirs:
        raise UserSimulatorError(
            f"{type(simulator).__name__} answers with {theirs}, the world '{world.name}' and its policies know {mine}; "
            "declare the world's signals, in its order"
        )
