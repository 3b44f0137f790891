"""`Context` in the loop: what the slate adds, place by place from the top, with all folded that weights allow."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.users.fitted.context import Context, Reading, groups_of, place_features

Decide = Callable[[Tensor, int], Tensor]
"""Calibrated consumption scores (B,) of a place, counted from the top -> float (B,) what is consumed there."""
_PLACES = 64
"""Places of which the constants are kept; longer slates work them out."""


class InSlate:
    """What a `Context` adds to the scores of slates, the same numbers within rounding, at a third of the cost.

    The first layer is linear, so its parts are worked out where they belong: once a group and user (their states, the
    user, which grouping it is), once a place (where it stands, what surrounds it), and in the loop over places only
    what was consumed above. The last layer is linear, so groupings are added up before it. Everything is laid out by
    place, (K, B, ...), so that a place is one contiguous piece; the loop has no branch on what happens.

    Args:
        context: its weights are read once; make anew when they change.
        scale: float32 (S,) what calibration makes of the raw scores: the additions are to calibrated ones.
    """

    def __init__(self, context: Context, scale: Tensor) -> None:
        first, width, kinds = context.first.weight, context.width, len(context.groups.sizes)
        own, hidden = 1 + context.RANK, context.HIDDEN
        parts = first.split_with_sizes([width, kinds, 2, 3, own, own, context.COMMON], dim=1)
        at, kind, share, place, above_mean, mean, user = (part.T for part in parts)  # (inputs, h) each
        self.context, self.kinds, self.own = context, kinds, own
        self.of_group = at.contiguous()
        self.of_kind, self.of_grouping = context.groups.kind @ kind, kind  # (C, h), (G, h)
        self.of_user = (user.T @ context.common.weight).T.contiguous()  # (user_dim, h)
        self.of_everyone = context.first.bias + user.T @ context.common.bias
        self.of_place = place.contiguous()
        self.place_table = place_features(_PLACES, first) @ place  # (P, h)
        eye = torch.eye(kinds, device=first.device)
        count, everything, anything = context.above.weight.T  # (h,) each
        # One row for each number that is read of a place; a column for each grouping and hidden unit.
        mixed = [
            torch.einsum("gk,h->gkh", eye, count),
            torch.einsum("g,k,h->gkh", eye[0], torch.ones(kinds, device=first.device), everything),
        ]
        rows = [
            (mixed[0] + mixed[1]).flatten(1),  # consumed above, by grouping; the first holds everything
            anything.repeat(kinds).unsqueeze(0),
            torch.einsum("gk,h->gkh", eye, share[0]).flatten(1),
            torch.einsum("gk,h->gkh", eye, share[1]).flatten(1),
            above_mean.repeat(1, kinds),
            mean.repeat(1, kinds),
        ]
        self.of_surroundings = torch.cat(rows)  # (3G + 1 + 2 own, G h)
        self.second, self.second_bias = context.second.weight.T.contiguous(), context.second.bias
        scales = scale.repeat_interleave(1 + own)
        self.last = (context.last.weight.T * scales).repeat(kinds, 1)  # (G h, S (1 + own)): groupings are added up
        self.last_bias = context.last.bias * scales * kinds
        self.signals, self.units = context.signals, hidden
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
        groups = self.context.groups.of[slate]  # (K, B, G)
        base = self._of_groups(reading, groups)  # (K, B, G h)
        same = self._same(groups)  # (K, K, B, G)
        around = self._surroundings(same, slate, character)  # (K, B, 2G + 2 own)
        meets = F.pad(character, (1, 0), value=1.0)  # (K, B, 1 + own)
        above = groups.new_zeros(k, b, self.kinds, dtype=base.dtype)
        found, decided = [], []
        for place in range(k):
            told = torch.cat([above[0], above[0, :, :1].clamp(max=1), around[place]], dim=1)
            hidden = torch.addmm(base[place], told, self.of_surroundings).relu_()
            deeper = torch.addmm(self.second_bias, hidden.view(-1, self.units), self.second).relu_()
            table = torch.addmm(self.last_bias, deeper.view(b, -1), self.last)  # (B, S (1 + own))
            found.append(table)
            consumed = decide(scores[place] + (table[:, : 1 + self.own] * meets[place]).sum(1), place)
            decided.append(consumed)
            above = torch.addcmul(above[1:], same[place, place + 1 :], consumed.view(1, b, 1))
        tables = torch.stack(found).view(k, b, self.signals, 1 + self.own)
        return (tables * meets.unsqueeze(2)).sum(-1), torch.stack(decided)

    def unanswered(self, reading: Reading, slate: Tensor, character: Tensor) -> Tensor:
        """Likewise, where places know nothing of those above: all at once."""
        k, b = slate.shape
        groups = self.context.groups.of[slate]
        around = self._surroundings(self._same(groups), slate, character).flatten(0, 1)
        told = self.of_surroundings[self.kinds + 1 :]
        hidden = torch.addmm(self._of_groups(reading, groups).flatten(0, 1), around, told).relu_()
        deeper = torch.addmm(self.second_bias, hidden.view(-1, self.units), self.second).relu_()
        tables = torch.addmm(self.last_bias, deeper.view(k * b, -1), self.last)
        meets = F.pad(character, (1, 0), value=1.0)
        return (tables.view(k, b, self.signals, 1 + self.own) * meets.unsqueeze(2)).sum(-1)

    def _of_groups(self, reading: Reading, groups: Tensor) -> Tensor:
        """What the first layer makes of the items' groups (K, B, G), the user and the place: (K, B, G h)."""
        k, b, _ = groups.shape
        states = groups_of(reading)  # (B, C, F)
        count = states.shape[1]
        user = torch.addmm(self.of_everyone, reading.vector, self.of_user)  # (B, h)
        table = (states @ self.of_group + self.of_kind) + user.unsqueeze(1)  # (B, C, h)
        lane = torch.arange(b, device=groups.device).view(b, 1) * count
        rows = F.embedding(groups.clamp(max=count - 1) + lane, table.view(b * count, -1))  # (K, B, G, h)
        if self.ungrouped:
            nothing = user.unsqueeze(1) + self.of_grouping
            rows = torch.where((groups < count).unsqueeze(-1), rows, nothing)
        places = self.place_table[:k] if k <= _PLACES else place_features(k, user) @ self.of_place
        return (rows + places.view(k, 1, 1, -1)).view(k, b, -1)

    def _same(self, groups: Tensor) -> Tensor:
        """(K, K, B, G) 1 where two places hold items of one group of a grouping; nothing is of no group."""
        mark = torch.where(groups < self.context.groups.count, groups.to(torch.float32), torch.nan)
        return (mark.unsqueeze(1) == mark.unsqueeze(0)).to(mark.dtype)

    def _surroundings(self, same: Tensor, slate: Tensor, character: Tensor) -> Tensor:
        """Shares of one's groups in the slate and above; mean character above and of the slate: (K, B, 2G + 2 own)."""
        k = len(slate)
        below = torch.ones(k, k, device=slate.device, dtype=character.dtype).tril(-1)
        above = torch.einsum("ij,ijbg->ibg", below, same)
        others = same.sum(1) - torch.diagonal(same, dim1=0, dim2=1).permute(2, 0, 1)
        most = max(k - 1, 1)
        count = (slate < len(self.context.groups.of) - 1).to(character.dtype).cumsum(0).unsqueeze(-1)  # (K, B, 1)
        mean_above = (character.cumsum(0) - character) / (count - 1).clamp_min(1)
        mean = character.sum(0) / count[-1].clamp_min(1)
        return torch.cat([others / most, above / most, mean_above, mean.expand_as(character)], dim=-1)
