"""What each lane may not be shown again, in worlds where nobody consumes an item twice.

A bool (B, N+1) copied every step costs more than the users. Two forms hold the same, at what a lane's items cost:

- `SeenBits`, a bit an item: 1.25 KB a lane at 10,000 items. Fastest to ask; every step copies all bits.
- `SeenLists`: what the log holds stands once, by user, in buckets of eight places that one gather reads; what was
  consumed since is a list of the lane's own. Its size does not depend on the catalogue.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.randomness import absorb

_WAYS = 8
"""Places of a bucket."""
_SMALL_BITS = 1 << 13
"""Bytes a lane up to which bits are taken whatever the lists' size: 65,535 items."""
_BIT_TABLE = 1 << 30
"""Most bytes of all users' logged items as bits."""


class SeenItems(TensorStruct):
    """Items that lanes may not be shown again; immutable, on one device. Made by `LoggedItems.seen`."""

    catalogue_size: int

    @abstractmethod
    def contains(self, items: Tensor) -> Tensor:
        """Which items (B, K) are among them, bool (B, K); the empty place N never is."""

    @abstractmethod
    def added(self, items: Tensor, fresh: bool = False) -> Self:
        """With items int64 (B, K) more; N, repeats and those held already change nothing.

        `fresh` says that there are no repeats and none is held, as among what a core's slate led to: not looked up.
        """

    @abstractmethod
    def admissible(self) -> Tensor:
        """Which items may be shown, bool (B, N): dense, for small catalogues."""

    @abstractmethod
    def listed(self) -> Tensor:
        """The items, int64 (B, M) in no order, some perhaps twice, N in empty places; M as these lanes need."""


@dataclass(frozen=True)
class SeenBits(SeenItems):
    """A bit an item.

    Args:
        words: int64 (B, N // 64 + 1); bit i % 64 of word i // 64 is item i.
        catalogue_size: N.
    """

    words: Tensor
    catalogue_size: int

    def contains(self, items: Tensor) -> Tensor:
        """See `SeenItems`."""
        return (self.words.gather(1, items >> 6) >> (items & 63)) & 1 != 0

    def added(self, items: Tensor, fresh: bool = False) -> Self:
        """See `SeenItems`."""
        new = items < self.catalogue_size
        new = new if fresh else new & ~self.contains(items) & ~repeated(items)
        return replace(self, words=self.words.scatter_add(1, items >> 6, new.to(torch.int64) << (items & 63)))

    def admissible(self) -> Tensor:
        """See `SeenItems`."""
        one_byte = torch.arange(256, device=self.words.device).view(-1, 1) >> torch.arange(8, device=self.words.device)
        eight = ((one_byte & 1) == 0).view(torch.int64).view(-1)  # (256,), eight bools each
        spread = eight.index_select(0, self.words.view(torch.uint8).view(-1).to(torch.int32))
        return spread.view(torch.bool).view(len(self.words), -1)[:, : self.catalogue_size]

    def listed(self) -> Tensor:
        """See `SeenItems`."""
        lane, item = (~self.admissible()).nonzero(as_tuple=True)
        return _padded(lane, item, len(self.words), self.catalogue_size)

    def held(self) -> dict[str, Any]:
        """See `TensorStruct`."""
        return {"words": self.words}


@dataclass(frozen=True)
class SeenLists(SeenItems):
    """The log's items by user, and a list of the lane's own since.

    Args:
        users: int64 (B,) rows of `logged`.
        own: int32 (B, M) the latest item rows, N + 1 where there is room; the oldest places are given up first.
        logged: of all users.
        catalogue_size: N.
    """

    users: Tensor
    own: Tensor
    logged: LoggedItems
    catalogue_size: int

    def contains(self, items: Tensor) -> Tensor:
        """See `SeenItems`."""
        return self.logged.contains(self.users, items) | _holds(self.own.unsqueeze(1), items.to(torch.int32))

    def added(self, items: Tensor, fresh: bool = False) -> Self:
        """See `SeenItems`; a list may hold an item twice."""
        held = torch.where(items < self.catalogue_size, items, self.catalogue_size + 1).to(torch.int32)
        return replace(self, own=torch.cat([self.own, held], dim=1)[:, held.shape[1] :])

    def admissible(self) -> Tensor:
        """See `SeenItems`."""
        free = torch.ones(len(self.users), self.catalogue_size + 1, dtype=torch.bool, device=self.users.device)
        return free.scatter_(1, self.listed(), False)[:, : self.catalogue_size]

    def listed(self) -> Tensor:
        """See `SeenItems`."""
        mine = self.own.to(torch.int64).clamp(max=self.catalogue_size)
        return torch.cat([self.logged.of_users(self.users), mine], dim=1)

    def to(self, device: torch.device) -> Self:
        """The same lanes on a device."""
        return replace(super().to(device), logged=self.logged.to(device))

    def held(self) -> dict[str, Any]:
        """See `TensorStruct`."""
        return {"users": self.users, "own": self.own}


