"""A world's log as batches to learn from: what was observed, what was shown, what it brought."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloop.agents.learners.returns import PlaceRewards, returns_after
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import Outcome
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.logs.sequences import Floats, Ints, Sequences
from recloop.envs.logs.walk import ConsumedBefore, LoggedSteps, every_step, steps_in_session
from recloop.envs.simulation.actions import Retriever
from recloop.envs.world.world import World

_PLACES = 20_000
"""Consumptions encoded at once: users times the longest history among them."""
_REWARDED = 65_536
"""Steps whose reward is worked out at once."""


@dataclass(frozen=True)
class LoggedBatch:
    """M logged steps. K is as wide as the log's slates, 1 in a log without exposures.

    Args:
        observation: as the core would have made it at that moment, with `candidates` (M, C).
        positions: int64 (M, K) of the logged items among the candidates; 0 where not `counted`.
        counted: bool (M, K) places that hold an item which is among the candidates.
        held: bool (M, K) places that hold an item.
        log_propensity: float32 (M, K) of the logging policy; NaN where the log does not say.
        worth: float32 (M, K) what each place earned by its own signals, what belongs to the slate as a whole, and the
            discounted rewards after it.
    """

    observation: Observation
    positions: Tensor
    counted: Tensor
    held: Tensor
    log_propensity: Tensor
    worth: Tensor


class LoggedBatches:
    """Every logged step of a world's train users, on a device. Nothing is simulated.

    An episode is a session: a log does not say what would have followed another answer to it. Where the log has no
    exposures, every consumption is a slate of one, all of a user's are one episode, and nothing was shown before, as
    where an episode starts in such a world. The state is that of `StateEncoder.trajectory`: without what a language
    model reads in whole histories. Steps that profiles tell of (`Sequences.profile_prefix`) are context only.

    Args:
        world: whose log; rewards are the world's own.
        retriever: makes the candidates, on the same device.
        gamma: discount a slate.
        device: any torch device.

    Attributes:
        rows: int64 (M,) the steps to learn from.
        mean, spread: of `worth` over the places that hold an item; the standard deviation is at least 1e-6.

    Raises:
        PolicyError: a log without a step to learn from.
    """

    def __init__(self, world: World, retriever: Retriever, gamma: float, device: torch.device | str) -> None:
        self.retriever, self.spec, self.device = retriever, world.spec(), torch.device(device)
        log, users = world.sequences, world.users.rows("train").numpy()
        steps = every_step(log, users)
        owner, place, before = steps.users, steps.step, steps.consumed_before
        usable = np.flatnonzero(place >= log.first_scored[owner])
        if not len(usable):
            raise PolicyError(f"no train user of world '{world.name}' has a logged step; there is nothing to learn")
        items, answers = steps.items, steps.answers
        number = place if log.slates is None else steps_in_session(log.slates)[steps.rows]
        own, rest = _rewards(world, items, answers, steps.given, steps.left == 1)
        after = returns_after(own.sum(1) + rest, number, gamma)
        self.rows = torch.from_numpy(usable).to(device)
        self._items, self._answers = self._on(items), self._on(answers)
        self._log_propensity = self._on(_log_propensities(log, steps.rows, items.shape))
        worth = own + (rest + after)[:, None]
        held = worth[items < self.spec.catalogue_size]
        self.mean, self.spread = float(held.mean()), max(float(held.std()), 1e-6)
        self._worth = self._on(worth.astype(np.float32))
        begins = np.arange(len(place)) - place  # of each step's user, among all steps
        self._owner, self._begins, self._before = self._on(owner), self._on(begins), self._on(before)
        progress = np.zeros(len(place)) if log.slates is None else np.minimum(number / self.spec.max_steps, 1)
        self._context = self._on(np.stack([progress, np.log1p(_days_before(steps, number))], axis=1).astype(np.float32))
        self._exposed = log.slates is not None
        self._profile = world.users.profile.to(device)
        self._states, first = _states(world, users)
        self._states = self._states.to(device)
        self._state_row = self._on(np.repeat(first, np.diff(log.step_offsets)[users]) + before)
        self._catalogue = torch.arange(self.spec.catalogue_size, device=self.device)
        ruled = RuledSlates.of(world.rules, world.catalogue, world.signals, world.slate_size, self.device)
        self._allowed = None if ruled is None else ruled.allowed
        self._consumed = None
        if not world.consumes_twice:
            self._consumed = ConsumedBefore(log, users)
            self._consumed.keys = self._consumed.keys.to(device)
            self._consumed.place = self._consumed.place.to(device)

    def batch(self, rows: Tensor) -> LoggedBatch:
        """The steps `rows` (M,), some of `self.rows`."""
        owner, items = self._owner[rows], self._items[rows]
        shown, answers = self._lately(rows)
        observation = {
            "state": self._states[self._state_row[rows]],
            "shown": shown,
            "answers": answers,
            "context": self._context[rows],
        }
        if self.spec.profile_dim:
            observation["profile"] = self._profile[owner]
        if self._consumed is not None:
            seen = self._consumed(owner, self._catalogue, self._before[rows].unsqueeze(1))[:, 0]
            observation["action_mask"] = ~seen if self._allowed is None else ~seen & self._allowed
        elif self._allowed is not None:
            observation["action_mask"] = self._allowed.expand(len(rows), -1)
        candidates = self.retriever.candidates(observation)
        observation["candidates"] = candidates
        held = items < self.spec.catalogue_size
        same = (items.unsqueeze(2) == candidates.unsqueeze(1)) & held.unsqueeze(2)  # (M, K, C)
        return LoggedBatch(
            observation=observation,
            positions=same.to(torch.int8).argmax(2),
            counted=same.any(2),
            held=held,
            log_propensity=self._log_propensity[rows],
            worth=self._worth[rows],
        )

    def _lately(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The last L slates before each step and the answers to them: (M, L, K), (M, L, K, S)."""
        back = rows.unsqueeze(1) - torch.arange(self.spec.shown_length, 0, -1, device=self.device)
        there = back >= self._begins[rows].unsqueeze(1) if self._exposed else torch.zeros_like(back, dtype=torch.bool)
        back = back.clamp_min(0)
        shown = self._items[back].masked_fill(~there.unsqueeze(2), self.spec.catalogue_size)
        return shown, self._answers[back] * there[..., None, None]

    def _on(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def _days_before(steps: LoggedSteps, number: Ints) -> Floats:
    """Days before each step (Q,) that starts a later session; 0 elsewhere and where nobody knows."""
    days = np.zeros(len(number), dtype=np.float32)
    if steps.sequences.slates is not None:
        back = np.flatnonzero((number == 0) & (steps.step > 0))
        days[back] = np.nan_to_num(steps.days_away[back - 1]).clip(0)
    return days


def _log_propensities(log: Sequences, rows: Ints, shape: tuple[int, ...]) -> Floats:
    if log.slates is None or log.slates.propensity is None:
        return np.full(shape, np.nan, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        known = np.log(log.slates.propensity[rows])
    return np.where(np.isfinite(known), known, np.nan).astype(np.float32)


def _rewards(
    world: World, items: Ints, answers: Floats, given: np.ndarray, left: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the world's reward gives each place by its own signals (Q, K), and the rest of the slate's (Q,)."""
    vectors, by_place, columns = world.item_vectors.cpu(), PlaceRewards(world), world.catalogue.columns
    own, total = [], []
    for start in range(0, len(items), _REWARDED):
        some = slice(start, start + _REWARDED)
        slate = torch.from_numpy(items[some])
        response = Response(*(torch.from_numpy(a[some]) for a in (answers, given, left)))
        invalid = torch.zeros(len(slate), dtype=torch.int64)
        outcome = Outcome(slate, response, invalid, vectors, world.signals, columns=columns)
        own.append(by_place(slate, response).double().numpy())
        total.append(world.reward(outcome).double().numpy())
    return np.concatenate(own), np.concatenate(total) - np.concatenate(own).sum(1)


@torch.no_grad()
def _states(world: World, users: Ints) -> tuple[Tensor, Ints]:
    """The encoder's vector of each user before anything and after each consumption, one below the other, and the row
    where each user's begin."""
    encoder, log = world.state_encoder, world.sequences
    device, lengths = encoder.item_vectors.device, log.lengths[users]
    first = np.cumsum(lengths + 1) - (lengths + 1)
    table = torch.zeros(int((lengths + 1).sum()), encoder.dim)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        some = order[start : start + max(1, _PLACES // max(longest, 1))]
        start += len(some)
        profile = world.users.profile[torch.from_numpy(users[some])].to(device)
        table[torch.from_numpy(first[some])] = encoder.vector(encoder.blank(profile)).cpu()
        if not longest:
            continue
        history, feedback = (t.to(device) for t in log.last(users[some], longest))
        vectors = encoder.trajectory(profile, history, feedback)[0].cpu()
        count = torch.from_numpy(lengths[some])
        held = torch.arange(longest) < count.unsqueeze(1)
        rows = torch.from_numpy(first[some]).unsqueeze(1) + 1 + torch.arange(longest)
        table[rows[held]] = vectors[held]
    return table, first
