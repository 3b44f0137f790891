"""Slates that keep a shop's rules: which items may be shown, and what takes the place of what breaks a rule.

One mechanism for everybody. Items that no rule allows are masked, so that policies do not pick them; whatever slate
comes in, places that break a rule get another item, the most popular one that may be shown there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.rules import Rules, labelled, least_places, members, units_of
from recloop.envs.interaction.seen import repeated
from recloop.envs.logs.schema import Signal
from recloop.envs.world.tables import Catalogue

Barred = Callable[[Tensor, Tensor], Tensor]
"""Lanes (b,) and items int64 (b, W) -> bool (b, W): what these lanes may not be shown, whatever the rules say."""

_WINDOW = 256
"""Items looked through at once for one that may fill a place."""


@dataclass(frozen=True)
class _Cap:
    """At most `most` items of one code a slate; `codes` int64 (N+1,), those from `labels` on are not counted."""

    codes: Tensor
    labels: int
    most: int


class RuledSlates:
    """Rules for slates of K items of one catalogue, on a device.

    Args:
        rules: what is asked.
        catalogue: whose items and columns they name.
        signals: of the world; for what takes stock.
        slate_size: K.
        device: of the slates.

    Attributes:
        allowed: bool (N,), what may be shown at all.
        units: int64 (N+1,) full stock; None where nothing runs out.
        takes: the place of the signal that takes a unit.

    Raises:
        RecloopError: an item, column or value that is not there, or rules that no slate of K items keeps.
    """

    def __init__(
        self,
        rules: Rules,
        catalogue: Catalogue,
        signals: Sequence[Signal],
        slate_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rules, self.slate_size, self.empty = rules, slate_size, len(catalogue)
        units = units_of(rules, catalogue)
        allowed = _any(rules.only, catalogue, "only") if rules.only else torch.ones(self.empty, dtype=torch.bool)
        allowed = allowed & ~_any(rules.never, catalogue, "never")
        allowed = allowed if units is None else allowed & (units[:-1] > 0)
        order = torch.argsort(catalogue.popularity, descending=True, stable=True)
        names = [signal.name for signal in signals]
        if rules.takes is not None and rules.takes not in names:
            raise RecloopError(f"rule takes: {unknown_name('signal', rules.takes, names)}")
        self.takes = names.index(rules.takes) if rules.takes else 0
        self.allowed = allowed.to(device)
        self.units = None if units is None else units.to(device)
        self._order = order[allowed[order]].to(device)  # (M,)
        self._allowed = F.pad(self.allowed, (0, 1), value=True)  # (N+1,)
        self._caps = []
        for column, most in rules.at_most.items():
            found = labelled(column, catalogue, "at_most")
            self._caps.append(_Cap(found.codes.to(device), len(found.names), most))
        groups = [members(group, catalogue, "at_least") for group in rules.at_least]
        self._groups = F.pad(torch.stack(groups) if groups else torch.zeros(0, self.empty) > 0, (0, 1)).to(device)
        least = [least_places(share, slate_size) for share in rules.at_least.values()]
        self._least = torch.tensor(least, dtype=torch.int64, device=device)
        self._check()

    @classmethod
    def of(
        cls, rules: Rules, catalogue: Catalogue, signals: Sequence[Signal], k: int, device: torch.device | str = "cpu"
    ) -> "RuledSlates | None":
        """None where nothing is asked."""
        return cls(rules, catalogue, signals, k, device) if rules else None

    @property
    def of_whole_slates(self) -> bool:
        """Whether a rule looks at more than single items."""
        return bool(self._caps) or len(self._least) > 0

    def may_be_shown(self, stock: Tensor | None = None) -> Tensor:
        """bool (N,): allowed, and in stock where units int64 (N+1,) are counted."""
        return self.allowed if stock is None else self.allowed & (stock[:-1] > 0)

    def mended(self, slate: Tensor, barred: Barred, stock: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Slates that keep the rules, and how many places got another item.

        Places that keep them stay as they are. Repeated and barred items leave their places empty, as without rules;
        empty places are filled only where a group has too few.

        Args:
            slate: int64 (B, K) of rows 0 to N.
            barred: what else a lane may not be shown.
            stock: int64 (N+1,) units left, shared by the lanes.

        Returns:
            int64 (B, K) and int64 (B,). Where nothing that may be shown is left, a place stays empty.
        """
        lanes = torch.arange(len(slate), device=slate.device)
        invalid = repeated(slate) | barred(lanes, slate)
        slate = slate.masked_fill(invalid, self.empty)
        keep = self._keeping(slate, stock)  # (B, K)
        if len(self._least):
            keep = self._with_room(slate, keep)
        held, kept = slate < self.empty, slate.masked_fill(~keep, self.empty)
        todo = held & ~keep
        if len(self._least):
            more = (self._deficits(kept).sum(1) - todo.sum(1)).clamp(min=0)
            todo = todo | (~held & ((~held).cumsum(1) <= more.unsqueeze(1)))
        rows = todo.any(1).nonzero()[:, 0]
        if not len(rows):
            return slate, torch.zeros_like(lanes)
        before = slate[rows]
        left = None if stock is None else _taken(stock, kept)
        made, left = self._filled(kept[rows], todo[rows], rows, barred, left)
        failed = (self._deficits(made).sum(1) > 0) | ((made == self.empty) & (before < self.empty)).any(1)
        again = failed.nonzero()[:, 0]
        if len(again):  # what was kept stands in the way: a slate from the start
            nothing = torch.full_like(made[again], self.empty)
            places = (before[again] < self.empty) | todo[rows[again]]
            anew, _ = self._filled(nothing, places, rows[again], barred, left)
            better = self._deficits(anew).sum(1) <= self._deficits(made[again]).sum(1)
            better &= (anew < self.empty).sum(1) >= (made[again] < self.empty).sum(1)
            made = made.index_copy(0, again, torch.where(better.unsqueeze(1), anew, made[again]))
        changed = torch.zeros_like(lanes).index_copy(0, rows, (made != before).sum(1))
        return slate.index_copy(0, rows, made), changed

    def kept_among(self, slate: Tensor, mask: Tensor) -> Tensor:
        """Slates (B, K) that keep the rules with items of a mask bool (B, N) alone."""
        free = F.pad(mask, (0, 1), value=True)  # (B, N+1)
        return self.mended(slate, lambda lanes, items: ~free[lanes].gather(1, items))[0]

    def first_keeping(self, ranked: Tensor) -> Tensor:
        """The first K of rankings int64 (B, M) that keep the rules of whole slates together, in their order: (B, K).

        Where too few do, the first of the others fill up; N where a ranking ends.
        """
        b, k = len(ranked), self.slate_size
        slate = torch.full((b, k), self.empty, device=ranked.device)
        count = torch.zeros(b, dtype=torch.int64, device=ranked.device)
        chosen = torch.zeros_like(ranked, dtype=torch.bool)
        places = torch.arange(k, device=ranked.device)
        for place, item in enumerate(ranked.T):
            fits = self.open(item.unsqueeze(1), slate)[:, 0] & (item < self.empty) & (count < k)
            slate = torch.where(fits.unsqueeze(1) & (places == count.unsqueeze(1)), item.unsqueeze(1), slate)
            chosen[:, place] = fits
            count = count + fits
        first = torch.argsort((~chosen).to(torch.int8), dim=1, stable=True)[:, :k]
        return ranked.gather(1, first)

    def open(self, items: Tensor, picked: Tensor) -> Tensor:
        """Which items (B, C) may join the slates so far (B, K), N where nothing is picked yet: bool (B, C)."""
        free = self._allowed[items]
        for cap in self._caps:
            full = self._counts(cap, picked) >= cap.most  # (B, labels + 1)
            full[:, cap.labels] = False
            free = free & ~full.gather(1, cap.codes[items])
        missing = self._deficits(picked)  # (B, F)
        must = (missing.sum(1) >= (picked == self.empty).sum(1)) & (missing.sum(1) > 0)
        if len(self._least):
            helps = (self._groups[:, items] & (missing > 0).T.unsqueeze(2)).any(0)
            free = free & (helps | ~must.unsqueeze(1))
        return free

    def _keeping(self, slate: Tensor, stock: Tensor | None) -> Tensor:
        """bool (B, K): places whose items are allowed, in stock, and not one too many, from the top down."""
        keep = self._allowed[slate] & (slate < self.empty)
        for cap in self._caps:
            codes = cap.codes[slate]
            earlier = torch.tril(codes.unsqueeze(2) == codes.unsqueeze(1), diagonal=-1) & keep.unsqueeze(1)
            keep = keep & ((earlier.sum(2) < cap.most) | (codes >= cap.labels))
        if stock is not None:
            keep = keep & _served(slate.masked_fill(~keep, self.empty).flatten(), stock).view(slate.shape)
        return keep

    def _with_room(self, slate: Tensor, keep: Tensor) -> Tensor:
        """`keep` without the lowest places that groups with too few items need and no group has a right to."""
        held = self._groups[:, slate] & keep  # (F, B, K)
        rights = held & (held.cumsum(2) <= self._least.view(-1, 1, 1))
        missing = (self._least.view(-1, 1) - held.sum(2)).clamp(min=0).sum(0)  # (B,)
        needed = (missing - (~keep).sum(1)).clamp(min=0)
        spare = keep & ~rights.any(0)
        from_below = spare.flip(1).cumsum(1).flip(1)
        return keep & ~(spare & (from_below <= needed.unsqueeze(1)))

    def _deficits(self, slate: Tensor) -> Tensor:
        """int64 (B, F): how many items each group lacks."""
        return (self._least - self._groups[:, slate].sum(2).T).clamp(min=0)

    def _counts(self, cap: _Cap, slate: Tensor) -> Tensor:
        """int64 (B, labels + 1): items of each code in slates; the last column holds what is not counted."""
        counts = torch.zeros(len(slate), cap.labels + 1, dtype=torch.int64, device=slate.device)
        return counts.scatter_add_(1, cap.codes[slate], (slate < self.empty).to(torch.int64))

    def _filled(
        self, slate: Tensor, todo: Tensor, rows: Tensor, barred: Barred, left: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Slates with an item in every place to fill, from the top; groups with too few items come first."""
        for _ in range(slate.shape[1]):
            place = todo.to(torch.int8).argmax(1)
            lanes = todo.any(1).nonzero()[:, 0]
            while len(lanes):
                found = self._best(slate[lanes], rows[lanes], barred, left)
                taken = found < self.empty
                if left is not None:
                    served = _served(found, left)
                    left = _taken(left, found[served])
                    taken = taken & served
                slate = slate.index_put((lanes[taken], place[lanes[taken]]), found[taken])
                lanes = lanes[~taken & (found < self.empty)]  # somebody else was first: look again
            todo = todo.scatter(1, place.unsqueeze(1), False)
        return slate, left

    def _best(self, slate: Tensor, rows: Tensor, barred: Barred, left: Tensor | None) -> Tensor:
        """The most popular item (b,) that may join each slate (b, K), N where there is none.

        Where stock is short, lanes look for their items from the unit on that is theirs in the queue.
        """
        found = torch.full_like(rows, self.empty)
        order = self._order
        start = torch.zeros_like(rows)
        if left is not None:
            order = order[left[order] > 0]
            queue = left[order].clamp(max=len(rows)).cumsum(0)
            start = torch.searchsorted(queue, torch.arange(len(rows), device=rows.device), right=True)
        if not len(order):
            return found
        short = self._deficits(slate) > 0  # (b, F)
        lanes = torch.arange(len(rows), device=rows.device)
        for first in range(0, len(order), _WINDOW):
            ahead = torch.arange(first, min(first + _WINDOW, len(order)), device=rows.device)
            items = order[(start[lanes].unsqueeze(1) + ahead) % len(order)]  # (b', W)
            free = self.open(items, slate[lanes]) & ~(items.unsqueeze(2) == slate[lanes].unsqueeze(1)).any(2)
            free = free & ~barred(rows[lanes], items)
            if len(self._least):
                helps = (self._groups[:, items] & short[lanes].T.unsqueeze(2)).any(0)
                free = free & (helps | ~short[lanes].any(1, keepdim=True))
            there = free.any(1)
            best = items.gather(1, free.to(torch.int8).argmax(1, keepdim=True))[:, 0]
            found = found.index_copy(0, lanes, torch.where(there, best, self.empty))
            lanes = lanes[~there]
            if not len(lanes):
                break
        return found

    def _check(self) -> None:
        """Raise `RecloopError` where no slate of K items keeps the rules."""
        k, count = self.slate_size, len(self._order)
        if count < k:
            raise RecloopError(
                f"the rules leave {count} of {self.empty} items to show, fewer than slate_size={k}; allow more items, "
                "or lower slate_size"
            )
        for (column, most), cap in zip(self.rules.at_most.items(), self._caps, strict=True):
            codes = torch.bincount(cap.codes[self._order], minlength=cap.labels + 1)
            places = int(codes[: cap.labels].clamp(max=most).sum() + codes[cap.labels])
            if places < k:
                raise RecloopError(
                    f"rule at_most {column}: {most} fills {places} places of a slate and slate_size={k}; raise it, or "
                    "lower slate_size"
                )
        for group, row, least in zip(self.rules.at_least, self._groups, self._least.tolist(), strict=True):
            count = int(row[self._order].sum())
            if count < least:
                raise RecloopError(
                    f"rule at_least {group}: {count} such item(s) may be shown and {least} of {k} places are asked "
                    "for; lower the share, or allow more of them"
                )
        if int(self._least.sum()) > k and len(self._least) > 1:
            raise RecloopError(
                f"rule at_least: the groups ask for {int(self._least.sum())} places of {k}; lower their shares"
            )
        nothing = torch.full((1, k), self.empty, device=self._order.device)
        lane = torch.zeros(1, dtype=torch.int64, device=nothing.device)
        whole, _ = self._filled(nothing, nothing == self.empty, lane, _nothing_barred, None)
        if bool((whole == self.empty).any()) or bool(self._deficits(whole).any()):
            raise RecloopError(f"no slate of {k} items is found that keeps all rules together; loosen one of them")


def _nothing_barred(lanes: Tensor, items: Tensor) -> Tensor:
    return torch.zeros_like(items, dtype=torch.bool)


def _any(entries: Sequence[str], catalogue: Catalogue, rule: str) -> Tensor:
    """bool (N,): the items of any of these entries."""
    chosen = torch.zeros(len(catalogue), dtype=torch.bool)
    for entry in entries:
        chosen |= members(entry, catalogue, rule)
    return chosen


def _served(items: Tensor, stock: Tensor) -> Tensor:
    """bool (M,): who of those who ask for the items (M,) in this order gets a unit of the stock (N+1,)."""
    rising, order = torch.sort(items, stable=True)
    rank = torch.arange(len(items), device=items.device) - torch.searchsorted(rising, rising)
    return torch.zeros_like(items, dtype=torch.bool).index_copy(0, order, rank < stock[rising])


def _taken(stock: Tensor, items: Tensor) -> Tensor:
    """The stock (N+1,) less one unit for each of the items; the empty place N never runs out."""
    items = items[items < len(stock) - 1]
    return stock.index_add(0, items, torch.full_like(items, -1))
