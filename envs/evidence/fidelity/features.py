"""What the classifier sees of a session: features that a person can read."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recloop.envs.evidence.fidelity.lanes import Array, Bools
from recloop.envs.evidence.fidelity.sessions import Sessions
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints

POSITIONS = 10
GROUPS = 8
"""Groups with a feature of their own; the others share one."""
STEPS = (0, 1, 2, 4, 8, 16)
"""Slates of a session are counted together from each of these to the next."""
RECENT = 3
"""Slates back that count as recent exposure."""
EXPOSED = (0, 1, 3, 6, 10)
"""Recent exposures of an item's group are counted together from each of these to the next."""
QUARTERS = 4
_SHRINK = 10.0
"""Places that the overall rate counts as, in the rate of a user or of an item's bucket."""


@dataclass(frozen=True)
class Context:
    """What the features know beside the sessions; neither side's answers are in it.

    Args:
        signals: what an answer carries.
        group: int64 (N+1,) each item's group.
        quality: float64 (N+1,) how often each item was consumed when shown to the train users, 0 at N.
        knows_ends: whether session ends were logged.
    """

    signals: tuple[Signal, ...]
    group: Ints
    quality: Array
    knows_ends: bool


def session_features(logged: Sessions, simulated: Sessions, context: Context) -> tuple[Array, Array, tuple[str, ...]]:
    """Features of each logged (M1, F) and simulated (M2, F) session, and their F names.

    All that concerns clicks is in clicks more than expected, divided by their standard deviation, where the expectation
    is the product of the user's rate and the position's, both over the logged and the simulated sessions together, and
    the item's rate among the train users. So a session is compared with what it had to be for its user and slates.
    """
    both = (logged, simulated)
    chance = _expected(both, context)
    blocks = [_clicks(side, p, context) for side, p in zip(both, chance, strict=True)]
    names = list(blocks[0])
    columns = [[block[name] for name in names] for block in blocks]
    for s, signal in enumerate(context.signals[1:], start=1):
        found = _signal(both, s)
        names += [f"{signal.name}: {what}" for what in found]
        for side in range(2):
            columns[side] += [pair[side] for pair in found.values()]
    if context.knows_ends:
        names += ["the user left", "slates of those who left", "log of slates"]
        for side, sessions in enumerate(both):
            left = (sessions.left == 1).astype(np.float64)
            length = np.log(np.maximum(sessions.length, 1))
            columns[side] += [left, left * length, length]
    gaps = _gaps(both)
    if gaps is not None:
        names += ["days away", "days away, squared"]
        for side in range(2):
            columns[side] += [gaps[side], gaps[side] ** 2]
    first, second = (np.stack(side, axis=1) for side in columns)
    return first, second, tuple(names)


def _expected(both: tuple[Sessions, Sessions], context: Context) -> list[Array]:
    """Chance of a click at each place (M, T, K): user x item x position over the overall rate squared."""
    shown = [side.given[..., 0] for side in both]
    clicks = [side.clicks for side in both]
    total = sum(float(c.sum()) for c in clicks)
    rate = (total + 0.5) / (sum(int(x.sum()) for x in shown) + 1)
    lanes = int(max(side.lane.max(initial=0) for side in both)) + 1
    user_clicks, user_shown = np.zeros(lanes), np.zeros(lanes)
    k = both[0].items.shape[2]
    place_clicks, place_shown = np.zeros(k), np.zeros(k)
    quality = context.quality / max(float(np.mean(context.quality[:-1])), 1e-9)
    for side, there, click in zip(both, shown, clicks, strict=True):
        weight = quality[side.items] * there
        user_clicks += np.bincount(side.lane, click.sum((1, 2)), lanes)
        user_shown += np.bincount(side.lane, weight.sum((1, 2)), lanes)
        place_clicks += click.sum((0, 1))
        place_shown += there.sum((0, 1))
    user = (user_clicks + _SHRINK * rate) / (user_shown + _SHRINK)
    place = (place_clicks + _SHRINK * rate) / (place_shown + _SHRINK) / rate
    return [np.clip(user[side.lane][:, None, None] * quality[side.items] * place, 0.004, 0.96) for side in both]


