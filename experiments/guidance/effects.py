"""What a policy does to its users: how their consumption widens or narrows, and how they like it, early and late.

from recloop.experiments.guidance.effects import effects
effects(policy, world, "truth", episodes=300)["entropy"].mean()
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.acting import picked_by
from recloop.agents.policy import Policy
from recloop.envs.interaction.reward import slate_diversity
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import rollout
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator, Floats
from recloop.experiments.comparison.intervals import by_user

EFFECTS = {
    "return": "sum of rewards",
    "slates": "slates until the user left or time was up",
    "entropy": "entropy in nats of the categories consumed (Shannon 1948)",
    "narrowing": "that entropy in the first half of what was consumed less that in the second half",
    "small categories": "share of what was consumed from the categories that make up the last fifth of all consumption",
    "bubble": "mean cosine of what was consumed in the second half to the mean of the first (filter bubble, Nguyen et "
    "al. 2014)",
    "diversity": "one minus the mean cosine within a slate",
    "liking": "second signal of what was consumed, as a share of its largest value",
    "liking at the end": "the same over the second half of what was consumed",
    "well-being": "satisfaction or mood of a written-down user as the episode ends",
    "days away": "mean days between two sessions",
}
"""What is measured of each user's episode; NaN where a user gave nothing to measure it by."""

_TAIL = 0.2
_STREAM = 0x67756964
"""Sets a policy's own draws apart from the users' luck."""


@torch.no_grad()
def effects(
    policy: Policy,
    world: World,
    simulator: str,
    *,
    episodes: int = 300,
    users: str | Sequence[int] = "evaluate",
    seed: int = 0,
) -> dict[str, Floats]:
    """The `EFFECTS` of a policy, one episode a lane, the mean of each user's lanes, (U,).

    A category is the first grouping of the items. Signals, satisfaction and days are there in worlds that have them.

    Args:
        policy: acts in the world.
        world: with categories.
        simulator: name of one of its simulators.
        episodes: lanes, going round the users.
        users: a part of the world's users, or rows.
        seed: of users' and policy's luck.
    """
    arena = Evaluator(world, simulator, episodes=episodes, users=users, seed=seed)
    core = arena.core
    core.reset(seed=seed, users=arena.users)
    items, likes, diversity, days = [], [], [], []
    lanes = torch.zeros(core.batch, dtype=torch.float64)
    value, length, gone, ends = lanes, lanes, lanes, lanes + torch.nan
    for step in rollout(core, partial(picked_by, policy, seed=seed ^ _STREAM), learn=policy.learning):
        one, alive = step.transition, step.alive
        response = one.response
        taken = (response.signals[..., 0] > 0.5) & response.given[..., 0] & alive.unsqueeze(1)
        items.append(torch.where(taken, one.slate, core.empty))
        likes.append(_liking(response.signals, response.given, world) if len(world.signals) > 1 else None)
        diversity.append(slate_diversity(one.slate, core.encoder.item_vectors).double() * alive)
        value, length = value + one.reward * alive, length + alive.double()
        if response.days_away is not None:
            back = alive & response.left & ~one.terminated
            days.append(torch.where(back, response.days_away, 0.0).double())
            gone = gone + back.double()
        felt = _well_being(step.state)
        ends = torch.where(alive, felt.double(), ends) if felt is not None else ends
    found = {"return": value, "slates": length, "diversity": torch.stack(diversity).sum(0) / length}
    found.update(_consumption(torch.cat(items, dim=1), world, core))
    if likes[0] is not None:
        found.update(_liked(torch.cat(items, dim=1), torch.cat([one for one in likes if one is not None], dim=1), core))
    if bool(ends.isfinite().any()):
        found["well-being"] = ends
    if days and world.sessions > 1:
        found["days away"] = torch.where(gone > 0, torch.stack(days).sum(0) / gone.clamp_min(1), torch.nan)
    users_of_lanes = arena.users.cpu().numpy()
    return {name: by_user(found[name].cpu().numpy(), users_of_lanes) for name in EFFECTS if name in found}


def halves(items: Tensor, empty: int) -> tuple[Tensor, Tensor]:
    """Which consumed items (B, M), in their order, are of the first and of the second half of each row: bool (B, M)."""
    held = items < empty
    place = held.long().cumsum(1)
    first = held & (place <= held.sum(1, keepdim=True) // 2)
    return first, held & ~first


def entropy_of(groups: Tensor, held: Tensor, count: int) -> Tensor:
    """Entropy in nats (B,) of the groups (B, M) of what is held (B, M); NaN where nothing is.

    >>> entropy_of(torch.tensor([[0, 1, 1, 0]]), torch.tensor([[True, True, False, False]]), 3).item()
    0.6931471805599453
    """
    counts = torch.zeros(len(groups), count, dtype=torch.float64).scatter_add(1, groups, held.double())
    share = counts / counts.sum(1, keepdim=True)
    return -(share * share.clamp_min(1e-12).log()).sum(1)


def _consumption(items: Tensor, world: World, core: Core) -> dict[str, Tensor]:
    """What is told by what was consumed, items (B, M) with N at empty places."""
    held, (first, second) = items < core.empty, halves(items, core.empty)
    vectors = F.normalize(core.encoder.item_vectors, dim=1).double()
    before = (vectors[items] * first.unsqueeze(2)).sum(1)
    after = (vectors[items] * second.unsqueeze(2)).sum(1)
    size = second.sum(1).clamp_min(1).double()
    bubble = (F.normalize(before, dim=1) * after).sum(1) / size
    found = {"bubble": bubble.where(first.any(1) & second.any(1), torch.nan)}
    table = world.catalogue.groups
    if not table.shape[1]:
        return found
    count = int(table[-1, 0]) + 1
    groups = table[:, 0][items]
    halved = entropy_of(groups, first, count) - entropy_of(groups, second, count)
    small = _small(world, count)[groups] & held
    total = held.sum(1).double()
    return {
        **found,
        "entropy": entropy_of(groups, held, count),
        "narrowing": halved,
        "small categories": torch.where(total > 0, small.sum(1) / total.clamp_min(1), torch.nan),
    }


def _small(world: World, count: int) -> Tensor:
    """bool (count,): the least consumed categories that make up the last fifth of all consumption."""
    groups, popularity = world.catalogue.groups[:-1, 0], world.catalogue.popularity.double()
    total = torch.zeros(count, dtype=torch.float64).scatter_add(0, groups, popularity)
    order = total.argsort()
    small = torch.zeros(count, dtype=torch.bool)
    small[order] = total[order].cumsum(0) <= _TAIL * total.sum()
    return small


def _liking(signals: Tensor, given: Tensor, world: World) -> Tensor:
    """The second signal as a share of its range (B, K), NaN where it was not given."""
    low, high = world.signals[1].bounds
    share = (signals[..., 1] - low) / max(high - low, 1e-9)
    return share.where(given[..., 1], torch.nan)


def _liked(items: Tensor, likes: Tensor, core: Core) -> dict[str, Tensor]:
    held, second = items < core.empty, halves(items, core.empty)[1]
    return {
        "liking": likes.double().where(held, torch.nan).nanmean(1),
        "liking at the end": likes.double().where(second, torch.nan).nanmean(1),
    }


def _well_being(state: Any) -> Tensor | None:
    """Satisfaction or mood (B,), where users are written down with one."""
    for name in ("satisfaction", "mood"):
        felt = getattr(state, name, None)
        if isinstance(felt, Tensor):
            return felt
    return None


def known(values: Floats) -> Floats:
    """Without what is NaN."""
    return np.asarray(values[np.isfinite(values)])
