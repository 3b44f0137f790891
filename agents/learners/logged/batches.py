"""Logged steps as batches to learn from: what was observed, what was shown, what it brought. Nothing is simulated."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloop.agents.learners.returns import PlaceRewards, returns_after
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.logs.sequences import Floats, Ints, Sequences
from recloop.envs.logs.walk import ConsumedBefore, every_step, steps_in_session
from recloop.envs.simulation.actions import Retriever
from recloop.envs.trajectories.episodes import Arrays, Trajectories
from recloop.envs.trajectories.sources import days_before, logged_rewards, logged_states
from recloop.envs.world.world import World

_REWARDED = 65_536
"""Steps whose reward is worked out at once."""


@dataclass(frozen=True)
class LoggedBatch:
    """M logged steps. K is as wide as the log's slates, 1 in a log without exposures.

    Args:
        rows: int64 (M,) which steps they are.
        observation: as the core would have made it at that moment, with `candidates` (M, C).
        items: int64 (M, K) what was shown; N at empty places.
        positions: int64 (M, K) of the logged items among the candidates; 0 where not `counted`.
        counted: bool (M, K) places that hold an item which is among the candidates.
        held: bool (M, K) places that hold an item.
        log_propensity: float32 (M, K) of the logging policy; NaN where the log does not say.
        worth: float32 (M, K) what each place earned by its own signals, what belongs to the slate as a whole, and the
            discounted rewards after it.
        own: float32 (M, K) what each place earned by its own signals.
        reward: float32 (M,) of the slate.
        goes_on: bool (M,) the next step, `rows + 1`, is of the same episode.
    """

    rows: Tensor
    observation: Observation
    items: Tensor
    positions: Tensor
    counted: Tensor
    held: Tensor
    log_propensity: Tensor
    worth: Tensor
    own: Tensor
    reward: Tensor
    goes_on: Tensor


class StepBatches(ABC):
    """Steps of episodes, Q in order, on a device.

    Args:
        world: where they were made.
        retriever: makes the candidates, on the same device.
        device: any torch device.
        adds_logged: whether the logged items are candidates in any case: C grows by K.

    Attributes:
        rows: int64 (M,) the steps to learn from.
        number: int64 (Q,) of each step in its episode.
        mean, spread: of `worth` over the places that hold an item; the standard deviation is at least 1e-6.
    """

    rows: Tensor

    def __init__(self, world: World, retriever: Retriever, device: torch.device | str, adds_logged: bool) -> None:
        self.retriever, self.spec, self.device = retriever, world.spec(), torch.device(device)
        self.adds_logged = adds_logged
        ruled = RuledSlates.of(world.rules, world.catalogue, world.signals, world.slate_size, self.device)
        self._allowed = None if ruled is None else ruled.allowed

    @abstractmethod
    def _seen(self, rows: Tensor) -> Observation:
        """What was observed before the steps (M,), without candidates; `action_mask` (M, N) where items are masked."""

    def batch(self, rows: Tensor) -> LoggedBatch:
        """The steps `rows` (M,)."""
        items, observation = self._items[rows], self._seen(rows)
        candidates = self.retriever.candidates(observation)
        held = items < self.spec.catalogue_size
        same = (items.unsqueeze(2) == candidates.unsqueeze(1)) & held.unsqueeze(2)  # (M, K, C)
        if self.adds_logged:
            more = items.masked_fill(same.any(2), self.spec.catalogue_size)
            candidates = torch.cat([candidates, more], dim=1)
            same = (items.unsqueeze(2) == candidates.unsqueeze(1)) & held.unsqueeze(2)
        observation["candidates"] = candidates
        return LoggedBatch(
            rows=rows,
            observation=observation,
            items=items,
            positions=same.to(torch.int8).argmax(2),
            counted=same.any(2),
            held=held,
            log_propensity=self._log_propensity[rows],
            worth=self._worth[rows],
            own=self._own[rows],
            reward=self._reward[rows],
            goes_on=self._goes_on[rows],
        )

    def after(self, batch: LoggedBatch) -> LoggedBatch:
        """The steps after those of a batch; the same step again where the episode ends."""
        return self.batch(batch.rows + batch.goes_on)

    @property
    def last(self) -> Tensor:
        """int64 (Q,) the row of the last step of each step's episode."""
        ends = (~self._goes_on).nonzero()[:, 0]
        return ends[torch.searchsorted(ends, torch.arange(len(self._reward), device=self.device))]

    def returns(self) -> Tensor:
        """Sum of the rewards (Q,) of each step and those after it in its episode, up to the world's time limit."""
        until = torch.cat([torch.zeros(1, device=self.device), self._reward.double().cumsum(0)])
        rows = torch.arange(len(self._reward), device=self.device)
        return (until[self.last.minimum(rows + self.spec.max_steps - 1) + 1] - until[rows]).float()

    def _keep(
        self, items: Ints, own: Arrays, reward: Arrays, number: Ints, propensity: Floats, rows: Ints, gamma: float
    ) -> None:
        """Take in what is known of every step: (Q, K), (Q, K), (Q,), (Q,), (Q, K); those to learn from; a discount."""
        after = returns_after(reward, number, gamma)
        worth = own + (reward - own.sum(1) + after)[:, None]
        held = worth[items < self.spec.catalogue_size]
        self.mean, self.spread = float(held.mean()), max(float(held.std()), 1e-6)
        self.rows, self.number = self._on(rows), self._on(number)
        self._items, self._log_propensity = self._on(items), self._on(_logs(propensity))
        self._own, self._reward = self._on(own.astype(np.float32)), self._on(reward.astype(np.float32))
        self._worth = self._on(worth.astype(np.float32))
        self._goes_on = self._on(np.append(number[1:] == number[:-1] + 1, False))

    def _on(self, values: Arrays) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