def _clicks(side: Sessions, chance: Array, context: Context) -> dict[str, Array]:
    """Excess clicks by what a place is."""
    there = side.given[..., 0]
    excess = np.where(there, side.clicks - chance, 0.0)  # (M, T, K)
    noise = np.where(there, chance * (1 - chance), 0.0)
    t, k = side.items.shape[1:]

    def over(mask: Bools) -> Array:
        return _ratio((excess * mask).sum((1, 2)), (noise * mask).sum((1, 2)))

    found = {"clicks": over(there)}
    step = np.broadcast_to(np.arange(t)[None, :, None], there.shape)
    position = np.broadcast_to(np.arange(k), there.shape)
    group = context.group[side.items]
    for p in range(min(k, POSITIONS)) if k > 1 else ():
        found[f"clicks at position {p + 1}"] = over(position == p)
    found["clicks lower down"] = _ratio(*_along(excess, noise, position))
    found["clicks later"] = _ratio(*_along(excess, noise, step))
    for name, low, high in _ranges(STEPS):
        found[f"clicks at slates {name} before"] = over((step >= low) & (step < high))
    for g in _largest(context.group):
        found[f"clicks on group {g}"] = over(group == g)
    edges = np.quantile(context.quality[:-1], np.arange(1, QUARTERS) / QUARTERS)
    quarter = np.searchsorted(edges, context.quality[side.items])
    for q in range(QUARTERS):
        found[f"clicks on items of quality {q + 1} of {QUARTERS}"] = over(quarter == q)
    exposed, clicked = _recent(side, group, context)
    for name, low, high in _ranges(EXPOSED):
        found[f"clicks, group shown {name} times of late"] = over((exposed >= low) & (exposed < high))
    found["clicks, group clicked of late"] = over(clicked > 0)
    found["clicks on items shown before"] = over(_again(side))
    above = np.cumsum(side.clicks, axis=2) - side.clicks
    found["clicks below a click"] = over(above > 0)
    slate, slate_noise = excess.sum(2), noise.sum(2)  # (M, T)
    found["clicks go with the last slate's"] = _ratio(
        (slate[:, 1:] * slate[:, :-1]).sum(1), (slate_noise[:, 1:] * slate_noise[:, :-1]).sum(1)
    )
    clump = slate**2 - (excess**2).sum(2)
    pairs = slate_noise**2 - (noise**2).sum(2)
    found["clicks of a slate go together"] = _ratio(clump.sum(1), 2 * pairs.sum(1))
    found["taste of earlier sessions"] = _taste(side, excess, noise, group)
    return found


def _along(excess: Array, noise: Array, number: Ints) -> tuple[Array, Array]:
    """Excess and variance (M,) of clicks weighted by how far a number of their place lies above the session's mean."""
    mean = (noise * number).sum((1, 2), keepdims=True) / np.maximum(noise.sum((1, 2), keepdims=True), 1e-9)
    weight = number - mean
    return (excess * weight).sum((1, 2)), (noise * weight**2).sum((1, 2))


def _recent(side: Sessions, group: Ints, context: Context) -> tuple[Array, Array]:
    """How often each place's group was shown, and clicked, in the `RECENT` slates before: (M, T, K) twice."""
    m, t = side.items.shape[:2]
    kinds = int(context.group.max()) + 1
    shown, clicked = np.zeros((m, t, kinds), dtype=np.float32), np.zeros((m, t, kinds), dtype=np.float32)
    rows, steps = np.arange(m)[:, None, None], np.arange(t)[None, :, None]
    np.add.at(shown, (rows, steps, group), side.given[..., 0].astype(np.float32))
    np.add.at(clicked, (rows, steps, group), side.clicks)
    return _window(shown)[rows, steps, group], _window(clicked)[rows, steps, group]


def _window(counts: npt.NDArray[np.float32]) -> Array:
    """Sums over the `RECENT` steps before each step of (M, T, G)."""
    total = np.concatenate([np.zeros_like(counts[:, :1]), counts.cumsum(1)], axis=1)  # (M, T+1, G)
    until = np.arange(counts.shape[1])
    summed: Array = total[:, until] - total[:, np.maximum(until - RECENT, 0)]
    return summed


