"""The slate-aware part of the heads: what an item's groups went through, and what else is in the slate."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.envs.users.fitted.groups import Groups
from recloop.envs.users.fitted.layers import linear


@dataclass(frozen=True)
class Recalled:
    """What may be looked back at, leading dims (...): the fields of `Past` by the same names.

    Args:
        history: int64 (..., H).
        feedback: float32 (..., H, S).
        shown: int64 (..., L, K).
        answers: float32 (..., L, K, S).
    """

    history: Tensor
    feedback: Tensor
    shown: Tensor
    answers: Tensor


@dataclass(frozen=True)
class Reading:
    """What a memory tells of its users, leading dims (...).

    Args:
        vector: (..., user_dim).
        direct: (..., d) in item space, or None.
        groups: (..., C, F) of every group, or None where the log holds no exposures.
    """

    vector: Tensor
    direct: Tensor | None = None
    groups: Tensor | None = None


class Context(nn.Module):
    """Adds to an item's scores what depends on its groups' past and on the slate around it.

    Every grouping of the item gives `1 + rank` coefficients a signal through one small network: of its group's
    features, of the slate's composition and of the user. They meet (1, character), a learned short table of the item,
    so that a catalogue is scored from a table by group.

    Composition, by grouping: the share of the slate's other places that are of the item's group, and of those
    above it; for all: the place, and the mean character of the places above and of the slate.

    Args:
        groups: of the items.
        width: F, features a group.
        user_dim: length of the user's vector.
        item_dim: length of an item's row.
        signals: S.
    """

    RANK = 3
    COMMON = 12
    HIDDEN = 32

    def __init__(self, groups: Groups, width: int, user_dim: int, item_dim: int, signals: int) -> None:
        super().__init__()
        self.groups, self.signals = groups, signals
        self.character = linear(item_dim, self.RANK, bias=False)
        self.common = linear(user_dim, self.COMMON)
        kinds = len(groups.sizes)
        inputs = width + kinds + 2 + self.COMMON + 3 + 2 * (1 + self.RANK)
        self.first = linear(inputs, self.HIDDEN)
        self.second = linear(self.HIDDEN, self.HIDDEN)
        self.last = linear(self.HIDDEN, signals * (2 + self.RANK))

    def characters(self, table: Tensor, item_bias: Tensor) -> Tensor:
        """Of every item, (N+1, 1 + rank): its own bias, and what its row says; 0 for the empty place."""
        found = torch.cat([item_bias[:, :1], self.character(table)], dim=1)
        return torch.cat([found[:-1], torch.zeros_like(found[:1])])

    def slate(self, reading: Reading, characters: Tensor, slate: Tensor) -> Tensor:
        """Of the places of slates (..., K): (..., K, S)."""
        held = slate < len(characters) - 1
        k = slate.shape[-1]
        own = F.embedding(slate, characters)  # (..., K, 1+rank)
        groups = self.groups.of[slate]  # (..., K, G)
        known = (groups < self.groups.count).unsqueeze(-2)
        same = (groups.unsqueeze(-2) == groups.unsqueeze(-3)) & known  # (..., K, K, G); nothing is of no group
        below = torch.ones(k, k, device=slate.device).tril(-1)  # row: place, column: those above it
        others = same.to(own.dtype) * (1 - torch.eye(k, device=slate.device)).unsqueeze(-1)  # (..., K, K, G)
        share = torch.stack([others.sum(-2), (others * below.unsqueeze(-1)).sum(-2)], dim=-1) / max(k - 1, 1)
        count = held.to(own.dtype).cumsum(-1).unsqueeze(-1)
        above = (own.cumsum(-2) - own) / (count - 1).clamp_min(1)
        whole = own.sum(-2, keepdim=True) / count[..., -1:, :].clamp_min(1)
        place = torch.arange(k, device=slate.device, dtype=own.dtype)
        places = torch.stack([place / 10, torch.log1p(place) / 2, 1 / (1 + place)], dim=-1)
        shared = torch.cat([places.expand(*own.shape[:-1], 3), above, whole.expand_as(own)], dim=-1)
        return self._meet(reading, self.groups.at(_groups(reading), slate), share, shared, own)

    def alone(self, reading: Reading, characters: Tensor, items: Tensor) -> Tensor:
        """Of items (..., M) or (M,), each as if it were shown alone: (..., M, S)."""
        table = _groups(reading)
        kind = self.groups.kind
        blank = table.new_zeros(*table.shape[:-1], 2)
        shared = torch.cat([table.new_tensor([0.0, 0.0, 1.0]), table.new_zeros(2 * (1 + self.RANK))])
        coefficients = self._coefficients(reading, table, kind, blank, shared.expand(*table.shape[:-1], -1))
        return self._product(self.groups.total_at(coefficients, items), characters[items])

    def _meet(self, reading: Reading, at: Tensor, share: Tensor, shared: Tensor, own: Tensor) -> Tensor:
        kinds = len(self.groups.sizes)
        kind = torch.eye(kinds, device=at.device)
        shared = shared.unsqueeze(-2).expand(*shared.shape[:-1], kinds, -1)
        return self._product(self._coefficients(reading, at, kind, share, shared).sum(-2), own)

    def _coefficients(self, reading: Reading, at: Tensor, kind: Tensor, share: Tensor, shared: Tensor) -> Tensor:
        """(..., n, F), (n, G), (..., n, 2), (..., n, e) -> (..., n, S*(2+rank)), n places by grouping or groups."""
        user = self.common(reading.vector)
        while user.dim() < at.dim():
            user = user.unsqueeze(-2)
        rows = torch.cat([at, kind.expand(*at.shape[:-1], -1), share, shared, user.expand(*at.shape[:-1], -1)], dim=-1)
        hidden = F.relu(self.second(F.relu(self.first(rows))))
        found: Tensor = self.last(hidden)
        return found

    def _product(self, coefficients: Tensor, own: Tensor) -> Tensor:
        table = coefficients.view(*coefficients.shape[:-1], self.signals, 2 + self.RANK)
        scores: Tensor = table[..., 0] + (table[..., 1:] * own.unsqueeze(-2)).sum(-1)
        return scores


def _groups(reading: Reading) -> Tensor:
    if reading.groups is None:
        raise ValueError("this memory reads no groups")
    return reading.groups
