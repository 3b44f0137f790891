"""The slate-aware part of the heads: what an item's groups went through, and what else is in the slate."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.envs.users.fitted.inputs.groups import Groups
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


@dataclass(frozen=True)
class Slate:
    """What a slate tells before anybody answers it, leading dims (...).

    Args:
        hidden: (..., K, G, h) what the first layer makes of it.
        own: (..., K, 1 + rank) character of the items.
        same: (..., K, K, G) whether the item of a place (row) is of the group of one above it (column).
    """

    hidden: Tensor
    own: Tensor
    same: Tensor


class SlateContext(nn.Module):
    """Adds to an item's scores what depends on its groups' past and on the slate around it.

    Every grouping of the item gives `2 + rank` coefficients a signal through one small network: of its group's
    features, of the slate's composition, of the user, and of what was consumed above. They meet (1, character), a
    learned short table of the item, so that a catalogue is scored from a table by group.

    Composition, by grouping: the share of the slate's other places that are of the item's group, and of those
    above it; for all: the place, and the mean character of the places above and of the slate. Consumed above: how many
    places, and how many of the item's group. So the answers to one slate go together as those of one person do, whom
    nobody knows well yet, and a user who stops scanning can be told.

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
        self.groups, self.signals, self.width = groups, signals, width
        self.character = linear(item_dim, self.RANK, bias=False)
        self.common = linear(user_dim, self.COMMON)
        kinds = len(groups.sizes)
        self.first = linear(width + kinds + 2 + self.COMMON + 3 + 2 * (1 + self.RANK), self.HIDDEN)
        self.above = linear(3, self.HIDDEN, bias=False)
        self.second = linear(self.HIDDEN, self.HIDDEN)
        self.last = linear(self.HIDDEN, signals * (2 + self.RANK))

    def characters(self, table: Tensor, item_bias: Tensor) -> Tensor:
        """Of every item, (N+1, 1 + rank): its own bias, and what its row says; 0 for the empty place."""
        found = torch.cat([item_bias[:, :1], self.character(table)], dim=1)
        return torch.cat([found[:-1], torch.zeros_like(found[:1])])

    def look_at(self, reading: Reading, characters: Tensor, slate: Tensor) -> Slate:
        """What slates (..., K) tell before they are answered."""
        k = slate.shape[-1]
        own = F.embedding(slate, characters)  # (..., K, 1+rank)
        groups = self.groups.of[slate]  # (..., K, G)
        known = (groups < self.groups.count).unsqueeze(-2)
        same = ((groups.unsqueeze(-2) == groups.unsqueeze(-3)) & known).to(own.dtype)  # nothing is of no group
        below = torch.ones(k, k, device=slate.device).tril(-1).unsqueeze(-1)  # row: place, column: those above it
        above = same * below
        others = same.sum(-2) - torch.diagonal(same, dim1=-3, dim2=-2).transpose(-1, -2)
        share = torch.stack([others, above.sum(-2)], dim=-1) / max(k - 1, 1)
        count = (slate < len(characters) - 1).to(own.dtype).cumsum(-1).unsqueeze(-1)
        mean_above = (own.cumsum(-2) - own) / (count - 1).clamp_min(1)
        mean = own.sum(-2, keepdim=True) / count[..., -1:, :].clamp_min(1)
        shared = torch.cat([place_features(k, own).expand(*own.shape[:-1], 3), mean_above, mean.expand_as(own)], dim=-1)
        kinds = len(self.groups.sizes)
        shared = shared.unsqueeze(-2).expand(*shared.shape[:-1], kinds, -1)
        kind = torch.eye(kinds, device=own.device)
        hidden = self._first(reading, self.groups.at(groups_of(reading), slate), kind, share, shared)
        return Slate(hidden, own, above)

    def answered(self, slate: Slate, consumed: Tensor) -> Tensor:
        """Scores of all places (..., K, S) given what was consumed at them (..., K): each sees those above it."""
        return self._rest(slate.hidden + self._consumed_above(slate.same, consumed), slate.own)

    def at_place(self, slate: Slate, consumed: Tensor, place: int) -> Tensor:
        """Scores of one place (..., S), where `consumed` (..., K) is known at those above it."""
        above = self._consumed_above(slate.same[..., place : place + 1, :, :], consumed)
        return self._rest(slate.hidden[..., place : place + 1, :, :] + above, slate.own[..., place : place + 1, :])[
            ..., 0, :
        ]

    def alone(self, reading: Reading, characters: Tensor, items: Tensor) -> Tensor:
        """Of items (..., M) or (M,), each as if it were shown alone: (..., M, S)."""
        table = groups_of(reading)
        blank = table.new_zeros(*table.shape[:-1], 2)
        shared = torch.cat([table.new_tensor([0.0, 0.0, 1.0]), table.new_zeros(2 * (1 + self.RANK))])
        hidden = self._first(reading, table, self.groups.kind, blank, shared.expand(*table.shape[:-1], -1))
        return self._product(self.groups.total_at(self._deeper(hidden), items), characters[items])

    def _first(self, reading: Reading, at: Tensor, kind: Tensor, share: Tensor, shared: Tensor) -> Tensor:
        """(..., n, F), (n, G), (..., n, 2), (..., n, e) -> (..., n, h), n places by grouping or groups."""
        user = self.common(reading.vector)
        while user.dim() < at.dim():
            user = user.unsqueeze(-2)
        parts = [at, kind.expand(*at.shape[:-1], -1), share, shared, user.expand(*at.shape[:-1], -1)]
        found: Tensor = self.first(torch.cat(parts, dim=-1))
        return found

    def _consumed_above(self, same: Tensor, consumed: Tensor) -> Tensor:
        """(..., n, K, G) places above of one's group, (..., K) consumed -> (..., n, G, h)."""
        by_group = (same * consumed.unsqueeze(-1).unsqueeze(-3)).sum(-2)  # (..., n, G)
        everything = by_group[..., :1].expand_as(by_group)  # the first grouping holds everything
        found: Tensor = self.above(torch.stack([by_group, everything, (everything > 0.5).to(by_group.dtype)], dim=-1))
        return found

    def _deeper(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.last(F.relu(self.second(F.relu(hidden))))
        return found

    def _rest(self, hidden: Tensor, own: Tensor) -> Tensor:
        return self._product(self._deeper(hidden).sum(-2), own)

    def _product(self, coefficients: Tensor, own: Tensor) -> Tensor:
        table = coefficients.view(*coefficients.shape[:-1], self.signals, 2 + self.RANK)
        scores: Tensor = table[..., 0] + (table[..., 1:] * own.unsqueeze(-2)).sum(-1)
        return scores


def place_features(places: int, like: Tensor) -> Tensor:
    """What is read of where an item stands, (K, 3), on the device of `like`."""
    place = torch.arange(places, device=like.device, dtype=like.dtype)
    return torch.stack([place / 10, torch.log1p(place) / 2, 1 / (1 + place)], dim=-1)


def groups_of(reading: Reading) -> Tensor:
    """The groups' features, which readings in logs with exposures hold."""
    if reading.groups is None:
        raise ValueError("this memory reads no groups")
    return reading.groups