def _again(side: Sessions) -> Bools:
    """bool (M, T, K): the item was shown earlier in the session."""
    m, t, k = side.items.shape
    flat = side.items.reshape(m, t * k)
    order = np.argsort(flat, axis=1, kind="stable")
    ordered = np.take_along_axis(flat, order, axis=1)
    same = np.zeros_like(flat, dtype=bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    again = np.zeros_like(same)
    np.put_along_axis(again, order, same, axis=1)
    return again.reshape(m, t, k)


def _taste(side: Sessions, excess: Array, noise: Array, group: Ints) -> Array:
    """Excess clicks (M,) on the groups whose clicks the same user's earlier sessions, on the same side, exceeded."""
    kinds = int(group.max(initial=0)) + 1
    by_group = np.zeros((len(side), kinds))
    rows = np.broadcast_to(np.arange(len(side))[:, None, None], group.shape)
    np.add.at(by_group, (rows, group), excess)
    total = by_group.cumsum(0) - by_group
    first = np.searchsorted(side.lane, side.lane)  # sessions are in order of lane
    before = total - total[first]  # (M, kinds)
    liked = np.take_along_axis(before, group.reshape(len(side), -1), axis=1).reshape(group.shape)
    return _ratio((excess * liked).sum((1, 2)), (noise * liked**2).sum((1, 2)))


def _signal(both: tuple[Sessions, Sessions], s: int) -> dict[str, tuple[Array, Array]]:
    """Level, spread and number of a further signal's values, in standard deviations of both sides together."""
    given = [side.given[..., s] for side in both]
    values = [side.answers[..., s] for side in both]
    pooled = np.concatenate([v[g] for v, g in zip(values, given, strict=True)])
    mean, spread = (float(pooled.mean()), float(pooled.std())) if len(pooled) else (0.0, 1.0)
    found: dict[str, list[Array]] = {"level": [], "spread": [], "times given": []}
    for side, there, value in zip(both, given, values, strict=True):
        z = np.where(there, (value - mean) / max(spread, 1e-6), 0.0)
        number = there.sum((1, 2)).astype(np.float64)
        found["level"].append(_ratio(z.sum((1, 2)), number))
        found["spread"].append(_ratio((z**2 - there).sum((1, 2)), number))
        consumed = np.maximum(side.clicks.sum((1, 2)), 1)
        found["times given"].append(number / consumed)
    return {name: (first, second) for name, (first, second) in found.items()}


def _gaps(both: tuple[Sessions, Sessions]) -> tuple[Array, Array] | None:
    """Days away in standard deviations, 0 where not known; None where a side does not know any."""
    if any(not np.isfinite(side.days_away).any() for side in both):
        return None
    log_days = [np.log1p(np.maximum(side.days_away, 0)) for side in both]
    pooled = np.concatenate(log_days)
    mean, spread = float(np.nanmean(pooled)), max(float(np.nanstd(pooled)), 1e-6)
    first, second = (np.nan_to_num((days - mean) / spread).astype(np.float64) for days in log_days)
    return first, second


def _ratio(excess: Array, variance: Array) -> Array:
    """Excess in standard deviations; 0 where nothing could have happened."""
    ratio: Array = np.where(variance > 1e-9, excess / np.sqrt(np.maximum(variance, 1e-9)), 0.0)
    return ratio


def _ranges(starts: tuple[int, ...]) -> list[tuple[str, int, int]]:
    """(words, from, below) of counts that are taken together."""
    ends = (*starts[1:], 1 << 30)
    named = []
    for low, below in zip(starts, ends, strict=True):
        words = f"{low} or more" if below == ends[-1] else f"{low}" if below == low + 1 else f"{low}-{below - 1}"
        named.append((words, low, below))
    return named


def _largest(group: Ints) -> Ints:
    """The groups with most items."""
    return np.argsort(-np.bincount(group[:-1]), kind="stable")[:GROUPS].astype(np.int64)
