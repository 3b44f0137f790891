"""The batched simulation on any torch device: the only place where a step is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from recloop.encoders.errors import DeviceError, RecloopError, UserSimulatorError
from recloop.encoders.state_config import EncoderState
from recloop.envs.observation import DEFAULT_KEYS, Observation
from recloop.envs.past import remember
from recloop.envs.randomness import Draw
from recloop.envs.rewards import Outcome, Reward, checked_reward
from recloop.envs.users.contract import Past, Response, UserSimulator
from recloop.envs.world import UserTable, World

_IN_MOTION = ("past", "encoded", "state", "_vector", "wishes", "users", "lanes", "episode", "session", "days")
"""What of a core changes from step to step."""


@dataclass(frozen=True)
class Transition:
    """One step of B lanes.

    Args:
        slate: int64 (B, K) what was shown; N where a place was struck.
        struck: int64 (B,) places without an item: struck as repeated or forbidden, or left empty by the action.
        response: the answers.
        reward: float32 (B,).
        terminated: bool (B,) the user left for good.
        truncated: bool (B,) the time limit came first.
        finished: int64 (F,) the lanes that ended, rising.
        after: the observation of every lane just after the step, before any of them started anew.
    """

    slate: Tensor
    struck: Tensor
    response: Response
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    finished: Tensor
    after: Observation

    @cached_property
    def final(self) -> Observation | None:
        """The last observation of the lanes that ended, leading dimension F; None where no lane ended."""
        if len(self.finished) == 0:
            return None
        return {key: value[self.finished] for key, value in self.after.items()}


class Core:
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
        sessions: sessions an episode; after the last one the user has left for good. Default the world's.
        max_days: days away that an episode holds; it is truncated when a user stays away beyond them. Default the
            world's; None knows no such limit.
        start: `history`: past, state and users are warm from the log; `cold`: nothing has happened yet.
        keys: what observations hold.
        device: any torch device.
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
        sessions: int | None = None,
        max_days: float | None = None,
        start: Literal["history", "cold"] = "history",
        keys: Sequence[str] = DEFAULT_KEYS,
        device: torch.device | str = "cpu",
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
        self.keys = tuple(keys)
        self.seed = seed
        self.reward = reward or world.reward
        chosen = world.training_simulator if simulator is None else simulator
        self.simulator = world.simulator(chosen) if isinstance(chosen, str) else chosen
        _check_signals(world, self.simulator)
        self.simulator.prepare(world, self.device)
        self.encoder = world.state_encoder.to(self.device)
        self._reads_every = self.encoder.behavior.refresh if self.encoder.behavior is not None else 0
        self.empty = len(world.catalogue)
        self._pool = _user_rows(world, users).to(self.device)
        self._fill_arrival_tables()
        self.lanes = torch.arange(batch, device=self.device)
        self.reset()

    @torch.no_grad()
    def reset(
        self,
        *,
        seed: int | None = None,
        lanes: Tensor | None = None,
        users: Tensor | None = None,
        wishes: Tensor | None = None,
    ) -> None:
        """Start episode 0 in every lane.

        Args:
            seed: replaces the core's seed.
            lanes: int64 (B,) names of the lanes; default 0 to B-1.
            users: int64 (B,) rows of the users table to start with; default drawn by (seed, lane, episode).
            wishes: float32 (B, u) instructions of this episode; default, and in later episodes, each user's own.
        """
        self.seed = self.seed if seed is None else seed
        if lanes is not None:
            self.lanes = self._per_lane("lanes", lanes)
        self.episode = torch.zeros_like(self.lanes)
        self.users = self._drawn_users() if users is None else self._per_lane("users", users)
        if int(self.users.min()) < 0 or int(self.users.max()) >= len(self.world.users):
            raise RecloopError(
                f"users holds {int(self.users.min())} to {int(self.users.max())}; the world's users table has "
                f"rows 0 to {len(self.world.users) - 1}"
            )
        self.session = torch.zeros_like(self.lanes)
        self.days = torch.zeros_like(self.lanes, dtype=torch.float32)
        self.past, self.encoded, self.state = self._arrivals(self.users)
        self._vector = self._vectors[self.users]
        self.wishes = self._wishes[self.users] if wishes is None else self._given_wishes(wishes)

    @torch.no_grad()
    def next_episode(self, where: Tensor) -> None:
        """Break off the episode of the lanes `where`, bool (B,), and start their next one."""
        self._restart(where)

    @torch.no_grad()
    def observe(self, keys: Sequence[str] | None = None) -> Observation:
        """The observation of every lane; `keys` default to the core's."""
        keys = self.keys if keys is None else keys
        return self.spec.observe(self.past, self._vector, self._profile[self.users], keys, self.wishes)

    @torch.no_grad()
    def step(self, slate: Tensor) -> Transition:
        """Show a slate (B, K) of item rows to every lane and let the finished ones start anew."""
        slate, struck = self._admissible(slate)
        draw = self.draw()
        unsure = self._unsure(slate)
        state, response = self.simulator.respond(self.state, self.past, slate, draw)
        consumed = (response.signals[..., 0] > 0.5) & response.given[..., 0]  # (B, K)
        items = torch.where(consumed, slate, self.empty)
        self.encoded = self.encoder.advance(self.encoded, items, response.signals)
        self.past = remember(self.past, slate, items, response.signals, self.empty)
        outcome = Outcome(
            slate, response, struck, self.encoder.item_vectors, self.world.signals, *unsure, past=self.past
        )
        reward = checked_reward(self.reward(outcome), self.lanes)
        if self._reads_every:
            self._read_again(self.past.step % self._reads_every == 0)
        self.state, terminated = self._leave_or_return(state, response, draw)
        over = self.past.step >= self.max_steps
        if self.max_days is not None:
            over = over | (self.days > self.max_days)
        truncated = over & ~terminated
        done = terminated | truncated
        finished = done.nonzero()[:, 0]
        self._vector = self.encoder.vector(self.encoded)
        after = self.observe()
        if len(finished):
            self._restart(done)
        return Transition(slate, struck, response, reward, terminated, truncated, finished, after)

    def snapshot(self) -> dict[str, Any]:
        """All that the next step depends on besides the arguments of this core; `resume` undoes it."""
        return {name: getattr(self, name) for name in _IN_MOTION}

    def resume(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from the `snapshot` of a core with the same arguments, bit for bit."""
        for name in _IN_MOTION:
            setattr(self, name, snapshot[name])

    def draw(self) -> Draw:
        """This step's draws."""
        return Draw.at(self.seed, self.lanes, self.episode, self.past.step)

    def _unsure(self, slate: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """How unsure the users' model is of its answers to a slate, by spread and by the farthest member, where the
        reward asks for it."""
        if not getattr(self.reward, "needs_spread", False):
            return None, None
        expected = self.simulator.expected(self.state, self.past, slate)
        return (None, None) if expected is None else (expected.spread, expected.farthest)

    def _admissible(self, slate: Tensor) -> tuple[Tensor, Tensor]:
        """Strike repeated and forbidden places: the slate with N there, and how many hold no item."""
        if slate.shape != (self.batch, self.slate_size):
            raise RecloopError(
                f"slate has shape {tuple(slate.shape)}; this core takes ({self.batch}, {self.slate_size})"
            )
        slate = slate.to(self.device, torch.int64)
        outside = (slate < 0) | (slate > self.empty)
        if bool(outside.any()):
            value = int(slate[outside][0])
            raise RecloopError(f"slate holds item row {value}; the catalogue has rows 0 to {self.empty - 1}")
        same = slate.unsqueeze(2) == slate.unsqueeze(1)  # (B, K, K)
        strike = torch.tril(same, diagonal=-1).any(2)
        if self.past.seen is not None:
            strike = strike | self.past.seen.gather(1, slate)
        strike = strike | (slate == self.empty)
        return torch.where(strike, self.empty, slate), strike.sum(1)

    def _leave_or_return(self, state: Any, response: Response, draw: Draw) -> tuple[Any, Tensor]:
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
        return state.where(back, self.simulator.resume(state, days, draw)), response.left & gone

    def _restart(self, done: Tensor) -> None:
        """Give every finished lane the user of its next episode."""
        self.episode = self.episode + done.to(torch.int64)
        self.users = torch.where(done, self._drawn_users(), self.users)
        self.session = torch.where(done, torch.zeros_like(self.session), self.session)
        self.days = torch.where(done, torch.zeros_like(self.days), self.days)
        past, encoded, state = self._arrivals(self.users)
        self.past = self.past.where(done, past)
        self.encoded = self.encoded.where(done, encoded)
        self.state = self.state.where(done, state)
        self._vector = torch.where(done.unsqueeze(1), self._vectors[self.users], self._vector)
        self.wishes = torch.where(done.unsqueeze(1), self._wishes[self.users], self.wishes)

    def _read_again(self, due: Tensor) -> None:
        """Let the language model read the histories of the lanes `due` (B,) anew, in one batch."""
        rows = due.nonzero()[:, 0]
        if len(rows):
            read = self.encoder.refresh(self.encoded.rows(rows), self.past.history[rows], self.past.feedback[rows])
            self.encoded = self.encoded.put(rows, read)

    def _drawn_users(self) -> Tensor:
        bits = Draw.at(self.seed, self.lanes, self.episode, torch.full_like(self.lanes, -1)).bits("user")
        return self._pool[(bits >> 1).abs() % len(self._pool)]

    @torch.no_grad()
    def _fill_arrival_tables(self) -> None:
        """What a lane starts from, by row of the users table, on the device."""
        users = self.world.users
        cold = self.start == "cold"
        self._profile = users.profile.to(self.device)
        known = users.wish_vectors if users.wishes else torch.zeros(len(users), self.spec.instruction_dim)
        self._wishes = known.to(self.device)  # (U, u)
        k = self.slate_size
        shown, answers = _fit_width(users.shown, users.answers, k, self.empty)
        self._history = torch.full_like(users.history, self.empty) if cold else users.history
        self._history = self._history.to(self.device)
        self._feedback = (torch.zeros_like(users.feedback) if cold else users.feedback).to(self.device)
        self._shown = (torch.full_like(shown, self.empty) if cold else shown).to(self.device)
        self._answers = (torch.zeros_like(answers) if cold else answers).to(self.device)
        self._seen = None
        if not self.world.consumes_twice:
            self._seen = self._consumed_in_log(cold)
        self._encoded = self.encoder.blank(self._profile) if cold else self.world.warm_states.to(self.device)
        self._vectors = self.encoder.vector(self._encoded)  # (U, d) of everyone's first observation
        self._strangers = self._inferred(users) if cold else None

    def _inferred(self, users: UserTable) -> Any:
        """Users of whom nothing but the profile is known, by row; None where a simulator cannot guess at anyone."""
        zeros = torch.zeros(len(users), dtype=torch.int64, device=self.device)
        past = Past(self._history, self._feedback, self._shown, self._answers, zeros, zeros.to(torch.float32))
        try:
            return self.simulator.infer(past, self._profile)
        except NotImplementedError:  # such users arrive as they are
            return None

    def _consumed_in_log(self, cold: bool) -> Tensor:
        """bool (U, N+1): what each user consumed in the log; all False for a cold start."""
        sequences = self.world.sequences
        seen = torch.zeros(len(self.world.users), self.empty + 1, dtype=torch.bool)
        if not cold:
            owner = torch.repeat_interleave(torch.arange(sequences.users), torch.from_numpy(sequences.lengths))
            seen[owner, torch.from_numpy(sequences.items)] = True
        return seen.to(self.device)

    def _arrivals(self, users: Tensor) -> tuple[Past, EncoderState, Any]:
        zeros = torch.zeros_like(users)
        past = Past(
            history=self._history[users],
            feedback=self._feedback[users],
            shown=self._shown[users],
            answers=self._answers[users],
            step=zeros,
            days_away=zeros.to(torch.float32),
            seen=None if self._seen is None else self._seen[users],
        )
        draw = Draw.at(self.seed, self.lanes, self.episode, torch.full_like(self.lanes, -1))
        state = self.simulator.arrive(users, draw) if self._strangers is None else self._strangers.rows(users)
        return past, self._encoded.rows(users), state

    def _given_wishes(self, wishes: Tensor) -> Tensor:
        wanted = (self.batch, self.spec.instruction_dim)
        if tuple(wishes.shape) != wanted:
            raise RecloopError(f"wishes have shape {tuple(wishes.shape)}; this world takes {wanted}, one a lane")
        return wishes.to(self.device, torch.float32)

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


def _fit_width(shown: Tensor, answers: Tensor, k: int, empty: int) -> tuple[Tensor, Tensor]:
    """Logged slates (U, L, W) as slates of k places: cut, or filled with empty places."""
    width = shown.shape[2]
    if width >= k:
        return shown[..., :k], answers[..., :k, :]
    more = k - width
    return (
        torch.nn.functional.pad(shown, (0, more), value=empty),
        torch.nn.functional.pad(answers, (0, 0, 0, more)),
    )