class LoggedBatches(StepBatches):
    """Every logged step of a world's train users.

    An episode is a session: a log does not say what would have followed another answer to it. Where the log has no
    exposures, every consumption is a slate of one, all of a user's are one episode, and nothing was shown before, as
    where an episode starts in such a world. The state is that of `StateEncoder.trajectory`: without what a language
    model reads in whole histories. Steps that profiles tell of (`Sequences.profile_prefix`) are context only.

    Args:
        world: whose log; rewards are the world's own.
        retriever, device, adds_logged: see `StepBatches`.
        gamma: discount a slate.

    Raises:
        PolicyError: a log without a step to learn from.
    """

    def __init__(
        self,
        world: World,
        retriever: Retriever,
        gamma: float,
        device: torch.device | str,
        adds_logged: bool = False,
    ) -> None:
        super().__init__(world, retriever, device, adds_logged)
        log, users = world.sequences, world.users.rows("train").numpy()
        steps = every_step(log, users)
        owner, place, before = steps.users, steps.step, steps.consumed_before
        usable = np.flatnonzero(place >= log.first_scored[owner])
        if not len(usable):
            raise PolicyError(f"no train user of world '{world.name}' has a logged step; there is nothing to learn")
        items, answers = steps.items, steps.answers
        number = place if log.slates is None else steps_in_session(log.slates)[steps.rows]
        own, reward = _own_rewards(world, items, answers, steps.given), logged_rewards(world, steps)
        self._keep(items, own, reward, number, _propensities(log, steps.rows, items.shape), usable, gamma)
        self._answers = self._on(answers)
        begins = np.arange(len(place)) - place  # of each step's user, among all steps
        self._owner, self._begins, self._before = self._on(owner), self._on(begins), self._on(before)
        progress = np.zeros(len(place)) if log.slates is None else np.minimum(number / self.spec.max_steps, 1)
        self._context = self._on(np.stack([progress, np.log1p(days_before(steps, number))], axis=1).astype(np.float32))
        self._exposed = log.slates is not None
        self._profile = world.users.profile.to(device)
        self._states, first = logged_states(world, users)
        self._states = self._states.to(device)
        self._state_row = self._on(np.repeat(first, np.diff(log.step_offsets)[users]) + before)
        self._catalogue = torch.arange(self.spec.catalogue_size, device=self.device)
        self._consumed = None
        if not world.consumes_twice:
            self._consumed = ConsumedBefore(log, users)
            self._consumed.keys = self._consumed.keys.to(device)
            self._consumed.place = self._consumed.place.to(device)

    def _seen(self, rows: Tensor) -> Observation:
        owner = self._owner[rows]
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
        return observation

    def _lately(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The last L slates before each step and the answers to them: (M, L, K), (M, L, K, S)."""
        back = rows.unsqueeze(1) - torch.arange(self.spec.shown_length, 0, -1, device=self.device)
        there = back >= self._begins[rows].unsqueeze(1) if self._exposed else torch.zeros_like(back, dtype=torch.bool)
        back = back.clamp_min(0)
        shown = self._items[back].masked_fill(~there.unsqueeze(2), self.spec.catalogue_size)
        return shown, self._answers[back] * there[..., None, None]


class RecordedBatches(StepBatches):
    """The steps of trajectories, as they were recorded.

    Items are masked by the recorded `action_mask`; without it, in a world that consumes nothing twice, by `history`,
    which holds the newest items only.

    Args:
        found: of this world; with the default keys.
        world, retriever, device, adds_logged: see `StepBatches`.
        gamma: discount a slate.

    Raises:
        PolicyError: trajectories of another world or reward, or without the keys that are read.
    """

    def __init__(
        self,
        found: Trajectories,
        world: World,
        retriever: Retriever,
        gamma: float,
        device: torch.device | str,
        adds_logged: bool = False,
    ) -> None:
        super().__init__(world, retriever, device, adds_logged)
        found.check_world(world)
        keys = ["state", "shown", "answers", "context", *(["profile"] if self.spec.profile_dim else [])]
        if not world.consumes_twice:
            keys.append("action_mask" if "action_mask" in found.observations else "history")
        missing = [key for key in keys if key not in found.observations]
        if missing:
            raise PolicyError(
                f"the trajectories hold no observation {', '.join(missing)}, which learners read; record them with "
                "--observation dict"
            )
        rows = np.arange(len(found.rewards))
        own = _own_rewards(world, found.slates, found.answers, found.given)
        number = rows - found.offsets[:-1][found.episode]
        self._keep(found.slates, own, found.rewards.astype(np.float64), number, found.propensity, rows, gamma)
        self._observations = {key: self._on(found.observations[key]) for key in keys}
        self._moment = self._on(rows + found.episode)

    def _seen(self, rows: Tensor) -> Observation:
        seen = {key: value[self._moment[rows]] for key, value in self._observations.items()}
        free = seen["action_mask"] != 0 if "action_mask" in seen else None
        if "history" in seen:
            free = torch.ones(len(rows), self.spec.catalogue_size + 1, dtype=torch.bool, device=self.device)
            free = free.scatter(1, seen.pop("history"), False)[:, :-1]
        if self._allowed is not None:
            free = self._allowed.expand(len(rows), -1) if free is None else free & self._allowed
        return seen if free is None else {**seen, "action_mask": free}


def _propensities(log: Sequences, rows: Ints, shape: tuple[int, ...]) -> Floats:
    if log.slates is None or log.slates.propensity is None:
        return np.full(shape, np.nan, dtype=np.float32)
    return log.slates.propensity[rows]


def _logs(propensity: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        known = np.log(propensity)
    return np.where(np.isfinite(known), known, np.nan).astype(np.float32)


def _own_rewards(world: World, items: Ints, answers: Floats, given: Arrays) -> Arrays:
    """What the world's reward gives each place by its own signals, float64 (Q, K)."""
    by_place, own = PlaceRewards(world), [np.zeros((0, items.shape[1]))]
    for start in range(0, len(items), _REWARDED):
        some = slice(start, start + _REWARDED)
        slate, signals, there = (torch.from_numpy(each[some]) for each in (items, answers, given))
        nobody = torch.zeros(len(slate), dtype=torch.bool)
        own.append(by_place(slate, Response(signals, there, nobody)).double().numpy())
    return np.concatenate(own)
