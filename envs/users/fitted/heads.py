"""Factorised heads over a user part and a tabled item part: one calibrated head a signal, and one for leaving."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.errors import UserSimulatorError, unknown_name
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.schema import Signal
from recloop.envs.users.fitted import distributions
from recloop.envs.users.fitted.layers import linear, start_weights

CONSUME = "consume"
"""Purpose of the draw that decides on consumption; other signals draw under their own names."""


SPENT = 6
"""Numbers that are added up over what is consumed in a session."""
SUMS = SPENT + 3
"""These, and how much was taken, refused, and slates with a take: what is kept of a session."""
SESSION = SPENT + 4
"""Numbers that leaving reads of a session: these, and its counts of takes and refusals."""
ENDED = 16
"""Units of the hidden layer of leaving."""


@dataclass(frozen=True)
class UserParts:
    """What the heads read of users, leading dims (...).

    Args:
        want: (..., D0) for consumption.
        other: (..., S-1, r) for the other signals.
        bias: (..., S).
    """

    want: Tensor
    other: Tensor
    bias: Tensor


@dataclass(frozen=True)
class ItemParts:
    """What the heads read of items, leading dims (...); in the loop a table by item row, (N+1, ...)."""

    want: Tensor
    other: Tensor
    bias: Tensor

    def at(self, items: Tensor) -> "ItemParts":
        """Of the items alone (...)."""
        return ItemParts(self.want[items], self.other[items], self.bias[items])


class AnswerHeads(nn.Module):
    """From scores to answers: calibration, the distribution of every signal, and the order in which they are drawn.

    The calibrated score is `scale * raw + shift`. Consumption comes first.

    Args:
        signals: S signals; the first is the binary consumption.
        catalogue_size: N.

    Raises:
        UserSimulatorError: a signal given on one that is not there or not binary, or on itself.
    """

    scale: Tensor
    shift: Tensor
    leave_scale: Tensor
    leave_shift: Tensor
    one_at_most: Tensor
    """Whether a slate is a choice of one item or none (multinomial); else every place is a choice of its own."""

    def __init__(self, signals: Sequence[Signal], catalogue_size: int) -> None:
        super().__init__()
        self.signals = tuple(signals)
        self.order = drawing_order(self.signals)
        self.catalogue_size = catalogue_size
        self.shapes = nn.ParameterList(
            nn.Parameter(torch.zeros(distributions.shape_size(signal))) for signal in self.signals
        )
        self.gap_spread = nn.Parameter(torch.zeros(()))
        self.register_buffer("scale", torch.ones(len(self.signals)))
        self.register_buffer("shift", torch.zeros(len(self.signals)))
        self.register_buffer("leave_scale", torch.ones(()))
        self.register_buffer("leave_shift", torch.zeros(()))
        self.register_buffer("one_at_most", torch.zeros((), dtype=torch.bool))

    def calibrated(self, raw: Tensor) -> Tensor:
        """Scores (..., S) on which probabilities are read."""
        return raw * self.scale + self.shift

    def log_likelihood(self, signal: int, score: Tensor, values: Tensor) -> Tensor:
        """Of values given calibrated scores of one signal, elementwise, in nats."""
        return distributions.log_likelihood(self.signals[signal], score, self.shapes[signal], values)

    def means(self, scores: Tensor, held: Tensor | None = None) -> Tensor:
        """Expected values where given, of slates (..., K, S) -> (..., K, S); `held` (..., K) has an item there."""
        means = [distributions.mean(signal, scores[..., s], self.shapes[s]) for s, signal in enumerate(self.signals)]
        if bool(self.one_at_most):
            means[0] = chosen(scores[..., 0], held)
        return torch.stack(means, dim=-1)

    def sample(
        self, scores: Tensor, slate: Tensor, draw: Draw, consumed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Answers to a slate (B, K) by its items' luck: signals (B, K, S), and where they are given.

        `consumed` float (B, K) is what was drawn already; default: drawn here.
        """
        held = slate < self.catalogue_size
        given = [held] * len(self.signals)
        values = [torch.zeros_like(scores[..., 0])] * len(self.signals)
        for s, parent in self.order:
            signal = self.signals[s]
            if parent is not None:
                given[s] = given[parent] & (values[parent] > 0.5)
            if s == 0:
                value = self.consumption(scores[..., 0], slate, draw) if consumed is None else consumed
            else:
                value = distributions.sample(signal, scores[..., s], self.shapes[s], draw.uniform(signal.name, slate))
            values[s] = torch.where(given[s], value, 0.0)
        return torch.stack(values, dim=-1), torch.stack(given, dim=-1)

    def consumption(self, score: Tensor, slate: Tensor, draw: Draw) -> Tensor:
        """What is consumed of a slate (B, K) at calibrated scores (B, K): 1 or 0, (B, K)."""
        if bool(self.one_at_most):
            return one_of(score, slate < self.catalogue_size, draw, slate)
        return distributions.sample(self.signals[0], score, self.shapes[0], draw.uniform(CONSUME, slate))

    def presence(self, means: Tensor) -> Tensor:
        """Probability that each signal exists at a held place: (..., S) expected values -> (..., S)."""
        chance = [torch.ones_like(means[..., 0])] * len(self.signals)
        for s, parent in self.order:
            if parent is not None:
                chance[s] = chance[parent] * means[..., parent]
        return torch.stack(chance, dim=-1)


