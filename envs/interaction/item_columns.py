"""What a world's items table says of items in numbers and in few words: prices, margins, brands, producers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name


@dataclass(frozen=True)
class Labels:
    """A column of few words.

    Args:
        codes: int64 (N+1,) the place of each item's word among `names`; len(names) where the cell is missing, and in
            row N, the empty place.
        names: the words.
    """

    codes: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class ItemColumns:
    """Columns of the items table by name, over the rows of the catalogue and the empty place N.

    Args:
        numbers: float32 (N+1,) a column; NaN where the cell is missing, 0 in row N.
        labels: what is told in words.
    """

    numbers: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers) + len(self.labels)

    def to(self, device: torch.device) -> ItemColumns:
        """The same on a device."""
        return ItemColumns(
            {name: column.to(device) for name, column in self.numbers.items()},
            {name: Labels(one.codes.to(device), one.names) for name, one in self.labels.items()},
        )

    def labelled(self, name: str) -> Labels:
        """A column as words: its labels, or the different values of a column of numbers; `RecloopError` without it."""
        if name in self.labels:
            return self.labels[name]
        if name not in self.numbers:
            raise RecloopError(unknown_name("item column", name, (*self.labels, *self.numbers)))
        numbers = self.numbers[name][:-1]
        values: Tensor = torch.unique(numbers[~numbers.isnan()])
        codes = torch.searchsorted(values, numbers.nan_to_num(torch.inf)).clamp(max=len(values))
        codes = torch.where(numbers.isnan(), len(values), codes)
        empty = codes.new_full((1,), len(values))
        return Labels(torch.cat([codes, empty]), tuple(f"{value:g}" for value in values.tolist()))

    def tensors(self) -> dict[str, Tensor]:
        """For safetensors; `ItemColumns.of` undoes it, with `names`."""
        numbers = {f"number.{name}": column for name, column in self.numbers.items()}
        return {**numbers, **{f"label.{name}": one.codes for name, one in self.labels.items()}}

    def names(self) -> dict[str, list[str]]:
        """The words of each column of labels."""
        return {name: list(one.names) for name, one in self.labels.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], names: Mapping[str, list[str]]) -> ItemColumns:
        """Undo `tensors` and `names`."""
        found: dict[str, dict[str, Tensor]] = {"number": {}, "label": {}}
        for path, tensor in tensors.items():
            kind, _, name = path.partition(".")
            found[kind][name] = tensor
        return cls(found["number"], {n: Labels(codes, tuple(names[n])) for n, codes in found["label"].items()})


@dataclass(frozen=True)
class ShownItems(Mapping[str, Tensor]):
    """The columns of the items in a slate, by name: `items["price"]` is float32 (B, K), `items["brand"]` int64 (B, K).

    Empty places hold 0, or the code of a missing word. Nothing is looked up before somebody asks.

    Args:
        slate: int64 (B, K) item rows, N where empty.
        columns: on the same device.
    """

    slate: Tensor
    columns: ItemColumns

    def __getitem__(self, name: str) -> Tensor:
        if name in self.columns.numbers:
            return self.columns.numbers[name][self.slate]
        if name in self.columns.labels:
            return self.columns.labels[name].codes[self.slate]
        raise RecloopError(unknown_name("item column", name, self))

    def __iter__(self) -> Iterator[str]:
        yield from self.columns.numbers
        yield from self.columns.labels

    def __len__(self) -> int:
        return len(self.columns)
