"""Attentive users: what they want is looked up in their past anew at every step; all they carry along is counts."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.logs.schema import Signal
from recloop.envs.users.fitted.heads import SUMS, centred
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.slate_context import Reading, Recalled
from recloop.envs.users.fitted.layers import linear
from recloop.envs.users.fitted.memory import FittedState, Memory, Sizes, session_clock
from recloop.envs.users.fitted.neural import NeuralUsers

_QUERIES, _KEY, _VALUE = 4, 16, 16
_READ = 8
"""Numbers that are read of an item in a log with exposures."""


@dataclass(frozen=True)
class AttentiveState(FittedState):
    """State of attentive users: all else stands in the past.

    Args:
        profile: float32 (B, p).
        counts: float32 (B, C, 2) items of every group shown and consumed so far, which slates forgotten by the past
            have taken with them; None in logs without exposures.
    """

    profile: Tensor
    counts: Tensor | None = None


class AttentiveMemory(Memory):
    """Pooling by multi-head attention (Lee et al. 2019) over what was consumed and, with exposures, shown.

    Differences from the Set Transformer: one layer, learned queries moved by the profile and the session's clock,
    ages as features, an entry that stands for nothing. Of every group of items it lays side by side how many were
    shown and consumed in each of the last slates, and how many were consumed over the remembered history and in all.
    """

    looks_back = True

    def __init__(self, signals: tuple[Signal, ...], sizes: Sizes, groups: Groups) -> None:
        super().__init__()
        self.signals, self.sizes, self.items_groups = signals, sizes, groups
        read = _READ if sizes.exposures else 2 * _VALUE
        entry = read + len(signals) + 4
        self.reader = linear(sizes.item_dim + sizes.residual, read)
        self.keys = linear(entry, _KEY)
        self.values = linear(entry, _VALUE * (1 if sizes.exposures else 2))
        self.queries = linear(sizes.profile_dim + 2, _QUERIES * _KEY)
        pooled = _QUERIES * self.values.out_features
        self.user_dim = pooled + sizes.profile_dim + 4
        if sizes.exposures:
            self.group_width = 2 * sizes.lead + 6

    def blank(self, profile: Tensor) -> AttentiveState:
        """Users of whom only the profile (B, p) is known: all counts are 0."""
        zeros = profile.new_zeros(len(profile))
        counts = zeros.new_zeros(len(profile), self.items_groups.count, 2) if self.sizes.exposures else None
        return AttentiveState(zeros, zeros.new_zeros(len(profile), SUMS), profile, counts)

    def columns(self, table: Tensor) -> Tensor:
        """What is read of an item that is looked back at."""
        return self.reader(table)  # type: ignore[no-any-return]

    def inputs(self, rows: Tensor, items: Tensor, signals: Tensor, shown: bool) -> Tensor:
        """What was shown and consumed, by group: (..., 2C); nothing in logs without exposures."""
        if not self.sizes.exposures:
            return rows.new_zeros(*items.shape[:-1], 0)
        held = (items < self.sizes.catalogue_size).to(rows.dtype)
        taken = held * (signals[..., 0] > 0.5) if shown else held
        both = torch.stack([held * float(shown), taken], dim=-1)
        return self.items_groups.sums(items, both).flatten(-2)

    def advance(self, state: AttentiveState, step: Tensor) -> AttentiveState:
        """Counts go up; the rest of the past is the core's."""
        if state.counts is None:
            return state
        return replace(state, counts=state.counts + step.view_as(state.counts))

    def read(self, state: AttentiveState) -> Reading:
        """Profile, clock and counts, for `recall` to complete."""
        vector = torch.cat([state.profile, session_clock(state.steps)], dim=-1)
        if state.counts is None:
            return Reading(vector)
        shown, taken = state.counts.unbind(-1)
        counts = [torch.log1p(shown) / 2, torch.log1p(taken) / 2, (taken + 0.2) / (shown + 1)]
        return Reading(vector, groups=torch.stack(counts, dim=-1))

    def recall(self, reading: Reading, past: Recalled, columns: Tensor) -> Reading:
        """The user's vector and the groups' counts, leading dims (...)."""
        n = self.sizes.catalogue_size
        length = past.history.shape[-1]
        age = torch.arange(length - 1, -1, -1, device=columns.device, dtype=columns.dtype)
        told, ages = [self._told(columns, past.history, past.feedback)], [_ages(age, 0.0)]
        held = [past.history < n]
        if self.sizes.exposures:
            slates, k = past.shown.shape[-2:]
            back = torch.arange(slates - 1, -1, -1, device=columns.device, dtype=columns.dtype).repeat_interleave(k)
            told.append(self._told(columns, past.shown.flatten(-2), past.answers.flatten(-3, -2)))
            ages.append(_ages(back, 1.0))
            held.append((past.shown < n).flatten(-2))
        queries = self.queries(reading.vector).unflatten(-1, (_QUERIES, _KEY))
        look = self._pooled if torch.is_grad_enabled() else self._pooled_folded
        pooled = look(queries, torch.cat(told, dim=-2), torch.cat(ages), torch.cat(held, dim=-1))  # (..., Q, V)
        counts = torch.stack([torch.log1p(part.sum(-1).to(columns.dtype)) / 3 for part in (held[0], held[-1])], dim=-1)
        vector = torch.cat([pooled.flatten(-2), reading.vector, counts], dim=-1)
        if reading.groups is None:
            return replace(reading, vector=vector)
        return replace(reading, vector=vector, groups=torch.cat([reading.groups, self._by_group(past)], dim=-1))

    def _told(self, columns: Tensor, items: Tensor, answers: Tensor) -> Tensor:
        """What is read of remembered items (..., P) and their answers (..., P, S): (..., P, c + S)."""
        return torch.cat([F.embedding(items, columns), centred(self.signals, answers)], dim=-1)

    def _pooled(self, queries: Tensor, told: Tensor, ages: Tensor, there: Tensor) -> Tensor:
        """Attention of (..., Q, q) over entries (..., P, t) with ages (P, 4), where there are any: (..., Q, V)."""
        rows = torch.cat([told, ages.expand(*told.shape[:-1], -1)], dim=-1)
        match = queries @ self.keys(rows).transpose(-1, -2) / _KEY**0.5  # (..., Q, P)
        return _weights(match, there) @ self.values(rows)  # type: ignore[no-any-return]

    def _pooled_folded(self, queries: Tensor, told: Tensor, ages: Tensor, there: Tensor) -> Tensor:
        """Likewise, within rounding: keys and values are linear, so no entry's own are ever worked out."""
        t = told.shape[-1]
        asked = queries @ self.keys.weight  # (..., Q, t + 4)
        match = asked[..., :t] @ told.transpose(-1, -2) + asked[..., t:] @ ages.T
        match = match + (queries @ self.keys.bias).unsqueeze(-1)
        weights = _weights(match / _KEY**0.5, there)
        found = torch.cat([weights @ told, weights @ ages], dim=-1)  # (..., Q, t + 4)
        return found @ self.values.weight.T + weights.sum(-1, keepdim=True) * self.values.bias

    def _by_group(self, past: Recalled) -> Tensor:
        """(..., C, 2L + 3): shown and consumed in each slate, newest last; consumed in the history, at three ranges."""
        n = self.sizes.catalogue_size
        held = (past.shown < n).to(torch.float32)
        taken = held * (past.answers[..., 0] > 0.5)
        per_slate = self.items_groups.sums(past.shown, torch.stack([held, taken], dim=-1))  # (..., L, C, 2)
        recent = per_slate.movedim(-3, -2).flatten(-2)  # (..., C, 2L)
        missing = 2 * self.sizes.lead - recent.shape[-1]
        recent = F.pad(recent, (missing, 0)) if missing > 0 else recent[..., -2 * self.sizes.lead :]
        age = torch.arange(past.history.shape[-1] - 1, -1, -1, device=held.device)
        ranges = torch.stack([0.8**age, 0.95**age, torch.ones_like(age, dtype=torch.float32)], dim=-1)
        weight = ranges * (past.history < n).to(torch.float32).unsqueeze(-1)
        consumed = torch.log1p(self.items_groups.sums(past.history, weight))
        return torch.cat([recent, consumed], dim=-1)


class AttentiveUsers(NeuralUsers):
    """Fitted users who look back at their past; see `AttentiveMemory` and `Heads`."""

    kind = "attentive"

    def _memory(self, groups: Groups) -> Memory:
        return AttentiveMemory(self.signals, self.sizes, groups)


def _ages(age: Tensor, kind: float) -> Tensor:
    """What is read of how long ago something was, (P,) -> (P, 4), and of which kind it was."""
    return torch.stack([torch.log1p(age) / 3, 1 / (1 + age), torch.exp(-age / 3), torch.full_like(age, kind)], -1)


def _weights(match: Tensor, there: Tensor) -> Tensor:
    """Softmax of (..., Q, P) over the entries that are there (..., P), and over nothing, whose weight is left out."""
    match = F.pad(match.masked_fill(~there.unsqueeze(-2), -torch.inf), (0, 1))
    return match.softmax(-1)[..., :-1]
