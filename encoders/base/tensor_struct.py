"""Tensors that belong together, lane by lane."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorStruct:
    """Base of dataclasses of tensors with leading dimension B or of other structs; None stands for no lane at all."""

    def where(self, mask: Tensor, other: Self) -> Self:
        """Lane by lane: `other` where `mask` (B,) bool, this one elsewhere.

        >>> from dataclasses import make_dataclass
        >>> Pair = make_dataclass("Pair", ["x"], bases=(TensorStruct,), frozen=True)
        >>> Pair(torch.tensor([1, 2])).where(torch.tensor([True, False]), Pair(torch.tensor([8, 9]))).x
        tensor([8, 2])
        """

        def pick(mine: Any, theirs: Any) -> Any:
            if isinstance(mine, TensorStruct):
                return mine.where(mask, theirs)
            return torch.where(mask.view(-1, *[1] * (mine.dim() - 1)), theirs, mine)

        return replace(self, **{name: pick(mine, getattr(other, name)) for name, mine in self.held().items()})

    def rows(self, index: Tensor) -> Self:
        """The lanes `index` (b,) alone."""

        def pick(mine: Any) -> Any:
            return mine.rows(index) if isinstance(mine, TensorStruct) else mine.index_select(0, index)

        return replace(self, **{name: pick(mine) for name, mine in self.held().items()})

    def put(self, index: Tensor, other: Self) -> Self:
        """These lanes, with `other` in the lanes `index` (b,)."""

        def put(mine: Any, theirs: Any) -> Any:
            return mine.put(index, theirs) if isinstance(mine, TensorStruct) else mine.index_copy(0, index, theirs)

        return replace(self, **{name: put(mine, getattr(other, name)) for name, mine in self.held().items()})

    def to(self, device: torch.device) -> Self:
        """The same lanes on a device."""
        return replace(self, **{name: mine.to(device) for name, mine in self.held().items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Several batches as one, in their order."""
        names = parts[0].held()

        def joined(columns: list[Any]) -> Any:
            return columns[0].concatenate(columns) if isinstance(columns[0], TensorStruct) else torch.cat(columns)

        return replace(parts[0], **{name: joined([getattr(part, name) for part in parts]) for name in names})

    def held(self) -> dict[str, Any]:
        """What of it is by lane, by name."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in held.items() if value is not None}


def tensors_of(lanes: Any) -> list[Tensor]:
    """All tensors that lanes hold, at any depth, what they share not counted; none of what is no lanes."""
    if isinstance(lanes, Tensor):
        return [lanes]
    if isinstance(lanes, TensorStruct):
        lanes = list(lanes.held().values())
    return [tensor for part in lanes for tensor in tensors_of(part)] if isinstance(lanes, list | tuple) else []
