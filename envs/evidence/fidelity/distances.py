"""How far apart simulated and logged sessions lie in what a person would count: length, popularity, repeats, gaps."""

import numpy as np

from recloop.envs.evidence.fidelity.answers import Findings
from recloop.envs.evidence.fidelity.bootstrap import DRAWS, by_user, interval
from recloop.envs.evidence.fidelity.lanes import Array, Bools, Numbers
from recloop.envs.evidence.fidelity.report import Curve, FidelityLine
from recloop.envs.evidence.fidelity.sessions import Sessions
from recloop.envs.evidence.verdict import Verdict

KS_LIMIT = 0.1
JS_LIMIT = 0.02
FEWEST = 30
"""Values a side below which nothing is compared."""
_BINS = 24
_CHANCE = 3.5
"""Standard deviations above the mean of what two equal sides give, beyond which chance is no excuse."""
_REASONS = {
    "ks": "a tenth of the sessions on the wrong side of some value; beyond it, and what chance gives, it fails",
    "js": "0.02 bits, about a shift by a third of a standard deviation; beyond it, and what chance gives, it fails",
}


def session_lines(
    logged: Sessions, simulated: Sessions, popularity: Array, loop: str, rng: np.random.Generator, found: Findings
) -> None:
    """Add Kolmogorov-Smirnov and Jensen-Shannon distances of sessions to what was found.

    Args:
        logged, simulated: of the same users.
        popularity: float64 (N+1,) how often each item was consumed by the train users.
        loop: `open` or `closed`.
        rng: draws users.
        found: taken on.
    """
    users = int(max(logged.lane.max(initial=0), simulated.lane.max(initial=0))) + 1
    for name, values in _values((logged, simulated), popularity, loop).items():
        if min(len(lane) for lane, _, _ in values) < FEWEST:
            found.unsupported.append(f"{name.replace('_', ' ')}, {loop} loop: fewer than {FEWEST} values on a side.")
            continue
        if len(np.unique(np.concatenate([value for _, value, _ in values]))) == 1:
            found.unsupported.append(f"{name.replace('_', ' ')}, {loop} loop: one value only on both sides.")
            continue
        _compare(name, values, users, loop, rng, found)
    if not (logged.left >= 0).any():
        found.unsupported.append("The log does not say how sessions ended: session length is not compared.")
    if not np.isfinite(logged.days_away).any():
        found.unsupported.append("The log does not hold days between sessions: return gaps are not compared.")
    elif not np.isfinite(simulated.days_away).any():
        found.unsupported.append("The simulator does not say how long users stay away: return gaps are not compared.")


Values = list[tuple[Numbers, Numbers, Numbers]]
"""For each side: the lane (n,), the value (n,), and whether it was seen to its end (n,) 1 or 0."""


def _values(sides: tuple[Sessions, Sessions], popularity: Array, loop: str) -> dict[str, Values]:
    found: dict[str, Values] = {"clicks_a_session": [], "clicks_a_slate": [], "consumed_popularity": [], "repeats": []}
    if (sides[0].left >= 0).any():
        found["session_length"] = [(s.lane, s.length.astype(float), (s.left == 1).astype(float)) for s in sides]
    if all(np.isfinite(side.days_away).any() for side in sides):
        found["return_gaps"] = [_whole(s.lane, s.days_away, np.isfinite(s.days_away)) for s in sides]
    for side in sides:
        clicks = side.clicks.sum(2)  # (M, T)
        shown = np.any(side.given[..., 0], axis=2)
        consumed = side.clicks > 0.5
        lanes = np.broadcast_to(side.lane[:, None, None], consumed.shape)
        found["clicks_a_session"].append(_whole(side.lane, clicks.sum(1), np.ones(len(side), dtype=bool)))
        found["clicks_a_slate"].append(_whole(lanes[..., 0], clicks, shown))
        found["consumed_popularity"].append(_whole(lanes, np.log1p(popularity[side.items]), consumed))
        found["repeats"].append(_repeats(side, side.clicks > 0.5 if loop == "closed" else side.given[..., 0]))
    return found


def _repeats(side: Sessions, counts: Bools) -> tuple[Numbers, Numbers, Numbers]:
    """Of each session with a consumption, the share of it that is of items the user had met before.

    What `counts` (M, T, K) as having met an item is consumption in the closed loop and exposure in the open one: there
    a policy that shows again what was consumed in the log shows it to simulated users who had not consumed it.
    """
    m, step, place = np.nonzero(counts)  # in order of session, hence of user and time
    pairs = side.lane[m] * (int(side.items.max(initial=0)) + 1) + side.items[m, step, place]
    again = np.ones(len(m))
    again[np.unique(pairs, return_index=True)[1]] = 0
    clicks = side.clicks[m, step, place]
    count = np.bincount(m, clicks, len(side))
    share = np.bincount(m, clicks * again, len(side)) / np.maximum(count, 1)
    return _whole(side.lane, share, count > 0)


