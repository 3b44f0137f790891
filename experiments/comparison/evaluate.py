"""One policy in front of one kind of users: every policy meets the same lanes, with the same luck.

from recloop.experiments.comparison.evaluate import evaluate
rollout(policy, world, "judge", episodes=500, seed=0).value.mean()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.agents.acting import picked_by
from recloop.agents.policy import Policy
from recloop.agents.rank_metrics import gini_of
from recloop.encoders.base.errors import RecloopError
from recloop.envs.evidence.support.bracket import BracketRules, BracketTally
from recloop.envs.evidence.support.model import SupportModel
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.reward import slate_diversity
from recloop.envs.interaction.reward_terms import expected_by_place
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import RolloutStep, rollout
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fitted.ensemble import EnsembleState, EnsembleUsers
from recloop.envs.users.fitted.own_member import OwnMemberState
from recloop.envs.world.world import World

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

EVALUATION_KEYS = (*DEFAULT_KEYS, "action_mask")
"""What a policy sees in a comparison; the users' wishes too, in a world with an instruction encoder."""

_POLICY_STREAM = 0x706F6C696379
"""Sets a policy's own draws apart from the users' luck: nobody may look at the dice before choosing."""


@dataclass(frozen=True)
class Rollout:
    """What one policy earned: one episode a lane, B lanes.

    Args:
        users: int64 (B,) row of each lane's user.
        value: float64 (B,) sum of rewards of the episode.
        length: int64 (B,) slates.
        left: bool (B,) the user left, rather than the time limit being reached.
        signals: float64 (B, S) sum of each signal over the episode.
        invalid: int64 (B,) places left empty because an item was repeated or forbidden.
        popularity: float64 (B,) mean popularity of what was shown, in multiples of the average item's.
        diversity: float64 (B,) mean diversity of the slates, in [0, 2].
        shown: int64 (N,) how often each item was shown, over all lanes.
        mended: float64 (B,) share of the places that got another item because the policy's broke a rule; None without
            rules.
        outside: float64 (B,) share of the slates that lie outside the log's support; this and the next three are None
            in a world without a support model.
        expected: float64 (B, M) what each member of an ensemble expected of the slates; None without one.
        pessimistic, optimistic: float64 (B,) what the episode was worth at worst and at best, see `BracketTally`.
        member: int64 (B,) which member of an ensemble answered in each lane; None where the users are no ensemble.
        trace_history: int64 (H,) what the first lane's user had consumed before; N is empty.
        trace_slate: int64 (T, K) what the first lane was shown.
        trace_signals, trace_given: (T, K, S) how it answered.
        trace_state: float32 (T, d) its user's vector as each slate was chosen.
    """

    users: Ints
    value: Floats
    length: Ints
    left: Bools
    signals: Floats
    invalid: Ints
    popularity: Floats
    diversity: Floats
    shown: Ints
    trace_history: Ints
    trace_slate: Ints
    trace_signals: Floats
    trace_given: Bools
    trace_state: npt.NDArray[np.float32]
    mended: Floats | None = None
    outside: Floats | None = None
    expected: Floats | None = None
    pessimistic: Floats | None = None
    optimistic: Floats | None = None
    member: Ints | None = None

    @property
    def coverage(self) -> float:
        """Share of the catalogue that was shown at least once."""
        return float((self.shown > 0).mean())

    @property
    def gini(self) -> float:
        """Gini index of how often each item was shown: 0 where all alike, near 1 where few items are all there is."""
        return gini_of(torch.from_numpy(self.shown))

    def tail(self, popularity: Tensor) -> float:
        """Share of what was shown that lies outside the fifth of the catalogue that the log's users consumed most.

        Args:
            popularity: how often each item was consumed, (N,).
        """
        head = popularity.argsort(descending=True, stable=True)[: -(-len(popularity) // 5)].cpu().numpy()
        return 1.0 - float(self.shown[head].sum()) / max(int(self.shown.sum()), 1)

    def tensors(self) -> dict[str, Tensor]:
        """For safetensors; `Rollout.of` undoes it."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: torch.from_numpy(np.ascontiguousarray(value)) for n, value in held.items() if value is not None}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Rollout":
        """Undo `tensors`."""
        return cls(**{name: tensor.numpy() for name, tensor in tensors.items()})


class Evaluator:
    """The lanes that every policy meets in one kind of users.

    Lane i hosts the same user for every policy and every simulator; lanes go round the users, so that each is met
    equally often. The core starts finished lanes anew; only the first episode of a lane counts.

    Args:
        world: the world to act in.
        simulator: name of one of its simulators, or one of your own.
        episodes: B, one a lane, at least 2.
        users: a part of the world's users or rows of the users table.
        seed: of the users' luck.
        slate_size: K; default the world's.
        start: `history`: warm from the log; `cold`: nothing has happened yet.
        device: any torch device.
        rules: of the brackets, where the world has a support model.

    Raises:
        RecloopError: for fewer than two episodes or users.
    """

    def __init__(
        self,
        world: World,
        simulator: str | UserSimulator,
        *,
        episodes: int,
        users: str | Sequence[int] = "evaluate",
        seed: int = 0,
        slate_size: int | None = None,
        start: Literal["history", "cold"] = "history",
        device: torch.device | str = "cpu",
        rules: BracketRules | None = None,
    ) -> None:
        if episodes < 2:
            raise RecloopError(f"episodes={episodes}; an interval needs at least 2")
        self.world = world
        self.seed = seed
        self.core = Core(
            world,
            simulator,
            batch=episodes,
            slate_size=slate_size,
            users=users,
            seed=seed,
            start=start,
            keys=(*EVALUATION_KEYS, *(("instruction",) if world.instruction is not None else ())),
            device=device,
            spread=world.support is not None,
        )
        pool = world.users.rows(users) if isinstance(users, str) else torch.as_tensor(users)
        if len(pool) < 2:
            raise RecloopError(
                f"{len(pool)} user(s) to evaluate on in '{users}' of world '{world.name}'; an interval over "
                "users needs at least 2, build the world from more users"
            )
        zeros = torch.zeros_like(pool)
        order = torch.argsort(Draw.at(seed, pool, zeros, zeros).bits("evaluation order"), stable=True)
        self.users = pool[order][torch.arange(episodes) % len(pool)]  # (B,)
        counts = world.catalogue.popularity.to(torch.float64)
        relative = counts / counts.mean().clamp_min(1e-12)
        self._popularity = torch.cat([relative, relative.new_zeros(1)]).to(self.core.device)  # (N+1,)
        self._rules = rules or BracketRules()
        self._support = None if world.support is None else world.support.to(self.core.device)

    @torch.no_grad()
    def run(self, policy: Policy, policy_seed: int = 0) -> Rollout:
        """Let a policy act in every lane until its first episode ends.

        Args:
            policy: acts on `EVALUATION_KEYS`, or on the users' state where it is privileged.
            policy_seed: of the policy's own draws.
        """
        core = self.core
        core.reset(seed=self.seed, users=self.users)
        tally = _Tally(core, self._popularity)
        ignorance = None if self._support is None else Ignorance(core, self._support, self._rules)
        act = partial(picked_by, policy, seed=(self.seed * 1_000_003 + policy_seed) ^ _POLICY_STREAM)
        for step in rollout(core, act, learn=policy.learning):
            if ignorance is not None:
                ignorance.add(step)
            tally.add(step.transition, step.alive)
        found = tally.result()
        if ignorance is None:
            return found
        return replace(
            found,
            outside=ignorance.outside / np.maximum(found.length, 1),
            expected=ignorance.expected,
            pessimistic=ignorance.pessimistic,
            optimistic=ignorance.optimistic,
        )


def evaluate(
    policy: Policy,
    world: World,
    simulator: str | UserSimulator,
    *,
    episodes: int = 500,
    users: str | Sequence[int] = "evaluate",
    seed: int = 0,
    policy_seed: int = 0,
    slate_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Rollout:
    """Episodes under one policy; see `Evaluator` for the arguments."""
    arena = Evaluator(world, simulator, episodes=episodes, users=users, seed=seed, slate_size=slate_size, device=device)
    return arena.run(policy, policy_seed)


class _Tally:
    """Adds up the first episode of every lane."""

    def __init__(self, core: Core, popularity: Tensor) -> None:
        self.core = core
        self.popularity_table = popularity
        b, device = core.batch, core.device
        zeros = torch.zeros(b, dtype=torch.float64, device=device)
        self.users = core.users.clone()
        ensemble = isinstance(core.state, (EnsembleState, OwnMemberState))
        self.member = core.state.member.clone() if ensemble else None
        self.value, self.popularity, self.diversity = zeros, zeros, zeros
        self.length = torch.zeros(b, dtype=torch.int64, device=device)
        self.invalid = torch.zeros_like(self.length)
        self.mended = torch.zeros_like(self.length)
        self.left = torch.zeros(b, dtype=torch.bool, device=device)
        self.signals = zeros.new_zeros(b, len(core.world.signals))
        self.shown = self.length.new_zeros(core.empty + 1)
        self.history = core.past.history[0].clone()
        self.state = core.vector[0].clone()
        self.trace: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, step: Transition, alive: Tensor) -> None:
        response = step.response
        held = step.slate < self.core.empty  # (B, K)
        popularity = self.popularity_table[step.slate].sum(1) / held.sum(1).clamp_min(1)
        diversity = slate_diversity(step.slate, self.core.encoder.item_vectors)
        self.value = self.value + step.reward.double() * alive
        self.popularity = self.popularity + popularity * alive
        self.diversity = self.diversity + diversity.double() * alive
        self.signals = self.signals + (response.signals * response.given).sum(1).double() * alive[:, None]
        self.length = self.length + alive
        self.invalid = self.invalid + step.invalid * alive
        if step.mended is not None:
            self.mended = self.mended + step.mended * alive
        self.left = self.left | (step.terminated & alive)
        self.shown += torch.bincount(step.slate[alive].flatten(), minlength=len(self.shown))
        if bool(alive[0]):
            self.trace.append((step.slate[0], response.signals[0], response.given[0], self.state))
        self.state = self.core.vector[0].clone()

    def result(self) -> Rollout:
        length = self.length.clamp_min(1).double()
        slates, signals, given, state = (torch.stack(parts) for parts in zip(*self.trace, strict=True))
        host = {
            "users": self.users,
            "value": self.value,
            "length": self.length,
            "left": self.left,
            "signals": self.signals,
            "invalid": self.invalid,
            "popularity": self.popularity / length,
            "diversity": self.diversity / length,
            "shown": self.shown[:-1],
            "trace_history": self.history,
            "trace_slate": slates,
            "trace_signals": signals.double(),
            "trace_given": given,
            "trace_state": state.float(),
        }
        if self.member is not None:
            host["member"] = self.member
        if self.core.ruled is not None:
            host["mended"] = self.mended / (length * self.core.slate_size)
        return Rollout.of({name: tensor.cpu() for name, tensor in host.items()})


class Ignorance:
    """Watches the first episode of every lane of a core.

    Args:
        core: reset.
        support: on the core's device.
        rules: of the brackets.
    """

    def __init__(self, core: Core, support: SupportModel, rules: BracketRules) -> None:
        self.core, self.support = core, support
        self.tally = BracketTally(support, rules, core.batch, core.max_steps, core.device)
        self.asks = True
        self.members: Tensor | None = None
        self.nowhere = torch.zeros(core.batch, device=core.device)

    def add(self, one: RolloutStep) -> None:
        """One step of the lanes whose first episode was running before it."""
        past, step, alive = one.past, one.transition, one.alive
        rows = alive.nonzero()[:, 0]
        distance = self.nowhere.clone()
        distance[rows] = self.support.distance(past.rows(rows), step.slate[rows])
        self.tally.add(distance, step.reward, step.terminated, alive, one.number)
        expected = self._expected(past, one.state, step.slate) if self.asks else None
        if expected is not None:
            earned = expected.double() * alive.unsqueeze(1)
            self.members = earned if self.members is None else self.members + earned

    def _expected(self, past: Past, state: Any, slate: Tensor) -> Tensor | None:
        """What each member of an ensemble expects the slates to earn, (B, M); None where nobody disagrees.

        Users that only tell a spread count as two members, one above and one below the mean in every place alike.
        """
        simulator = self.core.simulator
        if isinstance(simulator, EnsembleUsers):
            found = [m.expected(s, past, slate) for m, s in zip(simulator.members, state.states, strict=True)]
            earned = [self._earned(slate, one.mean) for one in found]
            return torch.stack(earned, dim=1)
        one = simulator.expected(state, past, slate)
        if one is None or one.spread is None:
            self.asks = False
            return None
        ends = (one.mean - one.spread, one.mean + one.spread)
        return torch.stack([self._earned(slate, end) for end in ends], dim=1)

    def _earned(self, slate: Tensor, mean: Tensor) -> Tensor:
        """What slates of expected answers (B, K, S) earn by them, (B,)."""
        core, world = self.core, self.core.world
        vectors = core.encoder.item_vectors
        return expected_by_place(core.reward, slate, mean, world.signals, core.columns, vectors).sum(1)

    @property
    def outside(self) -> Floats:
        """Steps outside the support, (B,)."""
        return _host(self.tally.outside)

    @property
    def expected(self) -> Floats | None:
        """What each member expected of the episodes, (B, M); None where nobody disagrees."""
        return None if self.members is None else _host(self.members)

    @property
    def pessimistic(self) -> Floats:
        """What the episodes were worth at worst, (B,)."""
        return _host(self.tally.low)

    @property
    def optimistic(self) -> Floats:
        """What the episodes were worth at best, (B,)."""
        return _host(self.tally.high)


def _host(tensor: Tensor) -> Floats:
    return np.asarray(tensor.cpu().numpy(), dtype=np.float64)
