"""From scores to probabilities one may draw from, on users the weights never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.fit import minimise
from recloop.envs.logs.walk import ConsumedBefore
from recloop.envs.users.fitted import distributions
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.fitting.losses import follow, leave_parts, step_scores
from recloop.envs.users.fitted.fitting.windows import WindowMaker
from recloop.envs.users.fitted.heads import chosen
from recloop.envs.users.fitted.neural import NeuralUsers

NEGATIVES = 10
"""Items drawn from the assumed exposure for each held-out consumption."""
_FEW = 20
"""Answers below which a signal keeps its uncalibrated scores."""
_MOMENTS = 2048
"""At most so many windows are looked at."""


@dataclass(frozen=True)
class Exposure:
    """What a log without exposures is assumed to have shown.

    Args:
        share: (N,) probability of each item, proportional to popularity^beta (counts plus 1).
        base_rate: probability that a shown item is consumed.
        before: who consumed what before, where nobody consumes twice.
    """

    share: Tensor
    base_rate: float
    before: ConsumedBefore | None


@dataclass(frozen=True)
class Scored:
    """Raw scores of held-out answers, and what they were.

    Args:
        scores, values, items: by signal, (n_s,) each; of consumption in a log without exposures the positives only.
        against, against_items, against_held: (n_0, C) items assumed shown beside each positive and which
            count; empty (n_0, 0) in a log with exposures.
        leave, left: (m,) logits of leaving and what happened.
    """

    scores: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    items: tuple[Tensor, ...]
    against: Tensor
    against_items: Tensor
    against_held: Tensor
    leave: Tensor
    left: Tensor


@torch.no_grad()
def score(
    fitted: NeuralUsers,
    maker: WindowMaker,
    users: np.ndarray,
    item_vectors: Tensor,
    profile: Tensor,
    exposure: Exposure | None,
    generator: torch.Generator,
    calibrated: bool = False,
) -> Scored:
    """Walk users through their windows and note every answer; leaving is read with calibrated appeal if asked."""
    moments = maker.moments(users)
    if len(moments) > _MOMENTS:
        moments = moments[torch.randperm(len(moments), generator=generator)[:_MOMENTS].numpy()]
    signals = len(fitted.signals)
    found: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in range(signals)]
    against: list[tuple[Tensor, Tensor, Tensor]] = []
    leaving: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(moments), 256):
        windows = maker.cut(moments[start : start + 256]).to(item_vectors.device)
        path = follow(fitted, item_vectors, profile, windows)
        raw = step_scores(fitted, path, windows, windows.items, heard=not bool(fitted.heads.one_at_most))
        answers = by_place(fitted, raw, windows.items) if bool(fitted.heads.one_at_most) else raw
        for s in range(signals):
            where = windows.given[..., s] & windows.scored.unsqueeze(-1)
            found[s].append((answers[..., s][where], windows.signals[..., s][where], windows.items[where]))
        if exposure is None:
            leaving.append(leave_parts(fitted, path, windows, raw, calibrated))
            continue
        where = windows.given[..., 0] & windows.scored.unsqueeze(-1)  # (B, T, 1)
        b, t = windows.scored.shape
        draws = torch.multinomial(exposure.share, b * t * NEGATIVES, True, generator=generator)
        drawn = draws.view(b, t, NEGATIVES)
        held = drawn != windows.items.cpu()
        if exposure.before is not None:
            held &= ~exposure.before(windows.users.cpu(), drawn, windows.place.cpu())
        drawn, held = drawn.to(raw.device), held.to(raw.device)
        scores = step_scores(fitted, path, windows, drawn)[..., 0]
        steps = where.squeeze(-1)
        against.append((scores[steps], drawn[steps], held[steps]))
    empty = item_vectors.new_zeros(0, 0)
    columns = [[torch.cat(column) for column in zip(*rows, strict=True)] for rows in found]
    if against:
        others = [torch.cat(column) for column in zip(*against, strict=True)]
    else:
        others = [empty, empty.long(), empty.bool()]
    left = [torch.cat(column) for column in zip(*leaving, strict=True)] if leaving else [empty[0:0, 0:0].flatten()] * 2
    return Scored(
        scores=tuple(column[0] for column in columns),
        values=tuple(column[1] for column in columns),
        items=tuple(column[2] for column in columns),
        against=others[0],
        against_items=others[1],
        against_held=others[2],
        leave=left[0],
        left=left[1],
    )


def by_place(fitted: FittedUsers, raw: Tensor, items: Tensor) -> Tensor:
    """Scores of slates (..., K, S) of which one place or none is chosen, such that each place read on its own has its
    probability to be the one."""
    heads = fitted.heads
    chance = chosen(heads.calibrated(raw)[..., 0], items < fitted.sizes.catalogue_size).clamp(1e-6, 1 - 1e-6)
    consumption = (torch.logit(chance) - heads.shift[0]) / heads.scale[0]
    return torch.cat([consumption.unsqueeze(-1), raw[..., 1:]], dim=-1)


def calibrate(fitted: FittedUsers, found: Scored, exposure: Exposure | None) -> None:
    """Set scale and shift of every head (Platt 1999), and the assumed base rate where nobody knows what was shown."""
    heads = fitted.heads
    first = 0
    if exposure is not None:
        first = 1
        scores, values, weights = assumed_answers(found, exposure.base_rate)
        scale, _ = _platt(scores, values, weights)
        shown = found.against[found.against_held]
        heads.scale[0], heads.shift[0] = scale, shift_to_rate(shown * scale, exposure.base_rate)
    for s in range(first, len(fitted.signals)):
        if len(found.scores[s]) >= _FEW:
            _calibrate_signal(fitted, s, found.scores[s], found.values[s])


def calibrate_leaving(fitted: FittedUsers, found: Scored) -> None:
    """Set scale and shift of the hazard, read with the calibrated appeal of the slates."""
    if len(found.left) >= _FEW and 0 < float(found.left.mean()) < 1:
        scale, shift = _platt(found.leave, found.left, torch.ones_like(found.left))
        fitted.heads.leave_scale.fill_(scale)
        fitted.heads.leave_shift.fill_(shift)


@torch.no_grad()
def score_slates(
    fitted: NeuralUsers, maker: WindowMaker, users: np.ndarray, item_vectors: Tensor, profile: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Raw scores of consumption that know nothing of the places above; calibrated ones that do; consumption; and
    where there is an item: of every slate (n, K)."""
    found = []
    moments = maker.moments(users)[:_MOMENTS]
    for start in range(0, len(moments), 256):
        windows = maker.cut(moments[start : start + 256]).to(item_vectors.device)
        path = follow(fitted, item_vectors, profile, windows)
        blind = step_scores(fitted, path, windows, windows.items, heard=False)
        heard = fitted.heads.calibrated(step_scores(fitted, path, windows, windows.items))
        scored = windows.scored
        held = windows.items[scored] < fitted.sizes.catalogue_size
        found.append((blind[..., 0][scored], heard[..., 0][scored], windows.signals[..., 0][scored], held))
    blind, heard, values, held = (torch.cat(column) for column in zip(*found, strict=True))
    return blind, heard, values, held