class Heads(AnswerHeads):
    """From a user's vector and an item to every signal's distribution.

    The raw score of signal s at place k is user . item + item bias + user bias + position bias; the calibrated one is
    `scale * raw + shift`. Consumption comes first. The position bias belongs to signals that exist at every shown
    place; the first place has none.

    Args:
        signals: S signals; the first is the binary consumption.
        catalogue_size: N.
        item_dim: d, length of the item vectors.
        user_dim: length of the user's vector.
        rank: r, length of the user and item part of each head.
        residual: length of what is learned of each item beside its vector.
        positions: places with a bias of their own; 1 where the log has no positions.
        direct: whether users bring a vector in item space (..., d) that meets the item vectors as they are.

    Raises:
        UserSimulatorError: a signal given on one that is not there or not binary, or on itself.
    """

    offset: Tensor

    def __init__(
        self,
        signals: Sequence[Signal],
        catalogue_size: int,
        item_dim: int,
        user_dim: int,
        *,
        rank: int,
        residual: int,
        positions: int = 1,
        direct: bool = False,
    ) -> None:
        super().__init__(signals, catalogue_size)
        self.rank, self.direct, self.item_dim = rank, direct, item_dim
        s = len(self.signals)
        self.residual = nn.Parameter(torch.zeros(catalogue_size + 1, residual))
        self.item_bias = nn.Parameter(torch.zeros(catalogue_size + 1, s))
        self.position = nn.Parameter(torch.zeros(max(positions - 1, 0), s))
        self.of_items = linear(item_dim + residual, s * rank, bias=False)
        self.of_users = linear(user_dim, s * rank)
        self.user_bias = linear(user_dim, s)
        self.spent = linear(item_dim + residual, SPENT, bias=False)
        ended = user_dim + summary_size(self.signals) + SESSION
        self.ended = linear(ended, ENDED)
        self.leave = linear(ended + ENDED, 1)
        self.gap = linear(ended + ENDED, 1)
        # log(popularity + 1) less the assumed exposure, where consumption was learned without exposures.
        self.register_buffer("offset", torch.zeros(catalogue_size + 1))

    def items(self, item_vectors: Tensor) -> Tensor:
        """Items as both families read them: vectors (N+1, d) with the learned residual, (N+1, d+residual)."""
        return torch.cat([item_vectors, self.residual], dim=1)

    def item_parts(self, table: Tensor, items: Tensor) -> ItemParts:
        """The parts of the items alone (...), from the table of `items()`."""
        rows = F.embedding(items, table)
        parts = self.of_items(rows).unflatten(-1, (len(self.signals), self.rank))  # (..., S, r)
        want = parts[..., 0, :]
        if self.direct:
            want = torch.cat([want, rows[..., : self.item_dim]], dim=-1)
        bias = F.embedding(items, self.item_bias)
        bias = torch.cat([bias[..., :1] + self.offset[items].unsqueeze(-1), bias[..., 1:]], dim=-1)
        return ItemParts(want, parts[..., 1:, :], bias)

    def user_parts(self, vector: Tensor, direct: Tensor | None = None) -> UserParts:
        """The parts of users from their vectors (..., user_dim) and, in item space, `direct` (..., d)."""
        parts = self.of_users(vector).unflatten(-1, (len(self.signals), self.rank))
        want = parts[..., 0, :]
        if direct is not None:
            want = torch.cat([want, direct], dim=-1)
        return UserParts(want, parts[..., 1:, :], self.user_bias(vector))

    def raw(self, user: UserParts, item: ItemParts, places: Tensor | None = None) -> Tensor:
        """Uncalibrated scores: users (...), items (..., K), positions (K,) or none -> (..., K, S)."""
        want = (item.want @ user.want.unsqueeze(-1)).squeeze(-1)  # (..., K)
        other = (item.other * user.other.unsqueeze(-3)).sum(-1)  # (..., K, S-1)
        scores = torch.cat([want.unsqueeze(-1), other], dim=-1) + item.bias + user.bias.unsqueeze(-2)
        return scores if places is None else scores + self.position_bias(places)

    def position_bias(self, places: Tensor) -> Tensor:
        """Of positions (K,) from 0 -> (K, S); places below the last one of the log share its bias."""
        everywhere = self.position.new_tensor([float(s.given_on is None) for s in self.signals])
        first = self.position.new_zeros(1, len(self.signals))
        table = torch.cat([first, self.position], dim=0) * everywhere
        return table[places.clamp(max=len(table) - 1)]

    def spent_of(self, table: Tensor) -> Tensor:
        """What consuming each item adds to a session, (N+1, SPENT), from the table of `items()`; nothing for N."""
        found = self.spent(table)
        return torch.cat([found[:-1], torch.zeros_like(found[:1])])

    def read_ended(self, vector: Tensor, summary: Tensor, session: Tensor) -> Tensor:
        """What leaving and staying away depend on, (..., e): users' vectors (..., user_dim), summaries of the slate,
        and the session's sums with this slate in them, through a hidden layer and past it."""
        taken, refused, hits = session[..., SPENT:].unbind(-1)
        counts = [torch.log1p(taken), torch.log1p(refused), torch.log1p(hits), taken / (taken + refused).clamp_min(1)]
        told = torch.cat([vector, summary, session[..., :SPENT], torch.stack(counts, dim=-1)], dim=-1)
        return torch.cat([told, F.relu(self.ended(told))], dim=-1)

    def leave_logit(self, ended: Tensor) -> Tensor:
        """Uncalibrated logit of leaving, from what `read_ended` gave: (..., e) -> (...)."""
        logit: Tensor = self.leave(ended)
        return logit.squeeze(-1)

    def leave_chance(self, ended: Tensor) -> Tensor:
        """Calibrated probability of leaving, (...)."""
        return torch.sigmoid(self.leave_logit(ended) * self.leave_scale + self.leave_shift)

    def gap_mean(self, ended: Tensor) -> Tensor:
        """Mean of log(1 + days away) of those who leave after this slate, (...)."""
        mean: Tensor = self.gap(ended)
        return mean.squeeze(-1)

    def days_away(self, ended: Tensor, draw: Draw) -> Tensor:
        """Days until the next session of those who leave now, (B,): log-normal after adding a day."""
        spread = F.softplus(self.gap_spread)
        return torch.expm1(self.gap_mean(ended) + spread * draw.normal("days away")).clamp_min(0)


