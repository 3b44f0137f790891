"""Items as the loop reads them, one row each, and the scores of slates read off these rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.users.fitted.heads import Heads, ItemParts
from recloop.envs.users.fitted.inputs.slate_context import Decide, InSlate, Reading, SlateContext
from recloop.envs.users.fitted.memory import Memory

_PLACES = 64
"""Places of which the position bias is kept; longer slates work it out."""


@dataclass(frozen=True)
class ItemRows:
    """All that is read of items, leading dims (...): of the catalogue (N+1,), or of slates by place (K, B).

    Args:
        parts: for the heads.
        character: (..., 1 + rank) for the slate-aware part; empty where there is none.
        columns: (..., c) for the memory.
    """

    parts: ItemParts
    character: Tensor
    columns: Tensor


class Scoring:
    """What depends on items alone, in one table, so that a step gathers once; made anew when weights change.

    Args:
        heads, context, memory: of the users; their weights are read once.
        vectors: float32 (N+1, d) item vectors.

    Attributes:
        table: float32 (N+1, P) all that `ItemRows` holds, side by side, in parts of `widths`.
        positions: float32 (P, S) the bias of the first places.
    """

    def __init__(self, heads: Heads, context: SlateContext | None, memory: Memory, vectors: Tensor) -> None:
        self.heads, self.memory = heads, memory
        table = heads.items(vectors)
        everything = torch.arange(len(vectors), device=vectors.device)
        parts = heads.item_parts(table, everything)
        character = table.new_zeros(len(table), 0) if context is None else context.characters(table, heads.item_bias)
        columns = [parts.want, parts.other.flatten(1), parts.bias, character, memory.columns(table)]
        self.widths = [column.shape[1] for column in columns]
        self.table = torch.cat(columns, dim=1)  # (N+1, P)
        self.everything = everything[:-1]
        self.catalogue = self._split(self.table)
        self.in_slate = None if context is None else InSlate(context, heads.scale)
        self.spent = heads.spent_of(table)
        self.one_at_most = bool(heads.one_at_most)
        self.positions = heads.position_bias(torch.arange(_PLACES, device=vectors.device))  # (P, S)

    def rows(self, items: Tensor) -> ItemRows:
        """Of items (...)."""
        return self._split(F.embedding(items, self.table))

    def scores(
        self, reading: Reading, rows: ItemRows, slate: Tensor, repeats: Tensor | None, decide: Decide
    ) -> tuple[Tensor, Tensor | None]:
        """Calibrated scores with position effects, of slates laid out by place.

        Args:
            reading: of the users, leading dimension B.
            rows: (K, B) of the slate's items.
            slate: int64 (K, B).
            repeats: (K, B) added to consumption because items are not new, or None.
            decide: what is consumed, asked place by place, top first, where places hear of those above.

        Returns:
            (K, B, S), and what was decided (K, B), or None where nobody was asked.
        """
        heads, places = self.heads, len(slate)
        user = heads.user_parts(reading.vector, reading.direct)
        want = (rows.parts.want * user.want).sum(-1, keepdim=True)  # (K, B, 1)
        other = (rows.parts.other * user.other).sum(-1)  # (K, B, S-1)
        bias = self.positions[:places] if places <= _PLACES else heads.position_bias(self.everything[:places])
        raw = torch.cat([want if repeats is None else want + repeats.unsqueeze(-1), other], dim=-1)
        scores = heads.calibrated(raw + rows.parts.bias + user.bias + bias.unsqueeze(1))
        if self.in_slate is None:
            return scores, None
        if places == 1 or self.one_at_most:
            return scores + self.in_slate.unanswered(reading, slate, rows.character), None
        added, decided = self.in_slate.answered(reading, slate, rows.character, scores[..., 0], decide)
        return scores + added, decided

    def _split(self, rows: Tensor) -> ItemRows:
        """Packed rows (..., P) as what they hold."""
        want, other, bias, character, columns = rows.split_with_sizes(self.widths, dim=-1)
        other = other.view(*other.shape[:-1], len(self.heads.signals) - 1, self.heads.rank)
        return ItemRows(ItemParts(want, other, bias), character, columns)
