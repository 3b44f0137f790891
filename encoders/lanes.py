"""Tensors that belong together, lane by lane."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lanes:
    """Base of dataclasses whose fields are tensors with leading dimension B (or None, in every lane alike)."""

    def where(self, mask: Tensor, other: Self) -> Self:
        """Lane by lane: `other` where `mask` (B,) bool, this one elsewhere.

        >>> from dataclasses import make_dataclass
        >>> Pair = make_dataclass("Pair", ["x"], bases=(Lanes,), frozen=True)
        >>> Pair(torch.tensor([1, 2])).where(torch.tensor([True, False]), Pair(torch.tensor([8, 9]))).x
        tensor([8, 2])
        """

        def pick(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (mine.dim() - 1)), theirs, mine)

        return replace(self, **{name: pick(mine, getattr(other, name)) for name, mine in self._held().items()})

    def rows(self, index: Tensor) -> Self:
        """The lanes `index` (b,) alone."""
        return replace(self, **{name: mine[index] for name, mine in self._held().items()})

    def put(self, index: Tensor, other: Self) -> Self:
        """These lanes, with `other` in the lanes `index` (b,)."""
        return replace(
            self, **{name: mine.index_copy(0, index, getattr(other, name)) for name, mine in self._held().items()}
        )

    def to(self, device: torch.device) -> Self:
        """The same lanes on a device."""
        return replace(self, **{name: mine.to(device) for name, mine in self._held().items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Several batches as one, in their order."""
        names = parts[0]._held()
        return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def _held(self) -> dict[str, Tensor]:
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in held.items() if value is not None}