def choose(fitted: FittedUsers, slates: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[float, float] | None:
    """Decide whether a slate is one choice or one a place, by the likelihood of held-out slates of `score_slates`.

    Sets `heads.one_at_most`, and scale and shift of consumption where it is.

    Returns:
        Nats a slate, one a place and one choice; None where some slate has two consumptions, or slates one place.
    """
    scores, heard, values, held = slates
    heads = fitted.heads
    if scores.shape[1] < 2 or len(scores) < _FEW or bool((values.sum(1) > 1).any()):
        return None
    target = torch.where(values.sum(1) > 0, values.argmax(1), scores.shape[1])  # (n,)

    def loss(scale: Tensor, shift: Tensor) -> Tensor:
        logits = (scores * scale + shift).masked_fill(~held, -torch.inf)
        return F.cross_entropy(F.pad(logits, (0, 1)), target)

    scale, shift, _ = _minimise(loss, scores.new_zeros(0), len(scores))
    apart = -F.binary_cross_entropy_with_logits(heard, values, reduction="none").masked_fill(~held, 0).sum(1).mean()
    together = -loss(scores.new_tensor(scale), scores.new_tensor(shift))
    if together > apart:
        heads.one_at_most.fill_(True)
        heads.scale[0], heads.shift[0] = scale, shift
    return float(apart), float(together)


def assumed_answers(found: Scored, base_rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """Consumptions and what was assumed shown beside them, weighted to the base rate: scores, values, weights (n,)."""
    others = found.against[found.against_held]
    scores = torch.cat([found.scores[0], others])
    values = torch.cat([torch.ones_like(found.scores[0]), torch.zeros_like(others)])
    share = values * base_rate / max(len(found.scores[0]), 1)
    weights = share + (1 - values) * (1 - base_rate) / max(len(others), 1)
    return scores, values, weights


def shift_to_rate(scores: Tensor, rate: float) -> float:
    """The shift under which the mean of sigmoid(scores + shift) is `rate`, by bisection."""
    low, high = -50.0, 50.0
    scores = scores.double()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(torch.sigmoid(scores + middle).mean()) < rate else (low, middle)
    return (low + high) / 2


def _platt(scores: Tensor, values: Tensor, weights: Tensor) -> tuple[float, float]:
    """Scale and shift of a logistic regression, pulled a little towards (1, 0)."""
    weights = weights / weights.sum()

    def loss(scale: Tensor, shift: Tensor) -> Tensor:
        logits = scores * scale + shift
        return (F.binary_cross_entropy_with_logits(logits, values, reduction="none") * weights).sum()

    scale, shift, _ = _minimise(loss, scores.new_zeros(0), len(scores))
    return scale, shift


def _calibrate_signal(fitted: FittedUsers, s: int, scores: Tensor, values: Tensor) -> None:
    heads, signal = fitted.heads, fitted.signals[s]

    def loss(scale: Tensor, shift: Tensor, shape: Tensor) -> Tensor:
        return -distributions.log_likelihood(signal, scores * scale + shift, shape, values).mean()

    shape = heads.shapes[s].detach().clone()
    if signal.kind == "continuous":
        scale, shift, shape = _minimise(loss, shape, len(scores))
        heads.shapes[s].data.copy_(shape)
    else:
        scale, shift, _ = _minimise(lambda a, b: loss(a, b, shape), scores.new_zeros(0), len(scores))
    heads.scale[s], heads.shift[s] = scale, shift


def _minimise(loss: Callable[..., Tensor], shape: Tensor, count: int) -> tuple[float, float, Tensor]:
    """A positive scale (moved by its logarithm), a shift, and a shape where there is one, all at least loss."""
    slope = shape.new_zeros((), requires_grad=True)
    shift = shape.new_zeros((), requires_grad=True)
    free = shape.clone().requires_grad_(len(shape) > 0)
    shapes = [free] if len(shape) else []
    minimise(lambda: loss(slope.exp(), shift, *shapes) + (slope**2 + shift**2) / (10 * count), [slope, shift, *shapes])
    return float(slope.detach().exp()), float(shift.detach()), free.detach()
