"""The slate-aware part of the heads: what an item's groups went through, and what else is in the slate."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.layers import linear

Decide = Callable[[Tensor, int], Tensor]
"""Calibrated consumption scores (B,) of a place, counted from the top -> float (B,) what is consumed there."""
_COLUMNS = 16
"""A product with fewer columns, or a number that this does not divide, takes longer on the CPU than one with them."""
_PLACES = 64
"""Places of which the constants are kept; longer slates work them out."""


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


class InSlate:
    """What a `SlateContext` adds to the scores of slates, the same numbers within rounding, at a third of the cost.

    The first layer is linear, so its parts are worked out where they belong: once a group and user (their states, the
    user, which grouping it is), once a place (where it stands, what surrounds it), and in the loop over places only
    what was consumed above. The last layer is linear, so groupings are added up before it. Everything is laid out by
    place, (K, B, ...), so that a place is one contiguous piece; the loop has no branch on what happens.

    Args:
        context: its weights are read once; make anew when they change.
        scale: float32 (S,) what calibration makes of the raw scores: the additions are to calibrated ones.
    """

    def __init__(self, context: SlateContext, scale: Tensor) -> None:
        first, width, kinds = context.first.weight, context.width, len(context.groups.sizes)
        own, hidden = 1 + context.RANK, context.HIDDEN
        parts = first.split_with_sizes([width, kinds, 2, 3, own, own, context.COMMON], dim=1)
        at, kind, share, place, above_mean, mean, user = (part.T for part in parts)  # (inputs, h) each
        self.groups, self.kinds, self.own = context.groups, kinds, own
        self.signals, self.units = context.signals, hidden
        self.of_group = at.contiguous()
        self.of_user = (user.T @ context.common.weight).T.repeat(1, kinds)  # (user_dim, G h)
        self.of_everyone = (context.first.bias + user.T @ context.common.bias + kind).flatten()  # (G h,)
        apart = torch.eye(kinds, device=first.device).unsqueeze(2)  # (G, G, 1) a number for its own grouping alone
        count, everything, anything = context.above.weight.T  # (h,) each
        counts = apart * count
        counts[0] += everything  # the first grouping holds everything
        told = [counts.flatten(1), anything.repeat(1, kinds)]
        told += [(apart * share[0]).flatten(1), (apart * share[1]).flatten(1)]
        told += [above_mean.repeat(1, kinds), mean.repeat(1, kinds), place.repeat(1, kinds)]
        self.of_told = torch.cat(told)  # (3G + 1 + 2 own + 3, G h), a row for each number that is read of a place
        self.second, self.second_bias = context.second.weight.T.contiguous(), context.second.bias
        scales = scale.repeat_interleave(1 + own)
        last = (context.last.weight.T * scales).repeat(kinds, 1)  # (G h, S (1 + own)): groupings are added up
        spare = -last.shape[1] % _COLUMNS
        self.last, self.last_bias = F.pad(last, (0, spare)), F.pad(context.last.bias * scales * kinds, (0, spare))
        self.numbers = last.shape[1]
        self.places = place_features(_PLACES, first)
        self.ungrouped = bool((context.groups.of[:-1] == context.groups.count).any())

    def answered(
        self, reading: Reading, slate: Tensor, character: Tensor, scores: Tensor, decide: Decide
    ) -> tuple[Tensor, Tensor]:
        """What slates (K, B) add to the calibrated scores, (K, B, S); and what is consumed there, (K, B).

        Args:
            reading: of the users, leading dimension B.
            slate: int64 (K, B) item rows, by place.
            character: (K, B, 1 + rank) of these items; 0 at empty places.
            scores: (K, B) calibrated scores of consumption without what is added here.
            decide: says what is consumed at a place.
        """
        k, b = slate.shape
        groups = self.groups.of[slate]  # (K, B, G)
        states, user = self._of_groups(reading, groups), self._of_user(reading)
        same = self._same(groups)  # (K, K, B, G)
        around = self._surroundings(same, slate, character)  # (K, B, 2G + 2 own + 3)
        meets = F.pad(character, (1, 0), value=1.0)  # (K, B, 1 + own)
        above = torch.zeros_like(groups, dtype=around.dtype)
        found, decided = [], []
        for place in range(k):
            told = torch.cat([above[0], above[0, :, :1].clamp(max=1), around[place]], dim=1)
            table = self._table(torch.addmm(user, told, self.of_told), states[place])
            consumed = decide(scores[place] + (table[:, : 1 + self.own] * meets[place]).sum(1), place)
            found.append(table)
            decided.append(consumed)
            above = torch.addcmul(above[1:], same[place + 1 :, place], consumed.view(1, b, 1))
        tables = torch.stack(found).view(k, b, self.signals, 1 + self.own)
        return (tables * meets.unsqueeze(2)).sum(-1), torch.stack(decided)

    def unanswered(self, reading: Reading, slate: Tensor, character: Tensor) -> Tensor:
        """Likewise, where places know nothing of those above: all at once."""
        k, b = slate.shape
        groups = self.groups.of[slate]
        around = self._surroundings(self._same(groups), slate, character).flatten(0, 1)
        user = self._of_user(reading).repeat(k, 1)
        hidden = torch.addmm(user, around, self.of_told[self.kinds + 1 :])
        tables = self._table(hidden, self._of_groups(reading, groups).flatten(0, 1))
        meets = F.pad(character, (1, 0), value=1.0)
        return (tables.reshape(k, b, self.signals, 1 + self.own) * meets.unsqueeze(2)).sum(-1)

    def _table(self, hidden: Tensor, states: Tensor) -> Tensor:
        """From the first layer (R, G h), without the groups' states (R, G F), to what meets the character: (R, S x)."""
        hidden = torch.addmm(hidden.view(-1, self.units), states.view(-1, len(self.of_group)), self.of_group).relu_()
        deeper = torch.addmm(self.second_bias, hidden, self.second).relu_()
        return torch.addmm(self.last_bias, deeper.view(len(states), -1), self.last)[:, : self.numbers]

    def _of_user(self, reading: Reading) -> Tensor:
        """What the first layer makes of the users, for each grouping: (B, G h)."""
        return torch.addmm(self.of_everyone, reading.vector, self.of_user)

    def _of_groups(self, reading: Reading, groups: Tensor) -> Tensor:
        """States of the items' groups (K, B, G), 0 for no group: (K, B, G F)."""
        states = groups_of(reading)  # (B, C, F)
        b, count, width = states.shape
        rows = states.reshape(b * count, width)
        index = groups + torch.arange(0, b * count, count, device=groups.device).view(b, 1)
        if self.ungrouped:
            rows = F.pad(rows, (0, 0, 0, 1))
            index = torch.where(groups < count, index, b * count)
        else:
            index = index.clamp(max=b * count - 1)  # only empty places have no group, and nobody reads their scores
        return F.embedding(index, rows).flatten(2)

    def _same(self, groups: Tensor) -> Tensor:
        """(K, K, B, G) 1 where a place's item is of the group of one above, the second place; nothing is of none."""
        mark = torch.where(groups < self.groups.count, groups.to(torch.float32), torch.nan)
        k = len(groups)
        below = torch.ones(k, k, device=groups.device).tril(-1).view(k, k, 1, 1)
        return (mark.unsqueeze(1) == mark.unsqueeze(0)).to(mark.dtype).mul_(below)

    def _surroundings(self, same: Tensor, slate: Tensor, character: Tensor) -> Tensor:
        """Shares of one's groups in the slate and above; mean character above and of the slate; where it stands."""
        k, b = slate.shape
        above, most = same.sum(1), max(k - 1, 1)
        others = above + same.sum(0)
        count = (slate < len(self.groups.of) - 1).to(character.dtype).cumsum(0).unsqueeze(-1)  # (K, B, 1)
        mean_above = (character.cumsum(0) - character) / (count - 1).clamp_min(1)
        mean = character.sum(0) / count[-1].clamp_min(1)
        places = self.places[:k] if k <= _PLACES else place_features(k, character)
        told = [others / most, above / most, mean_above, mean.expand_as(character)]
        return torch.cat([*told, places.unsqueeze(1).expand(-1, b, -1)], dim=-1)
