"""Estimators of what a policy would have earned, all as sums over users, so that one bootstrap serves all of them.

An estimate is sum over columns c of [sum over users of above[u, c]] / [sum over users of below[u, c]]. With one column
and below = episodes, that is a mean an episode; with the weights below, a self-normalised one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.comparison.intervals import LEVEL
from recloop.experiments.off_policy.choices import Bools, Floats, Ints, LoggedChoices
from recloop.experiments.off_policy.targets import Target

Unit = Literal["slate", "session"]
Sums = tuple[Floats, Floats]
"""Above and below, (E, C) each, by episode."""

FOLDS = 5
"""Parts of the users: what is said of one part is fitted on the others."""
PENALTY = 10.0
"""Of the ridge regression: as if each item had ten more rows that earned the mean."""
RESAMPLES = 2000
"""Of users, in the bootstrap."""
_TAUS = 20
"""Thresholds that SWITCH chooses from: quantiles of the weights."""
_CHUNK = 1 << 22
"""Entries of (resamples, U) at once."""


@dataclass(frozen=True)
class WeightedEpisodes:
    """E episodes of T decisions, an item put in a place each: the K places of a slate, or of all slates of a session.

    Args:
        user: int64 (E,) row in 0 to U-1.
        held: bool (E, T): there is such a decision.
        weight: float64 (E, T) product of target chance / logging chance over the decisions up to this one.
        before: float64 (E, T) the same up to the slate before.
        reward: float64 (E, T), 0 where not held.
        predicted: float64 (E, T) what the direct model says of the logged item.
        expected: float64 (E, T) what it says of what the target would have shown at this moment.
        places: K.
    """

    user: Ints
    held: Bools
    weight: Floats
    before: Floats
    reward: Floats
    predicted: Floats
    expected: Floats
    places: int

    @property
    def last(self) -> Floats:
        """Weight of each whole episode, (E,)."""
        return self.weight[:, -1]


def episodes_of(
    log: LoggedChoices, target: Target | None, unit: Unit = "slate", horizon: int | None = None
) -> WeightedEpisodes:
    """The episodes of a log as a target weighs them; None for the logging policy itself, whose weights are 1.

    Args:
        log: with propensities, unless the target is None.
        target: at the moments of this log.
        unit: a slate, or a session, of which the first `horizon` slates count; default all.
    """
    if target is None:
        ratio, model = np.ones(log.items.shape), (np.zeros(log.items.shape),) * 2
    elif log.propensity is None:
        raise RecloopError(f"{log.name} holds no propensities; have them estimated (--propensities estimated)")
    else:
        ratio, model = np.where(log.held, target.chance / log.propensity, 1.0), direct_model(log, target)
    k, user = log.items.shape[1], np.unique(log.user, return_inverse=True)[1]
    values = (ratio, log.rewards, *model, log.held.astype(float))
    if unit == "slate":
        weight: Floats = np.cumprod(ratio, axis=1, dtype=np.float64)
        return WeightedEpisodes(user, log.held, weight, np.ones_like(weight), log.rewards, *model, k)
    starts = np.flatnonzero(np.diff(log.session, prepend=-1))
    number = np.arange(len(log.session)) - np.repeat(starts, np.diff(np.append(starts, len(log.session))))
    episode = np.cumsum(np.diff(log.session, prepend=-1) != 0) - 1
    length = min(horizon or len(number), int(number.max()) + 1)
    kept = number < length
    laid = []
    for value, empty in zip(values, (1.0, 0.0, 0.0, 0.0, 0.0), strict=True):
        table = np.full((len(starts), length, k), empty)
        table[episode[kept], number[kept]] = value[kept]
        laid.append(table.reshape(len(starts), -1))
    weight = np.cumprod(laid[0], axis=1, dtype=np.float64)
    ends = weight.reshape(len(starts), length, k)[:, :, -1]
    before = np.repeat(np.concatenate([np.ones((len(starts), 1)), ends[:, :-1]], axis=1), k, axis=1)
    return WeightedEpisodes(user[starts], laid[4] > 0, weight, before, laid[1], laid[2], laid[3], k)


def direct_model(log: LoggedChoices, target: Target) -> tuple[Floats, Floats]:
    """What a place earns by a ridge regression on item, place and context, cross-fitted over users.

    Returns:
        Of the logged item, and the mean over what the target would have shown there, float64 (Q, K) each; 0 where not
        held. Linear in item and place: it knows no item that one user likes more than another does.
    """
    (q, k), n, held = log.items.shape, log.catalogue_size, log.held
    users = np.unique(log.user, return_inverse=True)[1]
    fold = np.random.default_rng(0).permutation(users.max() + 1)[users] % FOLDS
    context = log.context - log.context.mean(0)
    row, place = held.nonzero()
    item, number, places = log.items[row, place], log.first[row] + place, int(log.first.max()) + k
    cells = np.arange(len(row))
    ones = np.ones(len(row))
    known = sp.csr_matrix((ones, (cells, item)), (len(row), n))
    where = sp.csr_matrix((ones, (cells, number)), (len(row), places))
    design = sp.hstack([known, where, sp.csr_matrix(context[row])]).tocsr()
    predicted, expected = np.zeros((q, k)), np.zeros((q, k))
    reward = log.rewards[row, place]
    for part in range(FOLDS):
        rest, mine = fold[row] != part, fold == part
        if not mine.any():
            continue
        if not rest.any():
            raise RecloopError(f"{log.name} holds {users.max() + 1} user(s); the direct model needs 2 or more")
        fitted = Ridge(PENALTY, solver="sparse_cg", random_state=0).fit(design[rest], reward[rest])
        of_item = np.append(fitted.coef_[:n], 0.0)
        of_place = fitted.coef_[n : n + places][log.first[mine, None] + np.arange(k)]
        base = fitted.intercept_ + of_place + (context[mine] @ fitted.coef_[n + places :])[:, None]
        predicted[mine] = base + of_item[log.items[mine]]
        expected[mine] = base + of_item[target.drawn[:, mine]].mean(0)
    return predicted * held, expected * held


def mean_sums(e: WeightedEpisodes) -> Sums:
    """What the log earned, an episode."""
    return _plain(e.reward.sum(1))


def direct(e: WeightedEpisodes) -> Sums:
    """Direct method: what the model expects of the target's slates. How wrong the model is, no resampling tells: it has
    no interval."""
    return _plain(e.expected.sum(1))


def ips(e: WeightedEpisodes) -> Sums:
    """Inverse propensity scoring (Horvitz and Thompson 1952): the episode's weight times all that it earned."""
    return _plain(e.last * e.reward.sum(1))


