"""Simulated days: some users come, a policy acts with a little exploration, and what they do becomes a log."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.agents.acting import picked_by
from recloop.agents.policy import Policy
from recloop.agents.slates import action_mask, explored_places
from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.recording import record
from recloop.envs.simulation.rollout import LOGGING_KEYS, Picked, RolloutStep, rollout
from recloop.envs.users.drifting import DriftingUsers
from recloop.envs.world.world import World
from recloop.experiments.comparison.intervals import Floats, Ints

_DAY_SECONDS = 86_400.0
_POLICY_STREAM = 0x636F6E74
"""Sets a policy's own draws apart from the users' luck."""


@dataclass(frozen=True)
class Visits:
    """What came of a day, a visit a user, B of them.

    Args:
        users: int64 (B,) rows of the users table, rising.
        earned: float64 (B,) rewards of each visit.
        best: float64 (B,) rewards of the same users, with the same luck, under who knows them; NaN where nobody does.
        log: what was shown and answered; None where it was not recorded.
    """

    users: Ints
    earned: Floats
    best: Floats
    log: LoggedBehavior | None = None


@dataclass(frozen=True)
class Days:
    """The same visitors, with the same luck, for every policy that acts on a day.

    Args:
        users: on any day.
        visitors: how many come a day, each once; everybody where fewer are there.
        slates: of a visit at most.
        epsilon: chance that a place explores.
        seed: of who comes, and of their luck.
    """

    users: DriftingUsers
    visitors: int
    slates: int
    epsilon: float
    seed: int

    def visiting(self, world: World, day: int) -> Tensor:
        """Who comes, int64 (B,) rising."""
        there = self.users.at_day(day).present(world)
        if len(there) < 2:
            raise RecloopError(
                f"{len(there)} of {len(world.users)} users are there on day {day}; an interval needs 2, lower new_users"
            )
        order = torch.randperm(len(there), generator=torch.Generator().manual_seed(self.seed * 100_003 + day))
        return there[order[: self.visitors]].sort().values

    def lived(self, world: World, policy: Policy, day: int, oracle: Policy | None) -> Visits:
        """A day under a policy that explores, recorded; `world` knows what happened before."""
        rows = self.visiting(world, day)
        core = self._core(world, rows, day)
        core.reset(users=rows)
        earned = torch.zeros(len(rows), dtype=torch.float64)

        def watch(step: RolloutStep) -> None:
            earned.add_(step.transition.reward.double() * step.alive)

        log = record(core, partial(_explored, policy, self.epsilon, core.slate_size), f"day {day}", watch)
        lived = log.interactions.copy()
        lived[Columns.time] += day * _DAY_SECONDS
        lived[Columns.session] = day
        lived[Columns.slate] += day * self.slates
        best = np.full(len(rows), np.nan) if oracle is None else self._earned(core, rows, oracle)
        return Visits(rows.numpy(), earned.numpy(), best, replace(log, interactions=lived))

    def met(self, world: World, policy: Policy, day: int) -> Floats:
        """float64 (B,) what a policy earns, without exploring and unrecorded, from the visitors of a day."""
        rows = self.visiting(world, day)
        return self._earned(self._core(world, rows, day), rows, policy)

    def _core(self, world: World, rows: Tensor, day: int) -> Core:
        users = self.users.at_day(day)
        return Core(
            world,
            users,
            batch=len(rows),
            users=rows,
            seed=self.seed * 100_003 + day,
            max_steps=self.slates,
            sessions=1,
            rules=users.rules(world),
            keys=LOGGING_KEYS,
        )

    def _earned(self, core: Core, rows: Tensor, policy: Policy) -> Floats:
        core.reset(users=rows)
        earned = torch.zeros(len(rows), dtype=torch.float64)
        for step in rollout(core, partial(picked_by, policy, seed=core.seed ^ _POLICY_STREAM)):
            earned += step.transition.reward.double() * step.alive
        return earned.numpy()


@torch.no_grad()
def _explored(policy: Policy, epsilon: float, k: int, seen: Observation, carry: Any, draw: Draw) -> Picked:
    """What a policy shows, some places given to any item that may be shown."""
    slate, carry = policy.act(seen, carry, k, draw)
    mask = action_mask(seen, seen["action_mask"].shape[1])
    names: npt.NDArray[np.str_] = np.full(len(slate), policy.name)
    return Picked(explored_places(slate, mask, epsilon, draw), policy=names, carry=carry)