def chosen(scores: Tensor, held: Tensor | None = None) -> Tensor:
    """Probability of each place (..., K) in a choice among the held places and none (McFadden 1974)."""
    if held is not None:
        scores = scores.masked_fill(~held, -torch.inf)
    return torch.softmax(F.pad(scores, (0, 1)), dim=-1)[..., :-1]


def one_of(scores: Tensor, held: Tensor, draw: Draw, slate: Tensor) -> Tensor:
    """1 at the place chosen, by Gumbel noise that belongs to the items; nothing may be chosen. (B, K)."""
    noisy = (scores + draw.gumbel(CONSUME, slate)).masked_fill(~held, -torch.inf)
    none = draw.gumbel("consume nothing")
    best = noisy.max(1)
    places = torch.arange(slate.shape[1], device=slate.device)
    wins = (best.values > none).unsqueeze(1) & (places == best.indices.unsqueeze(1))
    return wins.to(scores.dtype)


def drawing_order(signals: Sequence[Signal]) -> tuple[tuple[int, int | None], ...]:
    """Signals with the one each is given on, parents first, as places: ((signal, parent or None), ...)."""
    places = {signal.name: s for s, signal in enumerate(signals)}
    for signal in signals:
        if signal.given_on is not None and signal.given_on not in places:
            raise UserSimulatorError(
                f"signal '{signal.name}' is given on an unknown one: {unknown_name('signal', signal.given_on, places)}"
            )
        if signal.given_on is not None and signals[places[signal.given_on]].kind != "binary":
            raise UserSimulatorError(
                f"signal '{signal.name}' is given on '{signal.given_on}', which is not binary; "
                "only a binary signal has positives"
            )
    order: list[tuple[int, int | None]] = []
    done: set[str | None] = {None}
    waiting = list(signals)
    while waiting:
        ready = [signal for signal in waiting if signal.given_on in done]
        if not ready:
            names = ", ".join(signal.name for signal in waiting)
            raise UserSimulatorError(f"the signals {names} are given on each other in a circle; break it")
        for signal in ready:
            parent = None if signal.given_on is None else places[signal.given_on]
            order.append((places[signal.name], parent))
            done.add(signal.name)
            waiting.remove(signal)
    return tuple(order)