def clipped(e: WeightedEpisodes) -> Sums:
    """IPS with weights of at most the square root of the episodes (Ionides 2008)."""
    return _plain(np.minimum(e.last, clip_of(e)) * e.reward.sum(1))


def snips(e: WeightedEpisodes) -> Sums:
    """Self-normalised IPS (Swaminathan and Joachims 2015)."""
    return _columns(e.last * e.reward.sum(1)), _columns(e.last)


def pdis(e: WeightedEpisodes) -> Sums:
    """Per-decision importance sampling (Precup et al. 2000); of a slate the cascade's IPS (McInerney et al. 2020): what
    a place earned weighs by the decisions up to it, right where nothing below a place changes what it earns."""
    return _plain((e.weight * e.reward).sum(1))


def snpdis(e: WeightedEpisodes) -> Sums:
    """Self-normalised per-decision importance sampling: each decision number by its own weights."""
    return e.weight * e.reward, e.weight


def doubly_robust(e: WeightedEpisodes) -> Sums:
    """Doubly robust (Dudik et al. 2014); per decision (Jiang and Li 2016), of a slate cascade-DR (Kiyohara et al.
    2022).

    Difference: the model says what a place earns by itself, and nothing of what follows it.
    """
    return _plain((e.before * e.expected + e.weight * (e.reward - e.predicted)).sum(1))


def switch_dr(e: WeightedEpisodes) -> Sums:
    """SWITCH-DR (Wang et al. 2017): doubly robust, but where a weight is above tau the model is taken at its word."""
    residual = e.weight * (e.weight <= tau_of(e)) * (e.reward - e.predicted)
    return _plain((e.expected + residual).sum(1))


ESTIMATORS: Mapping[str, Callable[[WeightedEpisodes], Sums]] = {
    "dm": direct,
    "ips": ips,
    "clipped-ips": clipped,
    "snips": snips,
    "pdis": pdis,
    "snpdis": snpdis,
    "dr": doubly_robust,
    "switch-dr": switch_dr,
}
"""Name -> estimator. `delta-ips`, of a difference, is `delta_ips`."""


