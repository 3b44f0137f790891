"""Simulated users walked along a log: told the logged answers, or left to answer for themselves."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from recloop.envs.evidence.fidelity.lanes import Array, Bools, LoggedLanes
from recloop.envs.interaction.past import remember
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.seen import LoggedItems
from recloop.envs.logs.sequences import Floats
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

AGAINST = 20
"""Items drawn beside each consumption in a log without exposures."""

_EPISODE = -2
"""No episode of a core has this number: a log that was itself simulated had other luck, whatever its seed."""


@runtime_checkable
class Observing(Protocol):
    """A simulator whose state can be advanced by answers that were given elsewhere, in a log say."""

    def observe(self, state: Any, slate: Tensor, signals: Tensor) -> Any:
        """The state after the answers (B, K, S) to slates (B, K); certain, no draw in it."""


@dataclass(frozen=True)
class TeacherForced:
    """What a simulator expected of each logged slate, knowing the logged answers before it.

    Args:
        mean: float32 (B, T, K, S) where given.
        leave: float32 (B, T), or None where the simulator does not say.
        wins: float64 (B,) how often a consumed item was preferred to one drawn by popularity, or None.
        pairs: float64 (B,) of how many such pairs.
    """

    mean: Floats
    leave: Floats | None
    wins: Array | None = None
    pairs: Array | None = None


@dataclass(frozen=True)
class Simulated:
    """A simulator's own answers to the logged slates.

    Args:
        answers: float32 (B, T, K, S).
        given: bool (B, T, K, S).
        alive: bool (B, T): the slate was shown, the user had not left the session before.
        left: bool (B, T): the user left the session with this slate.
        days_away: float32 (B, T) what the simulator said on leaving, NaN elsewhere.
    """

    answers: Floats
    given: Bools
    alive: Bools
    left: Bools
    days_away: Floats


@torch.no_grad()
def teacher_forced(
    world: World, simulator: UserSimulator, lanes: LoggedLanes, popularity: Floats, seed: int
) -> TeacherForced | None:
    """Teacher forcing: every lane starts cold, and its state is advanced along the log.

    A simulator advances by `observe`, or by inferring its state from the past anew at every step. None where it can do
    neither, or does not say what it expects.
    """
    device, empty = simulator.device, len(world.catalogue)
    past, state, profile = at_first(world, simulator, lanes, seed)
    means, leaves = [], []
    wins, pairs = np.zeros(len(lanes.users)), np.zeros(len(lanes.users))
    rng = np.random.default_rng(seed)
    chance = popularity / max(popularity.sum(), 1) if popularity.sum() else None
    begins, absence = lanes.begins, lanes.absence
    for step in range(lanes.held.shape[1]):
        draw = draw_of(lanes, seed, step, device)
        past, state = returned(simulator, past, state, begins[:, step], absence[:, step], draw)
        slate = lanes.shown(step, device)
        expected = simulator.expected(state, past, slate)
        if expected is None:
            return None
        means.append(expected.mean.cpu().numpy())
        leaves.append(None if expected.leave is None else expected.leave.cpu().numpy())
        if not lanes.exposures:
            drawn = rng.choice(len(popularity), size=(len(lanes.users), AGAINST), p=chance)
            won, held = _preferred(simulator, state, past, slate, torch.from_numpy(drawn).to(device))
            wins, pairs = wins + won * lanes.held[:, step], pairs + held * lanes.held[:, step]
        signals = torch.from_numpy(lanes.answers[:, step]).to(device)
        past = remember(past, slate, torch.where(signals[..., 0] > 0.5, slate, empty), signals, empty)
        if isinstance(simulator, Observing):
            state = simulator.observe(state, slate, signals)
        else:
            try:
                state = simulator.infer(past, profile)
            except NotImplementedError:
                return None
    known = [x for x in leaves if x is not None]
    leave = np.stack(known, axis=1) if len(known) == len(leaves) else None
    paired = (None, None) if lanes.exposures else (wins, pairs)
    return TeacherForced(np.stack(means, axis=1), leave, *paired)


@torch.no_grad()
def simulate(world: World, simulator: UserSimulator, lanes: LoggedLanes, seed: int) -> Simulated:
    """Open loop: every lane starts cold and is shown its logged slates; the users answer and leave by themselves.

    Who leaves is shown nothing more until the log's next session. After a slate of which the
    log does not know whether the user left, nobody leaves.
    """
    device, empty = simulator.device, len(world.catalogue)
    past, state, _ = at_first(world, simulator, lanes, seed)
    begins, absence = lanes.begins, lanes.absence
    present = np.ones(len(lanes.users), dtype=bool)
    found: dict[str, list[Any]] = {"answers": [], "given": [], "alive": [], "left": [], "days_away": []}
    for step in range(lanes.held.shape[1]):
        draw = draw_of(lanes, seed, step, device)
        past, state = returned(simulator, past, state, begins[:, step], absence[:, step], draw)
        present = present | begins[:, step]
        alive = present & lanes.held[:, step]
        slate = lanes.shown(step, device)
        after, response = simulator.respond(state, past, slate, draw)
        there = torch.from_numpy(alive).to(device)
        state = state.where(there, after)
        consumed = (response.signals[..., 0] > 0.5) & response.given[..., 0]
        items = torch.where(consumed, slate, empty)
        past = past.where(there, remember(past, slate, items, response.signals, empty))
        left = response.left.cpu().numpy() & alive & (lanes.left[:, step] >= 0)
        present = present & ~left
        days = np.full(len(left), np.nan, dtype=np.float32)
        if response.days_away is not None:
            days = np.where(left, response.days_away.cpu().numpy(), days)
        given = response.given.cpu().numpy() & alive[:, None, None]
        found["answers"].append(np.where(given, response.signals.cpu().numpy(), np.float32(0)))
        for name, value in (("given", given), ("alive", alive), ("left", left), ("days_away", days)):
            found[name].append(value)
    return Simulated(**{name: np.stack(values, axis=1) for name, values in found.items()})


def at_first(world: World, simulator: UserSimulator, lanes: LoggedLanes, seed: int) -> tuple[Past, Any, Tensor]:
    """Users of whom nothing was seen yet, as the core starts them cold, or no more than `lanes.before`: past, state
    and profile."""
    device, n = simulator.device, len(world.catalogue)
    batch, table = len(lanes.users), world.users
    k, signals = lanes.items.shape[2], len(world.signals)
    history, shown = table.history.shape[1], table.shown.shape[1]
    rows = torch.from_numpy(lanes.users).to(device)
    past = Past(
        history=torch.full((batch, history), n, device=device),
        feedback=torch.zeros(batch, history, signals, device=device),
        shown=torch.full((batch, shown, k), n, device=device),
        answers=torch.zeros(batch, shown, k, signals, device=device),
        step=torch.zeros_like(rows),
        days_away=torch.zeros(batch, device=device),
        seen=None if world.consumes_twice else LoggedItems.nothing(batch, n).to(device).seen(lanes.items[:1].size),
    )
    past = past if lanes.before is None else lanes.before.to(device)
    profile = table.profile[lanes.users].to(device)
    try:
        return past, simulator.infer(past, profile), profile
    except NotImplementedError:
        return past, simulator.arrive(rows, draw_of(lanes, seed, -1, device)), profile


def returned(
    simulator: UserSimulator, past: Past, state: Any, begins: Bools, absence: Floats, draw: Draw
) -> tuple[Past, Any]:
    """Bring back those whose next session begins."""
    if not begins.any():
        return past, state
    back, days = torch.from_numpy(begins).to(past.step.device), torch.from_numpy(absence).to(past.step.device)
    past = replace(past, days_away=torch.where(back, days, past.days_away))
    return past, state.where(back, simulator.resume(state, days, draw))


def _preferred(simulator: UserSimulator, state: Any, past: Past, slate: Tensor, drawn: Tensor) -> tuple[Array, Array]:
    """How often (B,) the consumed item is wanted more than drawn ones (B, C) that are new, and of how many."""
    utility = simulator.utility(state, past, torch.cat([slate, drawn], dim=1))
    if utility is None:
        return np.zeros(len(slate)), np.zeros(len(slate))
    counts = drawn != slate
    if past.seen is not None:
        counts = counts & ~past.seen.contains(drawn)
    mine, others = utility[:, :1], utility[:, 1:]
    won = (mine > others).double() + 0.5 * (mine == others).double()
    return (won * counts).sum(1).cpu().numpy(), counts.sum(1).double().cpu().numpy()


def draw_of(lanes: LoggedLanes, seed: int, step: int, device: torch.device) -> Draw:
    """The luck of one step."""
    users = torch.from_numpy(lanes.users).to(device)
    return Draw.at(seed, users, torch.full_like(users, _EPISODE), torch.full_like(users, step))
