"""Whose answer is whose: how the answers of a group's members lie in the signals of its world, and back.

The signals of a world of groups are the group's own consumption, and behind it all signals of each member in turn:
`click`, `member 1 click`, `member 1 rating`, `member 2 click`, ... Whoever sees a past or an answer sees who took what.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.logs.schema import Signal

_FIRST = "member 1 "


def group_signals(signals: Sequence[Signal], size: int) -> tuple[Signal, ...]:
    """The signals of a world of groups of `size`, from those of one user.

    >>> [signal.name for signal in group_signals([Signal("click")], 2)]
    ['click', 'member 1 click', 'member 2 click']
    """
    found = [signals[0]]
    for member in range(1, size + 1):
        for signal in signals:
            given_on = None if signal.given_on is None else f"member {member} {signal.given_on}"
            found.append(replace(signal, name=f"member {member} {signal.name}", given_on=given_on))
    return tuple(found)


def group_size(signals: Sequence[Signal]) -> int:
    """How many members a group has in a world of these signals; `RecloopError` where it is no world of groups."""
    each = sum(signal.name.startswith(_FIRST) for signal in signals)
    if not each:
        names = ", ".join(signal.name for signal in signals)
        raise RecloopError(
            f"no group answers with the signals {names}; make a world of groups with `grouped(world, 5)`"
        )
    return (len(signals) - 1) // each


def of_members(values: Tensor, size: int) -> Tensor:
    """What each member answered: signals (..., 1 + g S) of a group -> (..., g, S)."""
    return values[..., 1:].reshape(*values.shape[:-1], size, -1)


def of_group(together: Tensor, own: Tensor) -> Tensor:
    """Signals of a group (..., 1 + g S), from its own consumption (...) and its members' signals (..., g, S)."""
    return torch.cat([together.unsqueeze(-1), own.flatten(-2)], dim=-1)


def taken(signals: Tensor, size: int) -> Tensor:
    """What each member took of the places (B, K): signals (B, K, 1 + g S), 0 where not given -> float (B, g, K)."""
    return (of_members(signals, size)[..., 0] > 0.5).to(signals.dtype).transpose(1, 2)


def each_alone(values: Tensor, size: int) -> Tensor:
    """Rows of groups (B, ...) as rows of their members (B g, ...), those of a group behind one another."""
    return values.repeat_interleave(size, dim=0)


def put_last(items: Tensor, signals: Tensor, empty: int) -> tuple[Tensor, Tensor]:
    """Items (B, H) and their signals (B, H, S) in their order, with the empty places before them."""
    order = torch.argsort((items < empty).to(torch.int8), dim=1, stable=True)
    return items.gather(1, order), signals.gather(1, order.unsqueeze(2).expand_as(signals))


def own_histories(history: Tensor, feedback: Tensor, size: int, empty: int) -> tuple[Tensor, Tensor]:
    """What each member consumed, out of a group's history.

    Args:
        history: int64 (B, H) of groups.
        feedback: float32 (B, H, 1 + g S).
        size: g.
        empty: N.

    Returns:
        int64 (B g, H / g), newest last, and float32 (B g, H / g, S).
    """
    own = of_members(feedback, size).transpose(1, 2).flatten(0, 1)  # (B g, H, S)
    items = each_alone(history, size).masked_fill(own[..., 0] <= 0.5, empty)
    items, own = put_last(items, own, empty)
    length = history.shape[1] // size
    return items[:, -length:], own[:, -length:]
