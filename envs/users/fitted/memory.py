"""What a family remembers of its users, and the sizes that all families are built to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from recloop.envs.interaction.response import State
from recloop.envs.users.fitted.inputs.slate_context import Reading, Recalled


@dataclass(frozen=True)
class Sizes:
    """All it takes to build fitted users, before their weights.

    Args:
        catalogue_size: N.
        item_dim: d.
        profile_dim: p.
        exposures: whether they were fitted on what was shown, and so feel what is shown to them.
        positions: places with a bias of their own.
        repeats: whether the log holds repeated consumption.
        hidden, rank, residual, lead: as in `FitConfig`.
        groups: how many groups each grouping of the items has.
        days: whether days away were learned.
    """

    catalogue_size: int
    item_dim: int
    profile_dim: int
    exposures: bool
    positions: int
    repeats: bool
    hidden: int
    rank: int
    residual: int
    lead: int = 5
    groups: tuple[int, ...] = ()
    days: bool = False


def session_clock(steps: Tensor) -> Tensor:
    """How far a session is, (B,) slates -> (B, 2): 1 at its start and falling; slowly rising."""
    return torch.stack([1 / (1 + steps), torch.log1p(steps) / 3], dim=-1)


@dataclass(frozen=True)
class FittedState(State):
    """What every family's state begins with.

    Args:
        steps: float32 (B,) slates answered in this session.
        session: float32 (B, q) sums over what was answered in it.
    """

    steps: Tensor
    session: Tensor


class Memory(nn.Module, ABC):
    """How a family remembers: from steps to what the heads read. Leading dimension B of every state.

    Attributes:
        user_dim: length of the user's vector.
        group_width: features of each group, in logs with exposures.
        direct: whether readings hold a vector in item space.
        looks_back: whether it reads the past itself (`recall`, `repeats`).
    """

    user_dim: int
    group_width: int = 0
    direct: bool = False
    looks_back: bool = False

    @abstractmethod
    def blank(self, profile: Tensor) -> Any:
        """Users of whom only the profile (B, p) is known."""

    def columns(self, table: Tensor) -> Tensor:
        """What is read of every item, (N+1, c), from the table (N+1, d+residual); default all of it."""
        return table

    @abstractmethod
    def inputs(self, rows: Tensor, items: Tensor, signals: Tensor, shown: bool) -> Tensor:
        """Steps as vectors (..., i), order-free over places: items (..., K), signals (..., K, S).

        `rows` (..., K, c) are the items' `columns`.
        `shown` is False for logged consumption of which nobody knows what else was shown. A step in which
        nothing happened must be told by the vector.
        """

    @abstractmethod
    def advance(self, state: Any, step: Tensor) -> Any:
        """The state after a step (B, i), its `steps` not yet counted on; unchanged where nothing happened."""

    def at(self, state: Any, steps: Tensor, away: Tensor | None = None) -> Any:
        """The state where a session is `steps` (B,) slates old, its sums begun anew with the first of them, which came
        `away` (B,) days after the last session."""
        return replace(state, steps=steps, session=state.session.masked_fill((steps == 0).unsqueeze(1), 0.0))

    @abstractmethod
    def read(self, state: Any) -> Reading:
        """What the state tells, leading dimension B."""

    def recall(self, reading: Reading, past: Recalled, columns: Tensor) -> Reading:
        """The reading completed from the past, leading dims (...), with the items' `columns`."""
        return reading

    def repeats(self, history: Tensor, shown: Tensor, items: Tensor) -> Tensor | None:
        """What is added to consumption because items are not new: (B, H), (B, L, K), (B, C) or (C,) -> (B, C)."""
        return None
