"""The loops of the native step. All of them stand in this file: numba keeps what it compiled by the file a function
stands in, and would go on with old code of another one.

Nothing here is imported before a core steps natively. Lanes are rows of float32 (B, F) and of int64 (B, I), changed in
place; where everything lies in them is told by `Lane`. Without numba the functions are plain ones, and slow.

What another function calls is `inlined`, so that each `compiled` one holds all its code. A call between two would lead
to whichever copy the process met first, the callee's own or the caller's, and these differ in last bits: a process that
compiles would give other weights than one that reads the cache.
"""

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from recloop.envs.simulation.native.packed import Floats, Ints

try:
    import numba

    COMPILES = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
    _OPTIONS: dict[str, Any] = {"cache": True, "fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}
    compiled: Callable[..., Any] = numba.njit(**_OPTIONS)
    inlined: Callable[..., Any] = numba.njit(forceinline=True, **_OPTIONS)
except ImportError:
    COMPILES = False

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is."""
        return function

    inlined = compiled


_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S41 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(41)
_INV_23, _HALF, _TWO_PI = np.float32(1.0 / (1 << 23)), np.float32(0.5), np.float32(2.0 * math.pi)
_POWERS = np.exp2(np.arange(-128, 128)).astype(np.float32)
BLOCK = 16
"""Lanes that go through a layer together: their rows stay in the first cache."""
_ONE, _ZERO, _TINY = np.float32(1.0), np.float32(0.0), np.float32(1e-6)


Lane = namedtuple(
    "Lane",
    "items places signals length slates history shown step words luck users episode feedback answers days hidden "
    "keys values presence consumed patterns mass vector",
)
"""Sizes, and the first columns of what every lane keeps; `words` is -1 where nothing is barred."""


EncoderTables = namedtuple(
    "EncoderTables",
    "out_items pattern_weights relation_rows low high signal signal_bias gate gate_bias pattern_input "
    "pattern_bias weight_ih weight_hh bias_ih bias_hh query query_bias token_key token_value attended "
    "attended_bias norm norm_bias wide wide_bias narrow narrow_bias head head_bias decay heads",
)
"""Tables and weights of a `StateEncoder`, under its names; empty where it has no such part."""


BoredomTables = namedtuple(
    "BoredomTables",
    "topic quality examined fade noise leave leave_bored bored_at topics preference boredom click rating angle left",
)
"""Of `BoredomUsers`: by item, by place, by level, the rules, and the first columns of their state."""


RecurrentTables = namedtuple(
    "RecurrentTables",
    "rows of_users of_users_bias user_bias user_bias_bias positions scale shift thresholds levels order parents "
    "low high purposes weight_ih weight_hh bias_ih bias_hh satisfied unsatisfied number member hidden steps "
    "columns",
)
"""Of one member of recurrent users fitted on consumption, and the first columns of their state. The hidden state and
the profile lie side by side: together they are what the heads read. Every signal but the consumption has levels; a
binary one has two."""


# ---- draws, as in `recloop.envs.interaction.randomness`


@inlined
def _absorb(key: np.uint64, value: np.uint64) -> Any:
    x = (key ^ value) + _GOLDEN
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@inlined
def _unit(bits: np.uint64) -> Any:
    return (np.float32(bits >> _S41) + _HALF) * _INV_23


@inlined
def _lucky(key: np.uint64, purpose: np.uint64, item: int) -> Any:
    return _unit(_absorb(_absorb(key, purpose), np.uint64(item)))


@inlined
def _key_of(ints: Ints, b: int, at: Lane) -> Any:
    return _absorb(np.uint64(ints[b, at.luck]), np.uint64(ints[b, at.step]))


# ---- the step


@compiled
def strike(ints: Ints, slate: Ints, invalid: Ints, at: Lane) -> None:
    """Put N where a place of the slates (B, K) repeats an item or holds a barred one; count the places without item."""
    for b in range(len(slate)):
        invalid[b] = 0
        for k in range(at.places - 1, -1, -1):
            item = slate[b, k]
            struck = item == at.items
            for earlier in range(k):
                struck = struck or slate[b, earlier] == item
            if at.words >= 0 and not struck:
                struck = (ints[b, at.words + (item >> 6)] >> (item & 63)) & 1 != 0
            if struck:
                slate[b, k] = at.items
                invalid[b] += 1


@compiled
def boredom_answers(
    floats: Floats, ints: Ints, slate: Ints, signals: Floats, given: Any, left: Any, at: Lane, t: BoredomTables
) -> None:
    """What `BoredomUsers.respond` does."""
    one, four = np.float32(1.0), np.float32(4.0)
    counts = np.zeros(t.topics + 1, np.int64)
    for b in range(len(slate)):
        key = _key_of(ints, b, at)
        total = np.float32(0.0)
        counts[:] = 0
        for k in range(at.places):
            item = slate[b, k]
            topic = t.topic[item]
            counts[topic] += 1
            liking, appeal = np.float32(0.0), np.float32(0.0)
            if topic < t.topics:
                liking = floats[b, t.preference + topic]
                appeal = liking * t.fade[ints[b, t.boredom + topic]] * t.quality[item]
            total += appeal
            given[b, k, 0] = item < at.items
            clicked = _lucky(key, t.click, item) < appeal * t.examined[k]
            signals[b, k, 0] = one if clicked else np.float32(0.0)
            given[b, k, 1] = clicked
            signals[b, k, 1] = np.float32(0.0)
            if clicked:
                radius = math.sqrt(np.float32(-2.0) * math.log(_lucky(key, t.rating, item)))
                normal = radius * math.cos(_TWO_PI * _lucky(key, t.angle, item))
                rating = np.rint(one + four * (liking * t.quality[item]) + t.noise * normal)
                signals[b, k, 1] = min(max(rating, one), np.float32(5.0))
        missing = one - total / np.float32(at.places)
        left[b] = _unit(_absorb(key, t.left)) < t.leave + t.leave_bored * (missing * missing)
        for topic in range(t.topics):
            change = counts[topic] // t.bored_at - (1 if counts[topic] == 0 else 0)
            level = ints[b, t.boredom + topic] + change
            ints[b, t.boredom + topic] = min(max(level, 0), len(t.fade) - 1)


@compiled
def recurrent_answers(
    floats: Floats, ints: Ints, slate: Ints, signals: Floats, given: Any, left: Any, at: Lane, t: RecurrentTables,
) -> None:  # fmt: skip
    """What `NeuralUsers.respond` does, in the lanes of this member."""
    s, rank, h = at.signals, len(t.of_users_bias) // at.signals, t.weight_hh.shape[1]
    user, bias = np.empty((1, s * rank), np.float32), np.empty((1, s), np.float32)
    reads, hidden = np.zeros((BLOCK, t.weight_ih.shape[1]), np.float32), np.empty((BLOCK, h), np.float32)
    movers, n, vector = np.empty(BLOCK, np.int64), 0, np.empty((1, t.of_users.shape[1]), np.float32)
    for b in range(len(slate)):
        if ints[b, t.member] != t.number:
            continue
        key = _key_of(ints, b, at)
        vector[0] = floats[b, t.hidden : t.hidden + vector.shape[1]]
        _times(t.of_users, t.of_users_bias, vector, user)
        _times(t.user_bias, t.user_bias_bias, vector, bias)
        count, read = 0, reads[n]
        for k in range(at.places):
            item = slate[b, k]
            for place in range(s):
                j = t.order[place]
                parent = t.parents[j]
                held = item < at.items if parent < 0 else given[b, k, parent] and signals[b, k, parent] > _HALF
                given[b, k, j] = held
                signals[b, k, j] = _ZERO
                if not held:
                    continue
                score = t.rows[item, s * rank + j] + bias[0, j] + t.positions[k, j]
                for i in range(rank):
                    score += t.rows[item, j * rank + i] * user[0, j * rank + i]
                score = score * t.scale[j] + t.shift[j]
                luck = _lucky(key, t.purposes[j], item)
                if j == 0:
                    signals[b, k, j] = np.float32(math.log(luck / (_ONE - luck)) < score)
                else:
                    level = 0
                    for i in range(t.thresholds.shape[1]):
                        level += luck < _ONE / (_ONE + math.exp(t.thresholds[j, i] - score))
                    signals[b, k, j] = t.levels[j, level]
            if item < at.items and signals[b, k, 0] > _HALF:
                count += 1
                width = t.rows.shape[1] - t.columns
                for i in range(width):
                    read[i] += t.rows[item, t.columns + i]
                for j in range(s):
                    read[width + j] += _scaled(signals[b, k, j], t.low[j], t.high[j])
        left[b] = _unit(_absorb(key, t.purposes[s])) < (t.satisfied if count else t.unsatisfied)
        floats[b, t.steps] += _ONE
        if count:
            read /= math.sqrt(np.float32(count))
            hidden[n], movers[n] = vector[0, :h], b
            n += 1
        if n == BLOCK:
            n = _settle(floats, movers[:n], hidden[:n], reads, t)
    _settle(floats, movers[:n], hidden[:n], reads, t)


@inlined
def _settle(floats: Floats, movers: Ints, hidden: Floats, reads: Floats, t: RecurrentTables) -> int:
    """Move the hidden states of lanes that wait; 0, how many still do."""
    n, h = hidden.shape
    if n:
        _cell(hidden, reads[:n], t.weight_ih, t.weight_hh, t.bias_ih, t.bias_hh)
        for r in range(n):
            floats[movers[r], t.hidden : t.hidden + h] = hidden[r]
        reads[:n] = _ZERO
    return 0


@inlined
def _scaled(value: np.float32, low: np.float32, high: np.float32) -> Any:
    """A signal in [-1, 1]; 0 where it is not given, a 0 outside its bounds."""
    if value == _ZERO and (low > _ZERO or high < _ZERO):
        return _ZERO
    return np.float32(2.0) * (min(max(value, low), high) - low) / (high - low) - _ONE


@compiled
def follow(
    floats: Floats, ints: Ints, slate: Ints, signals: Floats, given: Any, steps: Floats, at: Lane, e: EncoderTables,
    encodes: bool,
) -> None:  # fmt: skip
    """What answers change: the past grows and the encoder advances in the lanes that consumed anything.

    `steps` (BLOCK, d) is room for what its cell has yet to read.
    """
    movers = np.empty(BLOCK, np.int64)
    items = np.empty(at.places, np.int64)  # what was consumed, where nothing was N
    n = 0
    for b in range(len(slate)):
        count = 0
        for k in range(at.places):
            consumed = given[b, k, 0] and signals[b, k, 0] > _HALF
            items[k] = slate[b, k] if consumed else at.items
            count += consumed
        _remember(floats, ints, b, slate, items, signals, count, at)
        if count and encodes:
            _advance(floats[b], items, signals[b], count, steps[n], at, e)
            movers[n] = b
            n += 1
        if n == BLOCK or (n and b == len(slate) - 1):
            _dense(floats, movers[:n], steps, at, e)
            n = 0


@inlined
def _remember(
    floats: Floats, ints: Ints, b: int, slate: Ints, items: Ints, signals: Floats, count: int, at: Lane
) -> None:
    """As `recloop.envs.interaction.past.remember`, of a slate without repeats."""
    s, k, length = at.signals, at.places, at.length
    if count:
        for place in range(length - count):
            ints[b, at.history + place] = ints[b, at.history + place + count]
        for place in range((length - count) * s):
            floats[b, at.feedback + place] = floats[b, at.feedback + place + count * s]
        place = length - count
        for j in range(k):
            if items[j] < at.items:
                if place >= 0:
                    ints[b, at.history + place] = items[j]
                    for one in range(s):
                        floats[b, at.feedback + place * s + one] = signals[b, j, one]
                if at.words >= 0:
                    ints[b, at.words + (items[j] >> 6)] |= np.int64(1) << (items[j] & 63)
                place += 1
    kept = (at.slates - 1) * k
    for place in range(kept):
        ints[b, at.shown + place] = ints[b, at.shown + place + k]
    for place in range(kept * s):
        floats[b, at.answers + place] = floats[b, at.answers + place + k * s]
    for j in range(k if at.slates else 0):
        ints[b, at.shown + kept + j] = slate[b, j]
        for one in range(s):
            floats[b, at.answers + (kept + j) * s + one] = signals[b, j, one]
    ints[b, at.step] += 1
    floats[b, at.days] = _ZERO


@compiled
def restart(
    floats: Floats, ints: Ints, done: Any, world_f: Floats, world_i: Ints, state_f: Floats, state_i: Ints,
    pool: Ints, lanes: Ints, seed: int, members: int, purposes: Any, at: Lane,
) -> None:  # fmt: skip
    """The next episode of the lanes `done`: as `Core._arrive`, by rows of all users (U, ...) and their states."""
    wide_f, wide_i = world_f.shape[1], world_i.shape[1]
    for b in range(len(done)):
        if not done[b]:
            continue
        ints[b, at.episode] += 1
        key = _absorb(_absorb(_absorb(_GOLDEN, np.uint64(seed)), np.uint64(lanes[b])), np.uint64(ints[b, at.episode]))
        draw = _absorb(key, np.uint64(np.int64(-1)))
        user = pool[abs(np.int64(_absorb(draw, purposes[0])) >> 1) % len(pool)]
        member = min(int(_unit(_absorb(draw, purposes[1])) * np.float32(members)), members - 1)
        row = member * len(world_f) + user
        floats[b, :wide_f], ints[b, :wide_i] = world_f[user], world_i[user]
        floats[b, wide_f : wide_f + state_f.shape[1]] = state_f[row]
        ints[b, wide_i : wide_i + state_i.shape[1]] = state_i[row]
        ints[b, at.users] = user
        ints[b, at.luck] = np.int64(key)


@compiled
def conclude(
    ints: Ints, signals: Floats, given: Any, left: Any, invalid: Ints, late: Any, units: Floats,
    leaving: np.float32, repeats: np.float32, max_steps: int, at: Lane,
) -> Any:  # fmt: skip
    """Who is cut by the time limit; `WeightedReward` without columns and diversity, float32 (B,)."""
    reward = np.empty(len(left), np.float32)
    for b in range(len(left)):
        late[b] = ints[b, at.step] >= max_steps and not left[b]
        total = leaving * np.float32(left[b]) + repeats * np.float32(invalid[b])
        for s in range(len(units)):
            for k in range(signals.shape[1]):
                if given[b, k, s]:
                    total += units[s] * signals[b, k, s]
        reward[b] = total
    return reward


# ---- the state encoder, as in `recloop.encoders.state`


@inlined
def _advance(row: Floats, items: Ints, signals: Floats, count: int, step: Floats, at: Lane, e: EncoderTables) -> None:
    """All sums of `StateEncoder.advance`, and what its cell has yet to read, of one lane."""
    d, m, width = e.out_items.shape[1], e.pattern_weights.shape[1], e.relation_rows.shape[1]
    r, dk, dv = e.token_key.shape[0], e.query.shape[0], e.token_value.shape[1]
    for i in range(r * dk):
        row[at.keys + i] *= e.decay
    for i in range(r * dv):
        row[at.values + i] *= e.decay
    for i in range(r):
        row[at.presence + i] *= e.decay
    for i in range(m * d):
        row[at.patterns + i] *= e.decay
    for i in range(m):
        row[at.mass + i] *= e.decay
    row[at.consumed] += np.float32(count)
    share = _ONE / math.sqrt(np.float32(count))
    for i in range(d):
        step[i] = np.float32(count) * share * e.signal_bias[i]
    for k in range(len(items)):
        item = items[k]
        if item >= at.items:
            continue
        gate = e.gate_bias[0]
        for s in range(at.signals):
            scaled = _scaled(signals[k, s], e.low[s], e.high[s])
            gate += scaled * e.gate[s]
            for i in range(d):
                step[i] += share * scaled * e.signal[i, s]
        weight = _ONE / (_ONE + math.exp(-gate))
        for i in range(d):
            step[i] += share * e.out_items[item, i]
        for p in range(m):
            look = e.pattern_weights[item, p] * weight
            row[at.mass + p] += look
            for i in range(d):
                row[at.patterns + p * d + i] += look * e.out_items[item, i]
        for j in range(r):
            start = j * (dk + dv + 1)
            for i in range(dk if width else 0):
                row[at.keys + j * dk + i] += weight * e.relation_rows[item, start + i]
            for i in range(dv if width else 0):
                row[at.values + j * dv + i] += weight * e.relation_rows[item, start + dk + i]
            row[at.presence + j] += weight * e.relation_rows[item, start + dk + dv]


@inlined
def _exp(x: np.float32) -> Any:
    """e^x within 1e-6 of itself, by arithmetic alone, so that loops over it become vector instructions."""
    x = min(max(x, np.float32(-80.0)), np.float32(80.0))
    whole = np.floor(x * np.float32(1.4426950408889634) + _HALF)
    r = x - whole * np.float32(0.6931471805599453)
    near = np.float32(1.9875691500e-4)
    near = near * r + np.float32(1.3981999507e-3)
    near = near * r + np.float32(8.3334519073e-3)
    near = near * r + np.float32(4.1665795894e-2)
    near = near * r + np.float32(1.6666665459e-1)
    near = near * r + np.float32(5.0000001201e-1)
    return (near * r * r + r + _ONE) * _POWERS[np.int64(whole) + 128]


@inlined
def _sigmoid(x: np.float32) -> Any:
    return _ONE / (_ONE + _exp(-x))


@inlined
def _tanh(x: np.float32) -> Any:
    return np.float32(2.0) / (_ONE + _exp(np.float32(-2.0) * x)) - _ONE


@inlined
def _gelu(x: np.float32) -> Any:
    """x times the normal distribution function, erf within 2e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    z = abs(x) * np.float32(0.7071067811865476)
    t = _ONE / (_ONE + np.float32(0.3275911) * z)
    near = np.float32(1.061405429) * t - np.float32(1.453152027)
    near = (near * t + np.float32(1.421413741)) * t - np.float32(0.284496736)
    tail = _HALF * (near * t + np.float32(0.254829592)) * t * _exp(-z * z)
    return x * (tail if x < _ZERO else _ONE - tail)


@inlined
def _times(matrix: Floats, bias: Floats, x: Floats, out: Floats) -> None:
    """out = x @ matrix.T + bias, rows (n, i) and (n, o); four rows read a weight together."""
    n, width = len(x), matrix.shape[1]
    whole = n - n % 4
    for o in range(matrix.shape[0]):
        for r in range(0, whole, 4):
            a, b, c, d = _ZERO, _ZERO, _ZERO, _ZERO
            for i in range(width):
                weight = matrix[o, i]
                a += weight * x[r, i]
                b += weight * x[r + 1, i]
                c += weight * x[r + 2, i]
                d += weight * x[r + 3, i]
            out[r, o], out[r + 1, o], out[r + 2, o], out[r + 3, o] = a + bias[o], b + bias[o], c + bias[o], d + bias[o]
        for r in range(whole, n):
            a = _ZERO
            for i in range(width):
                a += matrix[o, i] * x[r, i]
            out[r, o] = a + bias[o]


@inlined
def _cell(hidden: Floats, x: Floats, w_ih: Floats, w_hh: Floats, b_ih: Floats, b_hh: Floats) -> None:
    """A GRU cell's next states in place, rows (n, h) and (n, i)."""
    n, h = hidden.shape
    one, two = np.empty((n, 3 * h), np.float32), np.empty((n, 3 * h), np.float32)
    _times(w_ih, b_ih, x, one)
    _times(w_hh, b_hh, hidden, two)
    for r in range(n):
        for i in range(h):
            reset = _sigmoid(one[r, i] + two[r, i])
            kept = _sigmoid(one[r, h + i] + two[r, h + i])
            new = _tanh(one[r, 2 * h + i] + reset * two[r, 2 * h + i])
            hidden[r, i] = new + kept * (hidden[r, i] - new)


@inlined
def _dense(floats: Floats, moved: Ints, steps: Floats, at: Lane, e: EncoderTables) -> None:
    """The cell, the fusion and the head of the lanes `moved`: `StateLayers.cell_input`, the GRU, and `read`."""
    n, d, m, h = len(moved), e.out_items.shape[1], e.pattern_weights.shape[1], e.weight_hh.shape[1]
    read, hidden, found = np.empty((n, d), np.float32), np.empty((n, h), np.float32), np.empty((n, d), np.float32)
    means = np.empty((n, e.pattern_input.shape[1]), np.float32)
    if means.shape[1]:
        for r in range(n):
            row = floats[moved[r]]
            for p in range(m):
                mass = max(row[at.mass + p], _TINY)
                for i in range(d):
                    means[r, p * d + i] = row[at.patterns + p * d + i] / mass
        _times(e.pattern_input, e.pattern_bias, means, read)
    else:
        read[:] = _ZERO
    for r in range(n):
        read[r] += steps[r]
        hidden[r] = floats[moved[r], at.hidden : at.hidden + h]
    _cell(hidden, read, e.weight_ih, e.weight_hh, e.bias_ih, e.bias_hh)
    for r in range(n):
        floats[moved[r], at.hidden : at.hidden + h] = hidden[r]
    if e.query.shape[1]:
        _fuse(floats, moved, hidden, at, e)
    _times(e.head, e.head_bias, hidden, found)
    for r in range(n):
        for i in range(d):
            floats[moved[r], at.vector + i] = _tanh(found[r, i])


@inlined
def _fuse(floats: Floats, moved: Ints, fused: Floats, at: Lane, e: EncoderTables) -> None:
    """`Fusion.forward` of the lanes `moved`, in place of their hidden states (n, h)."""
    n, h = fused.shape
    r, dk, dv = e.token_key.shape[0], e.query.shape[0], e.token_value.shape[1]
    asked, context, logits = np.empty((n, dk), np.float32), np.zeros((n, dv), np.float32), np.empty(r, np.float32)
    more, wide = np.empty((n, h), np.float32), np.empty((n, 2 * h), np.float32)
    _times(e.query, e.query_bias, fused, asked)
    part, told, root = dk // e.heads, dv // e.heads, math.sqrt(np.float32(dk // e.heads))
    for lane in range(n):
        row = floats[moved[lane]]
        for head in range(e.heads):
            highest, spread = np.float32(-1e9), _ZERO
            for j in range(r):
                logits[j] = np.float32(-1e9)
                presence = row[at.presence + j]
                if presence > _ZERO:
                    total = _ZERO
                    for i in range(head * part, (head + 1) * part):
                        key = row[at.keys + j * dk + i] / max(presence, _TINY) + e.token_key[j, i]
                        total += asked[lane, i] * key
                    logits[j] = total / root
                highest = max(highest, logits[j])
            for j in range(r):
                logits[j] = math.exp(logits[j] - highest)
                spread += logits[j]
            for j in range(r):
                presence = row[at.presence + j]
                if presence > _ZERO:
                    for i in range(head * told, (head + 1) * told):
                        value = row[at.values + j * dv + i] / max(presence, _TINY) + e.token_value[j, i]
                        context[lane, i] += logits[j] / spread * value
    _times(e.attended, e.attended_bias, context, more)
    for lane in range(n):
        mean, square = _ZERO, _ZERO
        for i in range(h):
            fused[lane, i] += more[lane, i]
            mean += fused[lane, i]
        mean /= np.float32(h)
        for i in range(h):
            square += (fused[lane, i] - mean) * (fused[lane, i] - mean)
        scale = _ONE / math.sqrt(square / np.float32(h) + np.float32(1e-5))
        for i in range(h):
            more[lane, i] = (fused[lane, i] - mean) * scale * e.norm[i] + e.norm_bias[i]
    _times(e.wide, e.wide_bias, more, wide)
    for lane in range(n):
        for i in range(2 * h):
            wide[lane, i] = _gelu(wide[lane, i])
    _times(e.narrow, e.narrow_bias, wide, more)
    for lane in range(n):
        for i in range(h):
            fused[lane, i] += more[lane, i]