def centred(signals: Sequence[Signal], values: Tensor) -> Tensor:
    """Signals (..., S) as logged -> [-1, 1]; 0 where not given (a 0 outside a signal's bounds)."""
    low = values.new_tensor([s.bounds[0] for s in signals])
    high = values.new_tensor([s.bounds[1] for s in signals])
    scaled = 2 * (values.clamp(low, high) - low) / (high - low) - 1
    return scaled.masked_fill((values == 0) & ((low > 0) | (high < 0)), 0.0)


def session_step(spent: Tensor, taken: Tensor, held: Tensor) -> Tensor:
    """What a slate adds to its session, (..., SPENT + 3): over what was consumed; takes, refusals, any take.

    Args:
        spent: (..., K, SPENT) of its items.
        taken: (..., K) what was consumed, or its probability.
        held: bool (..., K) where there is an item.
    """
    taken = taken * held
    counts = torch.stack([taken.sum(-1), (held - taken).sum(-1), taken.amax(-1)], dim=-1)
    return torch.cat([(spent * taken.unsqueeze(-1)).sum(-2), counts], dim=-1)


def summary_size(signals: Sequence[Signal]) -> int:
    """Length of what the leaving head reads of a slate."""
    return len(signals) + 5


def slate_summary(
    signals: Sequence[Signal],
    values: Tensor,
    presence: Tensor,
    appeal: Tensor,
    held: Tensor,
    steps: Tensor,
    consumed: Tensor | None = None,
) -> Tensor:
    """What the leaving head reads of a slate, leading dims (...).

    Args:
        values: (..., K, S) answers, drawn or expected.
        presence: (..., K, S) where they are given, 0 to 1.
        appeal: (..., K) probability of consumption before drawing.
        held: bool (..., K) where the slate has an item.
        steps: (...) slates answered in this session before this one.
        consumed: (...) probability that anything was consumed; by default read off `values`.

    Returns:
        (..., S+5): mean answers in [0, 1], whether anything was consumed, mean and highest appeal, and two
        readings of `steps`.
    """
    mask = held.to(values.dtype)
    size = mask.sum(-1, keepdim=True).clamp_min(1)
    unit = torch.stack([distributions.unit_scale(s, values[..., i]) for i, s in enumerate(signals)], dim=-1)
    answers = (unit * presence * mask.unsqueeze(-1)).sum(-2) / size  # (..., S)
    if consumed is None:
        consumed = ((values[..., 0] > 0.5) & held).any(-1).to(values.dtype)
    wanted = appeal * mask
    readings = [consumed, wanted.sum(-1) / size.squeeze(-1), wanted.amax(-1), torch.log1p(steps), 1 / (1 + steps)]
    return torch.cat([answers, torch.stack(readings, dim=-1)], dim=-1)


def start_heads(heads: Heads, generator: torch.Generator) -> None:
    """As `start_weights`; item and position biases start at zero, residuals near it."""
    start_weights(heads, generator)
    with torch.no_grad():
        heads.item_bias.zero_()
        heads.position.zero_()
        heads.user_bias.weight.zero_()
        heads.leave.weight.zero_()
        heads.gap.weight.zero_()
        heads.residual.copy_(torch.randn(heads.residual.shape, generator=generator) * 0.1)
        heads.residual[-1].zero_()
