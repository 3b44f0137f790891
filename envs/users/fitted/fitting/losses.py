"""What a fit minimises: likelihood of every answer, sampled softmax where nobody knows what was shown, leaving."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.logs.walk import ConsumedBefore
from recloop.envs.users.fitted.fitting.windows import Windows
from recloop.envs.users.fitted.heads import UserParts, session_step, slate_summary
from recloop.envs.users.fitted.inputs.slate_context import Reading
from recloop.envs.users.fitted.neural import NeuralUsers


@dataclass(frozen=True)
class Trajectory:
    """Users at every step of windows, before its answers.

    Args:
        table: (N+1, d+residual) items as both families read them.
        reading: what is read of them, leading dims (B, T).
        users: what the heads make of it, leading dims (B, T).
    """

    table: Tensor
    reading: Reading
    users: UserParts


def follow(
    fitted: NeuralUsers,
    item_vectors: Tensor,
    profile: Tensor,
    windows: Windows,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Trajectory:
    """Warm users by their history and walk them through the windows; profile is (U, p)."""
    memory, heads = fitted.memory, fitted.heads
    table = heads.items(item_vectors)
    state = memory.blank(profile[windows.users])
    history = windows.history.unsqueeze(-1)
    rows = F.embedding(history, memory.columns(table))
    warm = memory.inputs(rows, history, windows.feedback.unsqueeze(-2), shown=False)
    for step in warm.unbind(1):
        state = memory.advance(state, step)
    read = []
    rows = F.embedding(windows.items, memory.columns(table))
    for t, step in enumerate(memory.inputs(rows, windows.items, windows.signals, shown=True).unbind(1)):
        state = memory.at(state, windows.session_step[:, t])
        read.append(memory.read(state))
        state = memory.advance(state, step)
    reading = Reading(*(_stacked(read, name) for name in ("vector", "direct", "groups")))  # type: ignore[arg-type]
    if windows.past is not None:
        reading = memory.recall(reading, windows.past, memory.columns(table))
    if dropout > 0:
        kept = torch.rand(reading.vector.shape, generator=generator).to(table.device) >= dropout
        reading = replace(reading, vector=reading.vector * kept / (1 - dropout))
    return Trajectory(table, reading, heads.user_parts(reading.vector, reading.direct))


def _stacked(readings: list[Reading], name: str) -> Tensor | None:
    """One field of the readings of T steps, (B, T, ...)."""
    found = [getattr(reading, name) for reading in readings]
    return None if found[0] is None else torch.stack(found, dim=1)


def step_scores(fitted: NeuralUsers, path: Trajectory, windows: Windows, items: Tensor, heard: bool = True) -> Tensor:
    """Raw scores of items (B, T, C) at each step, (B, T, C, S); positions count where the log has exposures.

    With `heard`, each place knows the logged answers of those above it.
    """
    heads = fitted.heads
    places = torch.arange(items.shape[2], device=items.device) if fitted.sizes.exposures else None
    raw = heads.raw(path.users, heads.item_parts(path.table, items), places)
    if fitted.context is not None:
        characters = fitted.context.characters(path.table, heads.item_bias)
        slate = fitted.context.look_at(path.reading, characters, items)
        raw = raw + fitted.context.answered(slate, windows.signals[..., 0] if heard else torch.zeros_like(raw[..., 0]))
    repeats = _repeats(fitted, windows, items.flatten(0, 1))
    if repeats is not None:
        raw = torch.cat([raw[..., :1] + repeats.view(*items.shape, 1), raw[..., 1:]], dim=-1)
    return raw


def _repeats(fitted: NeuralUsers, windows: Windows, items: Tensor) -> Tensor | None:
    """What the family adds because items are not new: items (B*T, C) or (C,) -> (B*T, C)."""
    if windows.past is None:
        return None
    return fitted.memory.repeats(windows.past.history.flatten(0, 1), windows.past.shown.flatten(0, 1), items)


def leave_parts(
    fitted: NeuralUsers, path: Trajectory, windows: Windows, raw: Tensor, calibrated: bool
) -> tuple[Tensor, Tensor]:
    """Logits of leaving and what happened, of the steps where somebody knows: (n,), (n,)."""
    held = windows.items < fitted.sizes.catalogue_size
    scores = fitted.heads.calibrated(raw) if calibrated else raw
    appeal = fitted.heads.means(scores, held)[..., 0].detach()
    summary = slate_summary(
        fitted.signals,
        windows.signals,
        windows.given.to(raw.dtype),
        appeal,
        held,
        windows.session_step,
    )
    known = windows.scored & (windows.left >= 0)
    ended = fitted.heads.read_ended(
        _gently(path.reading.vector[known]), summary[known], _session(fitted, path, windows)[known]
    )
    logits = fitted.heads.leave_logit(ended)
    return logits, windows.left[known].to(raw.dtype)


def _session(fitted: NeuralUsers, path: Trajectory, windows: Windows) -> Tensor:
    """Sums of each step's session with the step in them, (B, T, q), as far as the window goes back."""
    spent = F.embedding(windows.items, fitted.heads.spent_of(path.table.detach()))
    held = (windows.items < fitted.sizes.catalogue_size).to(spent.dtype)
    total = session_step(spent, windows.signals[..., 0], held).cumsum(1)
    total = F.pad(total, (0, 0, 1, 0))  # (B, T+1, q)
    steps = torch.arange(windows.items.shape[1], device=spent.device)
    first = (steps - windows.session_step.long()).clamp_min(0)  # (B, T) the step that opened the session
    return total[:, 1:] - total.gather(1, first.unsqueeze(2).expand(-1, -1, total.shape[2]))