@dataclass(frozen=True)
class LoggedItems:
    """What users had consumed before, by user: a table that lanes share.

    Args:
        catalogue_size: N.
        offsets: int64 (U+1,); user u's are `rows[offsets[u]:offsets[u + 1]]`.
        rows: int32 (M,) item rows, none twice for a user.
        first, count: int64 (U,) each user's buckets.
        buckets: int32 (Q, 8) item + 1, or 0.
        longest: most items of a user.
    """

    catalogue_size: int
    offsets: Tensor
    rows: Tensor
    first: Tensor
    count: Tensor
    buckets: Tensor
    longest: int

    @classmethod
    def of(cls, users: int, catalogue_size: int, owner: Tensor, rows: Tensor) -> LoggedItems:
        """From consumptions in any order, on the CPU.

        Args:
            users: U.
            catalogue_size: N; rows of it are dropped.
            owner, rows: int64 (M,) the user and the item of each; repeats change nothing.
        """
        held = rows < catalogue_size
        pairs = torch.unique(owner[held] * catalogue_size + rows[held])
        owner, rows = pairs // catalogue_size, pairs % catalogue_size
        lengths = torch.bincount(owner, minlength=users)
        count = (lengths + 1) // 2  # a bucket for every two items; more for users with one too full
        count = count.clamp(min=1)
        hashed = absorb(rows, 0) & 0x7FFFFFFF
        while True:
            first = count.cumsum(0) - count
            bucket = first[owner] + ((hashed * count[owner]) >> 31)
            full = torch.bincount(bucket)[bucket] > _WAYS
            if not bool(full.any()):
                break
            crowded = torch.unique(owner[full])
            count[crowded] *= 2
        order = torch.argsort(bucket, stable=True)
        starts = torch.cat([torch.ones(1, dtype=torch.bool), bucket[order].diff() > 0])[: len(order)]
        place = torch.arange(len(order)) - torch.where(starts, torch.arange(len(order)), 0).cummax(0).values
        buckets = torch.zeros(int(count.sum()), _WAYS, dtype=torch.int32)
        buckets[bucket[order], place] = (rows[order] + 1).to(torch.int32)
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        longest = int(lengths.max()) if users else 0
        return cls(catalogue_size, offsets, rows.to(torch.int32), first, count, buckets, longest)

    @classmethod
    def nothing(cls, users: int, catalogue_size: int) -> LoggedItems:
        """Users who consumed nothing yet."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls.of(users, catalogue_size, none, none)

    def seen(self, capacity: int) -> SeenItems:
        """A lane a user, to each of whom at most `capacity` places will be added; the smaller of the two forms."""
        users, bits = len(self.count), (self.catalogue_size // 64 + 1) * 8
        if bits <= max(_SMALL_BITS, 4 * capacity) and bits * users <= _BIT_TABLE:
            return SeenBits(self._as_bits(), self.catalogue_size)
        room = (1, max(capacity, 1))
        own = torch.full(room, self.catalogue_size + 1, dtype=torch.int32, device=self.count.device)
        return SeenLists(torch.arange(users, device=own.device), own.expand(users, -1), self, self.catalogue_size)

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether users (B,) had consumed the items (B, K), bool (B, K)."""
        hashed = absorb(items, 0) & 0x7FFFFFFF
        bucket = self.first[users].unsqueeze(1) + ((hashed * self.count[users].unsqueeze(1)) >> 31)
        return _holds(F.embedding(bucket, self.buckets), (items + 1).to(torch.int32))

    def of_users(self, users: Tensor) -> Tensor:
        """All items of users (B,), int64 (B, M), N in empty places behind."""
        lengths = self.offsets[users + 1] - self.offsets[users]
        width = int(lengths.max()) if len(users) else 0
        place = torch.arange(width, device=users.device)
        rows = (self.offsets[users].unsqueeze(1) + place).clamp(max=max(len(self.rows) - 1, 0))
        held = place < lengths.unsqueeze(1)
        return torch.where(held, self.rows[rows].to(torch.int64), self.catalogue_size) if width else rows

    def to(self, device: torch.device) -> LoggedItems:
        """The same on a device."""
        names = ("offsets", "rows", "first", "count", "buckets")
        tensors: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        return replace(self, **tensors)

    def _as_bits(self) -> Tensor:
        """int64 (U, N // 64 + 1), see `SeenBits`."""
        users, words = len(self.count), self.catalogue_size // 64 + 1
        device = self.rows.device
        owner = torch.repeat_interleave(torch.arange(users, device=device), self.offsets.diff())
        rows = self.rows.to(torch.int64)
        bits = torch.ones_like(rows) << (rows & 63)
        table = torch.zeros(users * words, dtype=torch.int64, device=device)
        return table.index_add_(0, owner * words + (rows >> 6), bits).view(users, words)


def repeated(items: Tensor) -> Tensor:
    """bool (B, K): an earlier place of the lane holds the same."""
    found = torch.zeros_like(items, dtype=torch.bool)
    for earlier in range(items.shape[1] - 1):
        found[:, earlier + 1 :] |= items[:, earlier + 1 :] == items[:, earlier : earlier + 1]
    return found


def _holds(places: Tensor, items: Tensor) -> Tensor:
    """Whether an item int32 (B, K) is among the places int32 (B, 1 or K, M), no number below 0: bool (B, K).

    Equal numbers differ by 0: several times faster than comparing and `any`, as it is and compiled.
    """
    return (places ^ items.unsqueeze(2)).amin(2) == 0


def _padded(lane: Tensor, item: Tensor, lanes: int, empty: int) -> Tensor:
    """Items by lane, rising, as a table (B, M) with `empty` behind."""
    counts = torch.bincount(lane, minlength=lanes)
    place = torch.arange(len(lane), device=lane.device) - (counts.cumsum(0) - counts)[lane]
    table = torch.full((lanes, int(counts.max()) if lanes else 0), empty, device=lane.device)
    table[lane, place] = item
    return table
