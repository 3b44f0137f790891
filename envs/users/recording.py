"""Logs written by simulated users under any policy: what a world's truth can be tested against."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.envs.core import Core
from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Times
from recloop.envs.observation import DEFAULT_KEYS, Observation
from recloop.envs.randomness import Draw

Pick = Callable[[Observation, Any, Draw], tuple[Tensor, Tensor | None, Any]]
"""A logging policy: observation (with `action_mask`), carry and draws -> slates (B, K), the probability (B, K) with
which it put each item in its place (or None where it cannot say), and the next carry."""

_SLATE_SECONDS = 60.0
_DAY_SECONDS = 86400.0


def record(core: Core, pick: Pick, name: str) -> LoggedBehavior:
    """Let one episode run in every lane and log it, exposures and propensities included.

    A lane is a user, so the core's lanes must start with different users (`core.reset(users=...)`). A session ends
    `left` where the user left and `cut` where the episode's time limit came first. Times are behavioural: a minute a
    slate, a day between sessions.

    Args:
        core: fresh after `reset`; its simulator answers.
        pick: the logging policy.
        name: of the log.
    """
    alive = torch.ones(core.batch, dtype=torch.bool)
    session = torch.zeros(core.batch, dtype=torch.int64)
    users, carry, rows = core.users.cpu(), None, []
    keys = (*DEFAULT_KEYS, "action_mask")
    for step in range(core.max_steps):
        slate, propensity, carry = pick(core.observe(keys), carry, core.draw())
        transition = core.step(slate)
        rows.append(_rows(core, transition.slate, transition.response.signals, propensity, users, session, step, alive))
        session = session + transition.response.left.cpu().to(torch.int64)
        alive = alive & ~(transition.terminated | transition.truncated).cpu()
        if not bool(alive.any()):
            break
    interactions = pd.concat(rows, ignore_index=True)
    interactions = interactions.sort_values(Columns.user, kind="stable", ignore_index=True)
    final = interactions.groupby(Columns.user)[Columns.session].transform("max")
    gone = torch.full((len(core.world.users),), False)
    gone[users] = session >= core.sessions
    cut = (interactions[Columns.session] == final) & ~gone.numpy()[interactions[Columns.user]]
    interactions[Columns.session_end] = np.where(cut, SessionEnd.cut.value, SessionEnd.left.value)
    catalogue, table = core.world.catalogue, core.world.users
    interactions[Columns.user] = np.array(table.ids)[interactions[Columns.user]]
    interactions[Columns.item] = np.array(catalogue.ids)[interactions[Columns.item]]
    return LoggedBehavior(
        name=name,
        interactions=interactions,
        users=pd.DataFrame(index=pd.Index(table.ids, name=Columns.user)),
        items=pd.DataFrame(
            {Columns.title: catalogue.titles, Columns.text: catalogue.texts},
            index=pd.Index(catalogue.ids, name=Columns.item),
        ),
        signals=core.world.signals,
        times=Times.behavioural,
        has_exposures=True,
        source="simulated",
    )


def _rows(
    core: Core,
    slate: Tensor,
    answers: Tensor,
    propensity: Tensor | None,
    users: Tensor,
    session: Tensor,
    step: int,
    alive: Tensor,
) -> pd.DataFrame:
    """One step's impressions, a row each, by row numbers."""
    lane, position = ((slate.cpu() < core.empty) & alive.unsqueeze(1)).nonzero().unbind(1)
    frame = {
        Columns.user: users[lane].numpy(),
        Columns.item: slate.cpu()[lane, position].numpy(),
        Columns.time: (step * _SLATE_SECONDS + session[lane].to(torch.float64) * _DAY_SECONDS).numpy(),
        Columns.session: session[lane].numpy(),
        Columns.slate: np.full(len(lane), step),
        Columns.position: position.numpy(),
    }
    if propensity is not None:
        frame[Columns.propensity] = propensity.cpu()[lane, position].numpy()
    values = answers.cpu()[lane, position]
    for place, signal in enumerate(core.world.signals):
        frame[signal.name] = values[:, place].numpy()
    return pd.DataFrame(frame)