def _whole(lane: Numbers, value: Numbers, there: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    mine = value[there].astype(float)
    return lane[there], mine, np.ones(len(mine))


def _compare(name: str, values: Values, users: int, loop: str, rng: np.random.Generator, found: Findings) -> None:
    """Distances of the two distribution functions; where an end was not seen, of their Kaplan-Meier estimates."""
    values = _cut_tail(values)
    pooled = np.concatenate([value for _, value, _ in values])
    edges = np.unique(pooled)
    if len(edges) > _BINS:
        edges = np.unique(np.quantile(pooled, np.arange(_BINS) / _BINS))
    sums = np.stack(
        [
            by_user(lane, np.searchsorted(edges, value, "right") - 1, (seen == kind).astype(float), users, len(edges))
            for lane, value, seen in values
            for kind in (1.0, 0.0)
        ],
        axis=1,
    ).reshape(users, 2, 2, len(edges))  # user, side, seen or cut, bin
    swapped = _swapped(sums, rng)
    shares = _shares(sums.sum(0, keepdims=True))[0]
    for kind, distance, limit in (("ks", _ks, KS_LIMIT), ("js", _js, JS_LIMIT)):
        value = interval(sums, distance, rng, centred=True)
        by_chance = distance(swapped)
        chance = float(by_chance.mean() + _CHANCE * by_chance.std())
        verdict = Verdict.cannot_tell
        if value[0] > max(limit, chance):
            verdict = Verdict.failed
        elif value[2] <= limit:
            verdict = Verdict.passed
        found.lines.append(
            FidelityLine(f"{name}_{kind}", loop, *value, f"high <= {limit:.3f}", verdict, _REASONS[kind])
        )
    curve = Curve(f"{name}, {loop} loop", "distribution", *(tuple(map(float, x)) for x in (edges, *shares)))
    found.curves.append(curve)


def _cut_tail(values: Values) -> Values:
    """Where some ends were not seen: all cut where fewer than `FEWEST` of a side are left, what follows is noise."""
    if all(seen.all() for _, _, seen in values):
        return values
    last = min(float(np.sort(value)[-FEWEST]) for _, value, _ in values)
    return [(lane, np.minimum(value, last), seen * (value <= last)) for lane, value, seen in values]


def _swapped(sums: Array, rng: np.random.Generator) -> Array:
    """Totals (R, 2, 2, bins) with the two sides of random users exchanged: what chance gives."""
    keep = rng.integers(2, size=(DRAWS, len(sums))).astype(np.float64)
    mine = np.tensordot(keep, sums, axes=(1, 0))
    others = np.tensordot(1 - keep, sums[:, ::-1], axes=(1, 0))
    totals: Array = mine + others
    return totals


def _shares(totals: Array) -> Array:
    """Share of each value (R, 2, bins) by Kaplan and Meier; a last bin for those seen beyond all others."""
    seen, cut = totals[:, :, 0], totals[:, :, 1]
    risk = np.flip(np.flip(seen + cut, -1).cumsum(-1), -1)
    hazard = np.where(risk > 0, seen / np.maximum(risk, 1e-12), 0.0)
    stay = np.cumprod(1 - hazard, axis=-1)
    before = np.concatenate([np.ones_like(stay[..., :1]), stay[..., :-1]], axis=-1)
    shares: Array = before * hazard
    return shares


def _ks(totals: Array) -> Array:
    cumulative = _shares(totals).cumsum(-1)
    distance: Array = np.abs(cumulative[:, 0] - cumulative[:, 1]).max(-1)
    return distance


def _js(totals: Array) -> Array:
    """In bits; what lies beyond the last value is a value of its own."""
    shares = _shares(totals)
    rest = np.clip(1 - shares.sum(-1, keepdims=True), 0, 1)
    p = np.clip(np.concatenate([shares, rest], axis=-1), 0, 1)
    middle = p.mean(1, keepdims=True)
    ratio = np.where(p > 0, p * np.log2(np.maximum(p, 1e-300) / np.maximum(middle, 1e-300)), 0.0)
    distance: Array = ratio.sum(-1).mean(1)
    return distance
