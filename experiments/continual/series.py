"""The items' own series: how often each was taken day by day, forecast, and added to a recommender's scores."""

import numpy as np
import torch
from torch import Tensor

from recloop.agents.policy import Policy, ScoringPolicy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.response import Past
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.world.world import World
from recloop.experiments.comparison.intervals import Floats, Ints

LAST = 7
"""Days that a forecast reads."""
_PRIOR = 5.0
"""Showings at the mean rate that every item is given a day, so that few showings say little."""
_RIDGE = 10.0


class ItemSeries:
    """Log-odds at which each item is taken when it is shown, day by day, and a ridge regression of the next day.

    The value of a day is the log-odds of the smoothed rate less those of all items on that day. A forecast reads the
    last `LAST` values, how much each is to be trusted (showings over showings plus prior), and the item's age as
    min(age, 60) / 10 and exp(-age / 5); one regression for all items, weighted by showings, fitted anew a day, since it
    takes a millisecond. Rates are those of the users whom a policy showed the item.

    Args:
        released: int64 (N,) day on which each item came.
    """

    def __init__(self, released: Tensor) -> None:
        self.released: Ints = released.numpy()
        empty = np.zeros((0, len(released)))
        self.values: Floats = empty
        self.trust: Floats = empty
        self.shown: Floats = empty
        self._weights: Floats | None = None

    def add(self, world: World, log: LoggedBehavior) -> None:
        """One more day."""
        rows, n = log.interactions, len(self.released)
        item = np.array([world.catalogue.rows[one] for one in rows[Columns.item]], dtype=np.int64)
        shown = np.bincount(item, minlength=n).astype(np.float64)
        hits = np.bincount(item, weights=rows[log.consumption.name].to_numpy(np.float64), minlength=n)
        rate = min(max(hits.sum() / max(shown.sum(), 1), 1e-3), 1 - 1e-3)
        share = (hits + _PRIOR * rate) / (shown + _PRIOR)
        value = np.log(share / (1 - share)) - np.log(rate / (1 - rate))
        self.values = np.vstack([self.values, value])
        self.trust = np.vstack([self.trust, shown / (shown + _PRIOR)])
        self.shown = np.vstack([self.shown, shown])

    @property
    def days(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def ready(self) -> bool:
        """Whether there were enough days to fit a forecast."""
        return self._weights is not None

    def fit(self) -> None:
        """Weights from all days that have `LAST` before them; none where there is no such day."""
        if self.days <= LAST:
            return
        x = np.concatenate([self._facts(day) for day in range(LAST, self.days)])
        y, w = self.values[LAST:].ravel(), self.shown[LAST:].ravel()
        weighted = x * w[:, None]
        self._weights = np.asarray(np.linalg.solve(x.T @ weighted + _RIDGE * np.eye(x.shape[1]), weighted.T @ y))

    def forecast(self) -> Floats:
        """float64 (N,) value of each item on the next day; 0 before there are enough days."""
        if self._weights is None:
            return np.zeros(len(self.released))
        return np.asarray(self._facts(self.days) @ self._weights)

    def errors(self) -> tuple[float, float]:
        """Root mean square errors over what was shown yesterday, of the forecast made before it and of taking the mean
        of the `LAST` days; for a series whose last day `fit` has not seen."""
        weight, truth = self.shown[-1], self.values[-1]
        forecast = self._facts(self.days - 1) @ self._weights if self._weights is not None else np.zeros_like(truth)
        plain = self.values[-1 - LAST : -1].mean(0)
        return tuple(float(np.sqrt((weight * (f - truth) ** 2).sum() / weight.sum())) for f in (forecast, plain))  # type: ignore[return-value]

    def _facts(self, day: int) -> Floats:
        """float64 (N, F) what is known of each item before a day."""
        age = np.maximum(day - self.released, 0).astype(np.float64)
        known = [self.values[day - LAST : day].T, self.trust[day - LAST : day].T]
        return np.column_stack([*known, np.minimum(age, 60) / 10, np.exp(-age / 5), np.ones_like(age)])


class SeriesContext(ScoringPolicy):
    """A recommender that says whom an item is for, among items whose own series say how well each stands today.

    The score is the recommender's, less its mean over the users of a world, plus the forecast: what it learned of an
    item's level from how often it was taken, which is also how often it was shown, gives way to rates.

    Args:
        base: scores items in log-odds or as logits.
        world: over whose users the mean is taken, as they are now.
        forecast: float64 (N,), see `ItemSeries.forecast`.

    Raises:
        PolicyError: a policy that does not score items.
    """

    def __init__(self, base: Policy, world: World, forecast: Floats) -> None:
        if not isinstance(base, ScoringPolicy):
            raise PolicyError(
                f"policy '{base.name}' does not score items, so that no series can be added; leave it out"
            )
        self.base, self.name, self.serving = base, f"{base.name} in context", base.serving
        self.offset = torch.from_numpy(forecast).to(torch.float32) - _levels(base, world)

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """See the class, (B, N)."""
        return self.base.scores(observation) + self.offset


@torch.no_grad()
def _levels(base: ScoringPolicy, world: World) -> Tensor:
    """float32 (N,) mean score of each item over a world's users."""
    table, zeros = world.users, torch.zeros(len(world.users), dtype=torch.int64)
    past = Past(table.history, table.feedback, table.shown, table.answers, zeros, zeros.to(torch.float32))
    vector = world.state_encoder.vector(world.warm_states)
    return base.scores(world.spec().observe(past, vector, table.profile, DEFAULT_KEYS)).mean(0)
