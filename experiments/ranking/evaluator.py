"""Policies ranked on a task: what each would show, and how good that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.agents.asking import asked
from recloop.agents.policy import Policy, ScoringPolicy
from recloop.agents.rank_metrics import METRICS, coverage, gini, hits_of, novelty, ranked
from recloop.agents.slates import action_mask
from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.seen import repeated
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.world import World
from recloop.experiments.comparison.intervals import Interval, t_interval
from recloop.experiments.ranking.questions import RankingTask

Ties = Literal["random", "row"]
"""Who goes first among items of equal score: drawn anew for each user and seed, or the lower row."""

Floats = npt.NDArray[np.float64]
FIGURES = (*METRICS, "coverage", "novelty", "gini")
"""By the name of their column. Coverage and Gini belong to all users together, the others are means over users."""

_SCORES = 1 << 24
"""Scores worked out at once: users times catalogue."""
_MOST_USERS = 256


@dataclass(frozen=True)
class RankedLists:
    """What a policy shows the users of a task.

    Args:
        task: what is asked.
        shown: int64 (Q, K), best first; N where a list ends early.
        shares: float (N,) share of the train users who know each item, in (0, 1].
    """

    task: RankingTask
    shown: Tensor
    shares: Tensor

    def by_user(self, k: int) -> dict[str, Floats]:
        """The figures that are means over users, one value a user, for lists of k."""
        n = len(self.shares)
        hits, relevant = hits_of(self.shown, self.task.targets, n), (self.task.targets < n).sum(1)
        found = {name: metric(hits, relevant, k) for name, metric in METRICS.items()}
        found["novelty"] = novelty(self.shown[:, :k], self.shares)
        return {name: values.numpy() for name, values in found.items()}

    def figures(self, k: int) -> dict[str, float]:
        """All of `FIGURES` for lists of k."""
        shown, n = self.shown[:, :k], len(self.shares)
        choice = torch.ones(n, dtype=torch.bool) if self.task.choice is None else self.task.choice
        means = {name: float(values.mean()) for name, values in self.by_user(k).items()}
        return {**means, "coverage": coverage(shown, choice), "gini": gini(shown, choice)}


def rank(
    policy: Policy,
    world: World,
    task: RankingTask,
    k: int,
    *,
    seed: int = 0,
    ties: Ties = "random",
    device: torch.device | str = "cpu",
) -> RankedLists:
    """What a policy shows each user of a task as the first slate of an episode; see `rank_all`."""
    return rank_all([(policy, seed)], world, task, k, ties=ties, device=device)[0]


@torch.no_grad()
def rank_all(
    policies: Sequence[tuple[Policy, int]],
    world: World,
    task: RankingTask,
    k: int,
    *,
    ties: Ties = "random",
    device: torch.device | str = "cpu",
) -> list[RankedLists]:
    """What policies show each user of a task as the first slate of an episode; users are encoded once for all.

    A `ScoringPolicy` is asked for its scores, so that ties are known; every other one for its slate. As in the loop, an
    item that stands in a list twice, or that may not be shown, is no item.

    Args:
        policies: made for the world, each with the seed of its ties and draws, by user: no list depends on who else
            is asked.
        world: of the task.
        task: whom to rank for.
        k: length of the lists.
        ties: of scores.
        device: where policies act.

    Raises:
        RecloopError: a policy that reads the users' true state, or k beyond the catalogue.
    """
    n, place = len(world.catalogue), checked_device(device)
    for policy, _ in policies:
        if policy.privileged:
            raise RecloopError(f"policy '{policy.name}' reads the users' true state, which no log holds; leave it out")
    if not 1 <= k <= n:
        raise RecloopError(f"--k {k} does not fit a catalogue of {n} items; choose 1 to {n}")
    parts: list[list[Tensor]] = [[] for _ in policies]
    batch = max(1, min(_MOST_USERS, _SCORES // n))
    for first in range(0, len(task.users), batch):
        rows = slice(first, first + batch)
        observation = {key: value.to(place) for key, value in task.observe(world, rows).items()}
        users = torch.from_numpy(task.users[rows]).to(place)
        zeros = torch.zeros_like(users)
        for part, (policy, seed) in zip(parts, policies, strict=True):
            part.append(_lists(policy, observation, k, Draw.at(seed, users, zeros, zeros), ties).cpu())
    known = (world.catalogue.popularity.double() + 1) / (len(world.users.rows("train")) + 1)
    return [RankedLists(task, torch.cat(part), known.clamp(max=1.0)) for part in parts]


def _lists(policy: Policy, observation: Observation, k: int, draw: Draw, ties: Ties) -> Tensor:
    """int64 (B, k)."""
    if isinstance(policy, ScoringPolicy) and type(policy).act is ScoringPolicy.act:
        scores = policy.scores(observation)
        items = torch.arange(scores.shape[1], device=scores.device).unsqueeze(0)
        keys = draw.uniform("ties", items) if ties == "random" else None
        return ranked(scores, action_mask(observation, scores.shape[1]), k, keys)
    shown, _ = asked(policy.act, policy, observation, None, k, draw)
    allowed = torch.nn.functional.pad(observation["action_mask"], (0, 1))
    return shown.masked_fill(~allowed.gather(1, shown) | repeated(shown), allowed.shape[1] - 1)


def interval(values: Floats) -> Interval:
    """95 % t interval of a mean over users (Q,); no ends where there is one user alone."""
    return t_interval(values) if len(values) > 1 else Interval(float(values.mean()), float("nan"), float("nan"))


def mean_over_seeds(lists: Mapping[int, RankedLists], k: int, metric: str) -> Floats:
    """Each user's figure, the mean over seeds, (Q,)."""
    mean: Floats = np.mean([one.by_user(k)[metric] for one in lists.values()], axis=0)
    return mean