def _gently(vectors: Tensor) -> Tensor:
    """The same numbers, a tenth of the gradient: few sessions end, and they must not bend what the many answers
    taught the memory."""
    return vectors.detach() + 0.1 * (vectors - vectors.detach())


def days_loss(fitted: NeuralUsers, path: Trajectory, windows: Windows, raw: Tensor) -> Tensor | None:
    """Mean Gaussian loss of log(1 + days away) where sessions ended and the user came back; None where none did."""
    known = windows.scored & torch.isfinite(windows.days_away)
    if not bool(known.any()):
        return None
    held = windows.items < fitted.sizes.catalogue_size
    appeal = fitted.heads.means(raw, held)[..., 0].detach()
    given = windows.given.to(raw.dtype)
    summary = slate_summary(fitted.signals, windows.signals, given, appeal, held, windows.session_step)
    ended = fitted.heads.read_ended(
        _gently(path.reading.vector[known]), summary[known], _session(fitted, path, windows)[known]
    )
    mean = fitted.heads.gap_mean(ended)
    spread = F.softplus(fitted.heads.gap_spread)
    return (0.5 * ((torch.log1p(windows.days_away[known]) - mean) / spread) ** 2 + torch.log(spread)).mean()


def sampled_softmax(
    fitted: NeuralUsers,
    path: Trajectory,
    windows: Windows,
    positive: Tensor,
    negatives: Tensor,
    share: Tensor,
    before: ConsumedBefore | None,
) -> Tensor:
    """Loss of each step's consumption against sampled items, (B, T).

    Sampled softmax with the log of the expected count taken off every logit (Bengio and Senecal 2008; the logQ
    correction of Yi et al. 2019), so that the scores estimate log P(item | user) up to a constant.

    Args:
        positive: (B, T) raw score of what was consumed.
        negatives: int64 (M,) drawn with replacement.
        share: (N,) with what probability.
        before: who consumed what before, to leave such items out where nobody consumes twice.
    """
    heads = fitted.heads
    drawn, counts = torch.unique(negatives, return_counts=True)
    parts = heads.item_parts(path.table, drawn)
    logits = path.users.want @ parts.want.T + parts.bias[:, 0]  # (B, T, M)
    repeats = _repeats(fitted, windows, drawn)
    if repeats is not None:
        logits = logits + repeats.view(logits.shape)
    log_share = torch.log(share) + math.log(len(negatives))
    logits = logits - log_share[drawn] + torch.log(counts.to(logits.dtype))
    consumed = windows.items[..., 0]
    struck = consumed.unsqueeze(-1) == drawn
    if before is not None:
        struck = struck | before(windows.users.cpu(), drawn.cpu(), windows.place.cpu()).to(struck.device)
    logits = logits.masked_fill(struck, -torch.inf)
    positive = positive - log_share[consumed.clamp(max=len(share) - 1)]
    return torch.logsumexp(torch.cat([positive.unsqueeze(-1), logits], dim=-1), dim=-1) - positive


def answer_losses(fitted: NeuralUsers, windows: Windows, raw: Tensor, first: int) -> list[Tensor]:
    """Mean negative log-likelihood of each signal from number `first` on, where any is given."""
    losses = []
    for s in range(first, len(fitted.signals)):
        where = windows.given[..., s] & windows.scored.unsqueeze(-1)
        if bool(where.any()):
            score, value = raw[..., s][where], windows.signals[..., s][where]
            weight = windows.weight[where]
            losses.append(-(fitted.heads.log_likelihood(s, score, value) * weight).sum() / weight.sum())
    return losses


def leave_loss(logits: Tensor, left: Tensor) -> Tensor:
    """Mean loss of a discrete-time hazard: cut ends are absent and count as survived up to the step before."""
    return F.binary_cross_entropy_with_logits(logits, left)