def estimators_for(e: WeightedEpisodes, unit: Unit) -> list[str]:
    """Which of them say something of their own: one decision leaves per-decision ones out; `dm` and `switch-dr` take
    the logged moments for the target's, which of sessions is wrong."""
    out = {"pdis", "snpdis"} if e.weight.shape[1] == 1 else set()
    return [name for name in ESTIMATORS if name not in (out if unit == "slate" else out | {"dm", "switch-dr"})]


def clip_of(e: WeightedEpisodes) -> float:
    """The largest weight that `clipped` lets pass."""
    return float(np.sqrt(len(e.user)))


def tau_of(e: WeightedEpisodes) -> float:
    """The threshold of SWITCH, as Wang et al. choose it: among quantiles of the weights the one of least variance plus
    squared bias, at most the largest residual times the target's mass above it."""
    taus = np.quantile(e.weight[e.held], np.linspace(0.05, 1.0, _TAUS))
    residual = e.reward - e.predicted
    worst = float(np.abs(residual[e.held]).max())

    def risk(tau: float) -> float:
        kept = e.weight <= tau
        total = (e.expected + e.weight * kept * residual).sum(1)
        mass = (e.weight * ~kept * e.held).mean(0).sum()
        return float(total.var() / len(total) + (worst * mass) ** 2)

    return float(min(taus, key=risk))


def delta_ips(a: WeightedEpisodes, b: WeightedEpisodes) -> Sums:
    """Difference of two policies (Jeunen and Ustimenko 2024): mean (w_a - w_b) (r - beta), beta of least variance.

    Its weights are 0 where the policies agree, and their mean is 0, so that beta costs no bias but that of its own fit.
    """
    apart, total = a.last - b.last, a.reward.sum(1)
    spread = float(apart.var())
    beta = float(np.mean((apart * total - (apart * total).mean()) * (apart - apart.mean()))) / spread if spread else 0.0
    return _plain(apart * (total - beta))


def by_users(sums: Sums, user: Ints) -> Sums:
    """Above and below, (E, C), added up to (U, C)."""
    place = sp.csr_matrix((np.ones(len(user)), (user, np.arange(len(user)))), (int(user.max()) + 1, len(user)))
    return np.asarray(place @ sums[0]), np.asarray(place @ sums[1])


def value_of(sums: Sums) -> float:
    """The estimate."""
    return float(_ratios(sums[0].sum(0), sums[1].sum(0)))


def bootstrap(all_sums: Sequence[Sums], seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """Values (resamples, estimates) over the same resampled users for all, so that differences are paired.

    Raises:
        RecloopError: fewer than two users.
    """
    users = len(all_sums[0][0])
    if users < 2:
        raise RecloopError(f"an interval over {users} user(s); at least 2 are needed, evaluate on a wider part")
    stacked = np.concatenate([np.concatenate(sums, axis=1) for sums in all_sums], axis=1)
    rng, found = np.random.default_rng(seed), np.zeros((resamples, len(all_sums)))
    step = max(1, _CHUNK // users)
    for start in range(0, resamples, step):
        some = slice(start, min(start + step, resamples))
        counts = rng.multinomial(users, np.full(users, 1 / users), size=some.stop - start)
        totals, at = counts @ stacked, 0
        for number, (above, _) in enumerate(all_sums):
            c = above.shape[1]
            found[some, number] = _ratios(totals[:, at : at + c], totals[:, at + c : at + 2 * c])
            at += 2 * c
    return found


def percentile(values: Floats) -> tuple[float, float]:
    """The central `LEVEL` of bootstrapped values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bernstein(sums: Sums, largest: float) -> tuple[float, float]:
    """Empirical Bernstein interval (Maurer and Pontil 2009, theorem 4) of a mean of bounded, independent users.

    Args:
        sums: by user, one column.
        largest: bound of what one user adds to the mean; at least 0, as every reward must be.
    """
    users, wrong = len(sums[0]), 1 - LEVEL
    x = sums[0][:, 0] * users / sums[1].sum()
    log = float(np.log(4 / wrong))  # two sides, two halves of each
    half = np.sqrt(2 * x.var(ddof=1) * log / users) + 7 * largest * log / (3 * (users - 1))
    return float(x.mean() - half), float(x.mean() + half)


def _plain(total: Floats) -> Sums:
    return _columns(total), np.ones((len(total), 1))


def _columns(values: Floats) -> Floats:
    return values[:, None]


def _ratios(above: Floats, below: Floats) -> Floats:
    """Sum over the last axis of above / below; nothing where below is 0."""
    found: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0).sum(-1)
    return found
