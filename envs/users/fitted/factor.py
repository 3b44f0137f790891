"""Factor users: what they want is read off decayed means of what they consumed and were shown, nothing recurrent."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.envs.logs.schema import Signal
from recloop.envs.users.fitted.heads import SUMS, centred
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.slate_context import Reading
from recloop.envs.users.fitted.layers import linear
from recloop.envs.users.fitted.memory import FittedState, Memory, Sizes, session_clock
from recloop.envs.users.fitted.neural import NeuralUsers

FAST, SLOW, SHOWN = 0.8, 0.98, 0.7
"""What is left of a decayed sum after one more consumption (fast, slow) and one more slate (shown)."""
WINDOWS = (0.4, 0.75, 0.95)
"""What is left of a group's counts after one more slate."""


@dataclass(frozen=True)
class FactorState(FittedState):
    """State of factor users: decayed sums, and what they are divided by.

    Args:
        profile: float32 (B, p).
        fast, slow: float32 (B, d) consumed item vectors at two horizons.
        liked: float32 (B, d) at the slow horizon, weighted by the other signals in [-1, 1].
        feedback: float32 (B, S) answers at the slow horizon.
        mass: float32 (B, 2) sums of weights at the two horizons.
        count: float32 (B,) items consumed.
        shown: float32 (B, d) mean vectors of the slates lately shown; 0 in logs without exposures.
        answers: float32 (B, S) mean answers to them.
        shown_mass: float32 (B,) sum of weights of these slates.
        groups: float32 (B, C, 2 x 3) items of every group shown and consumed over three windows that fade a slate at a
            time, or None in logs without exposures.
    """

    profile: Tensor
    fast: Tensor
    slow: Tensor
    liked: Tensor
    feedback: Tensor
    mass: Tensor
    count: Tensor
    shown: Tensor
    answers: Tensor
    shown_mass: Tensor
    groups: Tensor | None = None


