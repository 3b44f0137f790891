"""A language model plays users under several logging policies, within a budget: what it answered, as a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.encoders.base.errors import BudgetError, LanguageModelError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.recording import record
from recloop.envs.truth.logging_policies import ScoringFacts
from recloop.envs.truth.logs import LoggingPolicy
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.language.users import LanguageModelUsers, Persona
from recloop.envs.world.data import WorldData
from recloop.envs.world.world import World

SHOWN_BY = ("random", "popularity", "content", "last-item", "worst-first", "one-topic", "least-shown", "blend")
"""Logging policies of the slates that are asked about: a log must visit varied states to be learned from."""
FEWEST_USERS = 10
"""Below so many users nothing is fitted."""
_REDRAW = 0.7
"""Chance that a user's logging policy is drawn anew at a slate."""
_LANES = 32
"""Users asked at once."""


@dataclass(frozen=True)
class AskedStep:
    """What B users were shown and how the model answered.

    Args:
        users: int64 (B,) rows of the users table.
        state, past, slate: what they were asked with; slate (B, K).
        response: the answers.
        number: slates before it.
    """

    users: Tensor
    state: Persona
    past: Past
    slate: Tensor
    response: Response
    number: int


@dataclass(frozen=True)
class Asked:
    """What a language model answered.

    Args:
        log: its answers with exposures, propensities and the names of the logging policies.
        sequences: the same behind each user's history in the world, by row numbers.
        users: int64 rows of the users who were asked, in the order of asking.
        steps: of all users, in the order of asking; what fidelity is measured on.
        stopped: why fewer users were asked than planned, or None.
    """

    log: LoggedBehavior
    sequences: Sequences
    users: Ints
    steps: tuple[AskedStep, ...]
    stopped: str | None = None

    @property
    def slates(self) -> int:
        """How many slates were asked about."""
        return sum(len(step.users) for step in self.steps)


def ask_users(
    world: World,
    language: LanguageModelUsers,
    users: Ints,
    *,
    slates: int,
    seed: int = 0,
    done: Callable[[int], object] = lambda users: None,
) -> Asked:
    """Let a language model play users, each for `slates` slates from where their history ends.

    Slates are drawn by the policies `SHOWN_BY`, redrawn at most slates. All is a function of the arguments, so that
    a run that was killed and is started again asks the same questions, and the model's store answers those that
    it has. Where a rule says when users leave, nobody leaves while they are asked; where the model says so, they
    come back for the next slate, so that every user has `slates` of them.

    Args:
        users: rows of the users table to ask, in this order.
        slates: per user.
        seed: of slates and luck.
        done: is told the number of users of each finished part.

    Raises:
        BudgetError: the budget ended before `FEWEST_USERS` were asked; the answers so far are in the store.
        LanguageModelError: fewer users than that are given, or the model cannot be asked.
    """
    if len(users) < FEWEST_USERS:
        raise LanguageModelError(f"{len(users)} users to ask, at least {FEWEST_USERS} are needed; raise the budget")
    policy = LoggingPolicy(_known(world, seed), world.slate_size, SHOWN_BY, _REDRAW)
    name = f"{world.name}-{language.model.name.rstrip('/').rpartition('/')[2]}"
    logs: list[LoggedBehavior] = []
    steps: list[AskedStep] = []
    asked, stopped = 0, None
    for start in range(0, len(users), _LANES):
        lanes = torch.from_numpy(users[start : start + _LANES])
        noted = _Noted(language, lanes)
        core = Core(world, noted, batch=len(lanes), users=lanes, seed=seed, max_steps=slates, sessions=slates + 1)
        core.reset(lanes=lanes, users=lanes)
        try:
            logs.append(record(core, policy, name))
        except BudgetError as error:
            if asked < FEWEST_USERS:
                raise
            stopped = str(error)
            break
        steps += noted.steps
        asked += len(lanes)
        done(len(lanes))
    interactions = pd.concat([log.interactions for log in logs], ignore_index=True)
    if language.leaving is not None:  # sessions were ended by the asking, not by anybody
        interactions = interactions.drop(columns=Columns.session_end)
    log = replace(logs[0], interactions=interactions, source=f"answers of {language.model.name}")
    return Asked(log, _behind_history(world, log), users[:asked], tuple(steps), stopped)


class _Noted(UserSimulator):
    """Users played by a language model, with a note of every step; nobody leaves by a rule."""

    def __init__(self, language: LanguageModelUsers, rows: Tensor) -> None:
        self.language, self.signals, self.rows = language, language.signals, rows
        self.steps: list[AskedStep] = []

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        super().prepare(world, device)
        self.language.prepare(world, device)

    def arrive(self, users: Tensor, draw: Draw) -> Persona:
        return self.language.arrive(users, draw)

    def respond(self, state: Persona, past: Past, slate: Tensor, draw: Draw) -> tuple[Persona, Response]:
        after, response = self.language.respond(state, past, slate, draw)
        if self.language.leaving is not None:
            response = replace(response, left=torch.zeros_like(response.left))
        self.steps.append(AskedStep(self.rows, state, past, slate, response, len(self.steps)))
        return after, response


def _known(world: World, seed: int) -> ScoringFacts:
    """What the logging policies know; a world without groupings has one topic."""
    if world.catalogue.groups.shape[1]:
        return ScoringFacts.of(world, seed)
    groups = torch.zeros(len(world.catalogue) + 1, 1, dtype=torch.int64)
    groups[-1] = 1
    return ScoringFacts.of(
        replace(world, catalogue=replace(world.catalogue, groups=groups, group_names=("all",))), seed
    )


def _behind_history(world: World, log: LoggedBehavior) -> Sequences:
    """The answers as arrays, each user's consumption in the world before it; the world's own slates are left out."""
    asked, _, _ = compile_sequences(log)
    known = world.sequences
    owner = np.concatenate([np.repeat(np.arange(s.users), s.lengths) for s in (known, asked)])
    order = np.argsort(owner, kind="stable")
    slates = asked.slates
    assert slates is not None
    before = np.repeat(known.lengths, np.diff(slates.offsets))
    return replace(
        asked,
        offsets=(known.offsets + asked.offsets).astype(np.int64),
        items=np.concatenate([known.items, asked.items])[order],
        feedback=np.concatenate([known.feedback, asked.feedback])[order],
        given=np.concatenate([known.given, asked.given])[order],
        slates=replace(slates, consumed_before=slates.consumed_before + before, days_away=None),
    )
