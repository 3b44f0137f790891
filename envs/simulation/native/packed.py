"""Lanes as two matrices, of float32 and of int64: all that a lane keeps lies side by side in one row of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.tensor_struct import TensorStruct

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowPart:
    """Where a tensor lies in a row.

    Args:
        floats: in the row of float32; else in that of int64.
        start, stop: its first column, and the one behind its last.
        shape: of one lane.
    """

    floats: bool
    start: int
    stop: int
    shape: tuple[int, ...]


class RowLayout:
    """Where everything that lanes keep lies in their rows: tensors by name, structs of them name by name.

    Args:
        parts: tensors (B, ...) or `TensorStruct`, by name; laid out in this order.

    Attributes:
        places: by dotted name, such as `past.history`.
        width: columns of float32 and of int64.

    Raises:
        TypeError: a tensor that is neither float32 nor int64, or lanes of another kind.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = dict(parts)
        self.places: dict[str, RowPart] = {}
        width = [0, 0]
        for name, tensor in _leaves(parts):
            if tensor.dtype not in (torch.float32, torch.int64):
                raise TypeError(f"{name} is {tensor.dtype}")
            floats = tensor.dtype == torch.float32
            start, shape = width[not floats], tuple(tensor.shape[1:])
            width[not floats] = start + math.prod(shape)
            self.places[name] = RowPart(floats, start, width[not floats], shape)
        self.width = (width[0], width[1])

    def rows(self, lanes: int) -> tuple[Floats, Ints]:
        """Empty rows for so many lanes."""
        return np.zeros((lanes, self.width[0]), np.float32), np.zeros((lanes, self.width[1]), np.int64)

    def pack(self, parts: Mapping[str, Any], floats: Floats, ints: Ints) -> None:
        """Write lanes laid out like these into rows (B, F) and (B, I)."""
        for name, tensor in _leaves(parts):
            place = self.places[name]
            rows = floats if place.floats else ints
            rows[:, place.start : place.stop] = tensor.numpy().reshape(len(tensor), -1)

    def copied(self, name: str, floats: Floats, ints: Ints) -> Any:
        """A part of rows (B, F) and (B, I) as tensors of its own."""
        return self._copied(name, self._parts[name], floats, ints)

    def start(self, name: str) -> int:
        """The first column of a tensor; 0 of one that no lane has."""
        return self.places[name].start if name in self.places else 0

    def _copied(self, name: str, part: Any, floats: Floats, ints: Ints) -> Any:
        if isinstance(part, Tensor):
            place = self.places[name]
            rows = floats if place.floats else ints
            found = np.array(rows[:, place.start : place.stop]).reshape(len(rows), *place.shape)
            return torch.from_numpy(found)
        held = {key: self._copied(f"{name}.{key}", value, floats, ints) for key, value in part.held().items()}
        return replace(part, **held)


def _leaves(parts: Mapping[str, Any], above: str = "") -> list[tuple[str, Tensor]]:
    """All tensors of parts with their dotted names."""
    found: list[tuple[str, Tensor]] = []
    for name, part in parts.items():
        if isinstance(part, Tensor):
            found.append((above + name, part))
        elif isinstance(part, TensorStruct):
            found += _leaves(part.held(), f"{above}{name}.")
        else:
            raise TypeError(f"{above}{name} is a {type(part).__name__}")
    return found