class FactorMemory(Memory):
    """Hand-made sums, a layer with a linear way past it, and hand-made (user, item) features.

    The (user, item) features of consumption are the inner products of the item with what was consumed lately, over a
    long time, liked, and shown lately (factorised, so that all items are scored in one product), and whether the
    item itself was consumed or shown before.
    """

    direct = True
    looks_back = True

    def __init__(self, signals: tuple[Signal, ...], sizes: Sizes, groups: Groups) -> None:
        super().__init__()
        self.signals, self.sizes, self.items_groups = signals, sizes, groups
        self.group_width = 3 * len(WINDOWS)
        d, s = sizes.item_dim, len(signals)
        width = 3 * d + s + 3 + sizes.profile_dim + (d + s + 3 if sizes.exposures else 0)
        self.hidden = linear(width, sizes.hidden)
        self.near = nn.Parameter(torch.zeros(4))
        self.again = nn.Parameter(torch.zeros(2))
        self.user_dim = sizes.hidden + width

    def blank(self, profile: Tensor) -> FactorState:
        """Empty sums."""
        b, d, s = len(profile), self.sizes.item_dim, len(self.signals)

        def zero(*shape: int) -> Tensor:
            return profile.new_zeros(b, *shape)

        return FactorState(
            steps=zero(),
            session=zero(SUMS),
            profile=profile,
            fast=zero(d),
            slow=zero(d),
            liked=zero(d),
            feedback=zero(s),
            mass=zero(2),
            count=zero(),
            shown=zero(d),
            answers=zero(s),
            shown_mass=zero(),
            groups=zero(self.items_groups.count, 2 * len(WINDOWS)) if self.sizes.exposures else None,
        )

    def columns(self, table: Tensor) -> Tensor:
        """The items' vectors as they are."""
        return table[:, : self.sizes.item_dim].detach()

    def inputs(self, rows: Tensor, items: Tensor, signals: Tensor, shown: bool) -> Tensor:
        """(..., 3d + 2S + 2): consumed count, whether shown, sums of consumed vectors, liked, feedback; shown means."""
        held = items < self.sizes.catalogue_size
        consumed = held & (signals[..., 0] > 0.5) if shown else held
        weight = consumed.to(rows.dtype).unsqueeze(-1)  # (..., K, 1)
        answers = centred(self.signals, signals)
        liking = self._liking(answers).unsqueeze(-1)
        seen = held.to(rows.dtype).unsqueeze(-1) * float(shown and self.sizes.exposures)
        size = seen.sum(-2).clamp_min(1)
        parts = [
            weight.sum(-2),
            seen.amax(-2),
            (rows * weight).sum(-2),
            (rows * liking * weight).sum(-2),
            (answers * weight).sum(-2),
            (rows * seen).sum(-2) / size,
            (answers * seen).sum(-2) / size,
        ]
        if self.sizes.exposures:
            both = torch.cat([held.to(rows.dtype).unsqueeze(-1) * float(shown), weight], dim=-1)
            parts.append(self.items_groups.sums(items, both).flatten(-2))
        return torch.cat(parts, dim=-1)

    def advance(self, state: FactorState, step: Tensor) -> FactorState:
        """Decay by how many were consumed and whether a slate was shown, then add; a step of zeros changes nothing."""
        d, s = self.sizes.item_dim, len(self.signals)
        known = step[:, : 2 + 3 * d + 2 * s]
        count, seen, vectors, liked, feedback, shown, answers = known.split_with_sizes([1, 1, d, d, s, d, s], 1)
        fast, slow = FAST**count, SLOW**count
        fade = 1 - (1 - SHOWN) * seen
        return replace(
            state,
            fast=state.fast * fast + vectors,
            slow=state.slow * slow + vectors,
            liked=state.liked * slow + liked,
            feedback=state.feedback * slow + feedback,
            mass=state.mass * torch.cat([fast, slow], dim=1) + count,
            count=state.count + count.squeeze(1),
            shown=state.shown * fade + shown,
            answers=state.answers * fade + answers,
            shown_mass=state.shown_mass * fade.squeeze(1) + seen.squeeze(1),
            groups=None if state.groups is None else self._fade(state.groups, seen, step[:, known.shape[1] :]),
        )

    def _fade(self, groups: Tensor, seen: Tensor, step: Tensor) -> Tensor:
        """Windows (B, C, 2 x 3) a slate later."""
        left = groups.new_tensor(WINDOWS).repeat_interleave(2)  # (6,)
        left = 1 - (1 - left) * seen.unsqueeze(2)
        both = step.view(len(step), -1, 2).repeat(1, 1, len(WINDOWS))
        return groups * left + both

    def read(self, state: FactorState) -> Reading:
        """Features through a layer beside the features themselves; the weighted sum of the normed sums; windows."""
        mass = state.mass.clamp_min(1)
        fast, slow = state.fast / mass[:, :1].sqrt(), state.slow / mass[:, 1:].sqrt()
        liked = state.liked / mass[:, 1:].sqrt()
        shown_mass = state.shown_mass.clamp_min(1).unsqueeze(1)
        shown = state.shown / shown_mass
        features = [
            state.profile,
            fast,
            slow,
            liked,
            state.feedback / mass[:, 1:],
            torch.log1p(state.mass),
            torch.log1p(state.count).unsqueeze(1),
        ]
        if self.sizes.exposures:
            features += [shown, state.answers / shown_mass, torch.log1p(state.shown_mass).unsqueeze(1)]
            features.append(session_clock(state.steps))
        wide = torch.cat(features, dim=-1)
        near = torch.stack([F.normalize(part, dim=-1) for part in (fast, slow, liked, shown)], dim=1)
        direct = (near * self.near.view(1, -1, 1)).sum(1)  # (B, d)
        groups = None
        if state.groups is not None:
            shown, taken = state.groups.view(*state.groups.shape[:-1], -1, 2).unbind(-1)  # (B, C, 3)
            groups = torch.cat([torch.log1p(shown), torch.log1p(taken), taken / (shown + 1)], dim=-1)
        return Reading(torch.cat([F.gelu(self.hidden(wide)), wide], dim=-1), direct, groups)

    def repeats(self, history: Tensor, shown: Tensor, items: Tensor) -> Tensor | None:
        """Learned weights on having been consumed, and on log(1 + times shown lately)."""
        total: Tensor | None = None
        if self.sizes.repeats:
            total = self.again[0] * _times(history, items, self.sizes.catalogue_size).clamp(max=1)
        if self.sizes.exposures:
            often = self.again[1] * torch.log1p(_times(shown.flatten(1), items, self.sizes.catalogue_size))
            total = often if total is None else total + often
        return total

    def _liking(self, answers: Tensor) -> Tensor:
        """How much a consumption was liked, (..., K, S) in [-1, 1] -> (..., K): the mean of the other signals."""
        signs = answers.new_tensor([0.0, *(1.0 if s.good else -1.0 for s in self.signals[1:])])
        return (answers * signs).sum(-1) / max(len(self.signals) - 1, 1)


class FactorUsers(NeuralUsers):
    """Fitted users read off decayed sums and features; see `FactorMemory` and `Heads`."""

    kind = "factor"

    def _memory(self, groups: Groups) -> Memory:
        return FactorMemory(self.signals, self.sizes, groups)


def _times(rows: Tensor, items: Tensor, catalogue_size: int) -> Tensor:
    """How often each item stands in its lane's rows: (B, H), items (B, C) or (C,) of the catalogue -> (B, C)."""
    if items.dim() == 2:
        return (rows.unsqueeze(1) == items.unsqueeze(2)).sum(2).to(torch.float32)
    column = torch.full((catalogue_size + 1,), len(items), device=items.device)
    column[items] = torch.arange(len(items), device=items.device)
    column[-1] = len(items)
    counts = torch.zeros(len(rows), len(items) + 1, device=items.device)
    return counts.scatter_add_(1, column[rows], torch.ones_like(rows, dtype=torch.float32))[:, :-1]
