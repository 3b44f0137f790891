"""Calls that can be repeated: the arguments of one answer, some of their lanes, and whether two results are equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.users.contract import UserSimulator


@dataclass(frozen=True)
class Moment:
    """The arguments of one call of `respond`."""

    state: Any
    past: Past
    slate: Tensor
    draw: Draw

    def respond(self, simulator: UserSimulator) -> Callable[[], Any]:
        """The call, to be made."""
        return lambda: simulator.respond(self.state, self.past, self.slate, self.draw)

    def rows(self, index: Tensor) -> Moment:
        """The same call for some lanes alone."""
        return Moment(self.state.rows(index), self.past.rows(index), self.slate[index], Draw(self.draw.key[index]))


def rows_of(record: Any, index: Tensor) -> Any:
    """Some lanes of a dataclass of tensors."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return replace(record, **{name: None if value is None else value[index] for name, value in values.items()})


def close(one: Any, two: Any, tolerance: float) -> bool:
    """Whether two trees of tensors hold the same, floats within a tolerance."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if one.shape != two.shape or one.dtype != two.dtype:
            return False
        if one.dtype.is_floating_point:
            return bool(torch.allclose(one, two, rtol=tolerance, atol=tolerance, equal_nan=True))
        return bool(torch.equal(one, two))
    if is_dataclass(one) and type(one) is type(two):
        return all(close(getattr(one, f.name), getattr(two, f.name), tolerance) for f in fields(one))
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        return len(one) == len(two) and all(close(a, b, tolerance) for a, b in zip(one, two, strict=True))
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(close(one[key], two[key], tolerance) for key in one)
    if hasattr(one, "__dict__") and type(one) is type(two):
        return close(vars(one), vars(two), tolerance)
    try:
        return bool(one == two)
    except (ValueError, TypeError, RuntimeError):
        return repr(one) == repr(two)


def tensors_of(tree: Any) -> list[tuple[str, Tensor]]:
    """All tensors of a tree of dataclasses, tuples, dicts and plain objects, with where they stand."""
    if isinstance(tree, Tensor):
        return [("", tree)]
    if isinstance(tree, tuple | list):
        named = [(f"[{place}]", part) for place, part in enumerate(tree)]
    elif isinstance(tree, dict):
        named = [(f".{name}", part) for name, part in tree.items()]
    else:
        named = [(f".{name}", part) for name, part in getattr(tree, "__dict__", {}).items()]
    return [(f"{name}{rest}", tensor) for name, part in named for rest, tensor in tensors_of(part)]
