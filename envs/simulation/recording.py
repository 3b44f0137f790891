"""Logs written by simulated users under any policy: what a world's truth can be tested against."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Times
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import Pick, RolloutStep, acting, rollout
from recloop.envs.world.world import Catalogue

_SLATE_SECONDS = 60.0
_DAY_SECONDS = 86400.0
_LEFT = "left"


def record(core: Core, pick: Pick, name: str, watch: Callable[[RolloutStep], None] | None = None) -> LoggedBehavior:
    """Let one episode run in every lane and log it, exposures and propensities included.

    A lane is a user, so the core's lanes must start with different users (`core.reset(users=...)`). A session ends
    `left` where the user left and `cut` where the episode's time limit came first. Times are behavioural: a minute a
    slate, and between sessions the days that the user stayed away.

    Args:
        core: fresh after `reset`; its simulator answers.
        pick: the logging policy.
        name: of the log.
        watch: told of every step; None where nobody wants to know.
    """
    session = torch.zeros(core.batch, dtype=torch.int64)
    days = torch.zeros(core.batch, dtype=torch.float64)
    users, rows = core.users.cpu(), []
    for step in rollout(core, acting(pick)):
        if watch is not None:
            watch(step)
        response = step.transition.response
        left = response.left.cpu()
        rows.append(_rows(core, step, users, session, days))
        session = session + left.to(torch.int64)
        days = days + left * (1.0 if response.days_away is None else response.days_away.cpu().to(torch.float64))
    interactions = pd.concat(rows, ignore_index=True)
    interactions = interactions.sort_values(Columns.user, kind="stable", ignore_index=True)
    ended = interactions.pop(_LEFT).groupby([interactions[Columns.user], interactions[Columns.session]])
    ends = np.where(ended.transform("max"), SessionEnd.left.value, SessionEnd.cut.value)
    interactions[Columns.session_end] = ends
    catalogue, table = core.world.catalogue, core.world.users
    interactions[Columns.user] = np.array(table.ids)[interactions[Columns.user]]
    interactions[Columns.item] = np.array(catalogue.ids)[interactions[Columns.item]]
    return LoggedBehavior(
        name=name,
        interactions=interactions,
        users=pd.DataFrame(index=pd.Index(table.ids, name=Columns.user)),
        items=_items(catalogue),
        signals=core.world.signals,
        times=Times.behavioural,
        has_exposures=True,
        source="simulated",
    )


def _items(catalogue: Catalogue) -> pd.DataFrame:
    columns: dict[str, Any] = {Columns.title: catalogue.titles, Columns.text: catalogue.texts}
    if Columns.category in catalogue.group_names:
        number = catalogue.groups[:-1, catalogue.group_names.index(Columns.category)]
        columns[Columns.category] = [f"{Columns.category} {int(group)}" for group in number]
    return pd.DataFrame(columns, index=pd.Index(catalogue.ids, name=Columns.item))


def _rows(core: Core, step: RolloutStep, users: Tensor, session: Tensor, days: Tensor) -> pd.DataFrame:
    """One step's impressions, a row each, by row numbers."""
    transition, picked = step.transition, step.picked
    slate = transition.slate.cpu()
    lane, position = ((slate < core.empty) & step.alive.cpu().unsqueeze(1)).nonzero().unbind(1)
    frame = {
        Columns.user: users[lane].numpy(),
        Columns.item: slate[lane, position].numpy(),
        Columns.time: (step.number * _SLATE_SECONDS + days[lane] * _DAY_SECONDS).numpy(),
        Columns.session: session[lane].numpy(),
        Columns.slate: np.full(len(lane), step.number),
        Columns.position: position.numpy(),
        _LEFT: transition.response.left.cpu()[lane].numpy(),
    }
    if picked.propensity is not None:
        frame[Columns.propensity] = picked.propensity.cpu()[lane, position].numpy()
    if picked.policy is not None:
        frame[Columns.policy] = picked.policy[lane.numpy()]
    values = transition.response.signals.cpu()[lane, position]
    for place, signal in enumerate(core.world.signals):
        frame[signal.name] = values[:, place].numpy()
    return pd.DataFrame(frame)
