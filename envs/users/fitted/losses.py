"""What a fit minimises: likelihood of every answer, sampled softmax where nobody knows what was shown, leaving."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.heads import UserParts, slate_summary
from recloop.envs.users.fitted.windows import ConsumedBefore, Windows


@dataclass(frozen=True)
class Trajectory:
    """Users at every step of windows, before its answers.

    Args:
        table: (N+1, d+residual) items as both families read them.
        vectors: (B, T, user_dim).
        users: what the heads read of them, leading dims (B, T).
    """

    table: Tensor
    vectors: Tensor
    users: UserParts


def follow(
    fitted: FittedUsers,
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
    warm = memory.inputs(table, windows.history.unsqueeze(-1), windows.feedback.unsqueeze(-2), shown=False)
    for step in warm.unbind(1):
        state = memory.advance(state, step)
    read = []
    for t, step in enumerate(memory.inputs(table, windows.items, windows.signals, shown=True).unbind(1)):
        state = replace(state, steps=windows.session_step[:, t])
        read.append(memory.read(state))
        state = memory.advance(state, step)
    vectors = torch.stack([vector for vector, _ in read], dim=1)
    if dropout > 0:
        kept = torch.rand(vectors.shape, generator=generator).to(vectors.device) >= dropout
        vectors = vectors * kept / (1 - dropout)
    found = [direct for _, direct in read if direct is not None]
    direct = torch.stack(found, dim=1) if found else None
    return Trajectory(table, vectors, heads.user_parts(vectors, direct))


def step_scores(fitted: FittedUsers, path: Trajectory, windows: Windows, items: Tensor) -> Tensor:
    """Raw scores of items (B, T, C) at each step, (B, T, C, S); positions count where the log has exposures."""
    heads = fitted.heads
    places = torch.arange(items.shape[2], device=items.device) if fitted.sizes.exposures else None
    raw = heads.raw(path.users, heads.item_parts(path.table, items), places)
    repeats = fitted.memory.repeats(windows.recent.flatten(0, 1), windows.shown.flatten(0, 1), items.flatten(0, 1))
    if repeats is not None:
        raw = torch.cat([raw[..., :1] + repeats.view(*items.shape, 1), raw[..., 1:]], dim=-1)
    return raw


def leave_parts(
    fitted: FittedUsers, path: Trajectory, windows: Windows, raw: Tensor, calibrated: bool
) -> tuple[Tensor, Tensor]:
    """Logits of leaving and what happened, of the steps where somebody knows: (n,), (n,)."""
    held = windows.items < fitted.sizes.catalogue_size
    scores = fitted.heads.calibrated(raw) if calibrated else raw
    appeal = torch.sigmoid(scores[..., 0]).detach()
    summary = slate_summary(
        fitted.signals,
        windows.signals,
        windows.given.to(raw.dtype),
        appeal,
        held,
        windows.session_step,
    )
    known = windows.scored & (windows.left >= 0)
    # Few sessions end: they must not bend what the many answers taught the memory.
    logits = fitted.heads.leave_logit(path.vectors[known].detach(), summary[known])
    return logits, windows.left[known].to(raw.dtype)


def sampled_softmax(
    fitted: FittedUsers,
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
    repeats = fitted.memory.repeats(windows.recent.flatten(0, 1), windows.shown.flatten(0, 1), drawn)
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


def answer_losses(fitted: FittedUsers, windows: Windows, raw: Tensor, first: int) -> list[Tensor]:
    """Mean negative log-likelihood of each signal from number `first` on, where any is given."""
    losses = []
    for s in range(first, len(fitted.signals)):
        where = windows.given[..., s] & windows.scored.unsqueeze(-1)
        if bool(where.any()):
            score, value = raw[..., s][where], windows.signals[..., s][where]
            losses.append(-fitted.heads.log_likelihood(s, score, value).mean())
    return losses


def leave_loss(logits: Tensor, left: Tensor) -> Tensor:
    """Mean loss of a discrete-time hazard: cut ends are absent and count as survived up to the step before."""
    return F.binary_cross_entropy_with_logits(logits, left)
