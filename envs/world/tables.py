"""The tables of a world: its items, its users, and the card that says what to believe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from recloop.encoders.base.described import Described
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.item_columns import ItemColumns

Part = Literal["train", "fit", "tune", "judge", "evaluate", "all"]
"""Disjoint parts of the users. `train` is `fit` (training users) and `tune` (the validation simulator) together."""
PARTS = ("fit", "tune", "judge", "evaluate")


@dataclass(frozen=True)
class Catalogue(Described):
    """The items, by row.

    Args:
        ids: external ids, (N,).
        titles: what a person reads, (N,).
        texts: what the language model read, (N,).
        popularity: float32 (N,) how often the train users consumed each item.
        groups: int64 (N+1, G) each item's group in each of G groupings; row N holds how many groups a grouping has,
            and so does an item that belongs to none.
        group_names: of the G groupings.
        entities: names of the items' entities in the knowledge graph, None where not linked, (N,); empty where nobody
            recorded them.
        columns: prices, margins, brands and the like, for rewards and rules; empty in worlds built before them.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    popularity: Tensor
    groups: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    group_names: tuple[str, ...] = ()
    entities: tuple[str | None, ...] = ()
    columns: ItemColumns = field(default_factory=ItemColumns)

    @cached_property
    def rows(self) -> dict[str, int]:
        """External id -> row."""
        return {name: row for row, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class UserTable(Described):
    """The users, by row, as they arrive.

    Args:
        ids: external ids, (U,).
        part: int64 (U,) index into `PARTS`.
        profile: float32 (U, p) features.
        profile_names: names of the p features.
        history, feedback: (U, H), (U, H, S) the newest logged consumptions; see `Past`.
        shown, answers: (U, L, K), (U, L, K, S) the newest logged slates; see `Past`.
        instructions: what each user would ask for, in words, (U,); empty where the world has no instruction encoder.
        instruction_vectors: float32 (U, d_u) the same as vectors.
    """

    ids: tuple[str, ...]
    part: Tensor
    profile: Tensor
    profile_names: tuple[str, ...]
    history: Tensor
    feedback: Tensor
    shown: Tensor
    answers: Tensor
    instructions: tuple[str, ...] = ()
    instruction_vectors: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def rows(self, part: Part | str) -> Tensor:
        """Row numbers of one part, int64 rising."""
        if part == "all":
            return torch.arange(len(self.part))
        if part == "train":
            return ((self.part == 0) | (self.part == 1)).nonzero()[:, 0]
        if part not in PARTS:
            raise RecloopError(unknown_name("part of the users", part, (*PARTS, "train", "all")))
        return (self.part == PARTS.index(part)).nonzero()[:, 0]

    def tensors(self) -> dict[str, Tensor]:
        """The columns that are numbers, by name on disk; instructions only where there are any."""
        names = ("part", "profile", "history", "feedback", "shown", "answers")
        held = {name: getattr(self, name) for name in names}
        return {**held, "wish_vectors": self.instruction_vectors} if self.instructions else held

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Card(Described):
    """What a person must know before believing a world.

    Args:
        learned: what was fitted and on what, with its held-out figures.
        assumed: what the log does not tell and was set by hand.
        not_claimed: what must not be concluded from this world.
        figures: numbers by name (counts, repeat rate, fits), for tables.
        cleaning: rows dropped or repaired, by reason.
    """

    learned: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    not_claimed: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    cleaning: Mapping[str, Any] = field(default_factory=dict)
