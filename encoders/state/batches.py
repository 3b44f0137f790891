"""Users' sequences as batches of steps, for fitting on the next item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NextItemConfig:
    """How a `StateEncoder` is fitted.

    Args:
        epochs: most passes over the users.
        visits: most items looked at over all passes: a long log gets fewer passes, yet three at least.
        patience: passes without a better validation loss before stopping.
        batch_users: users a batch.
        learning_rate: of AdamW, falling to a tenth by a cosine.
        weight_decay: of AdamW; holds the items' learned residual near what their content says.
        dropout: share of inputs set to zero while fitting.
        window: items of a user a pass looks at; a random window of longer histories.
        group_sizes: neighbouring items made one step, drawn anew a batch, so that a slate's sum is no news.
        validation_share: users held out to stop early.
        validation_places: how many of their newest items are predicted.
        full_softmax_limit: the catalogue size above which negatives are sampled.
        negatives: negatives a batch in a sampled softmax.
        ids: a learned residual for every item beside its content; without, items are known by content alone. Where
            there is no content there is nothing else, whatever this says.
        ids_dropout: share of items a batch that are known by content alone.
    """

    epochs: int = 12
    visits: int = 1_800_000
    patience: int = 3
    batch_users: int = 16
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    dropout: float = 0.3
    window: int = 100
    group_sizes: tuple[int, ...] = (1, 2, 3)
    validation_share: float = 0.1
    validation_places: int = 10
    full_softmax_limit: int = 20_000
    negatives: int = 4_096
    ids: bool = True
    ids_dropout: float = 0.2

    def passes(self, lengths: Ints) -> int:
        """How many passes users of these histories (U,) get at most."""
        visits = int(np.minimum(lengths, self.window).sum())
        return min(self.epochs, max(3, self.visits // max(visits, 1)))


@dataclass(frozen=True)
class Batch:
    """B users, T steps of up to g items.

    Args:
        items: int64 (B, T, g) item rows, 0 in empty places.
        signals: float32 (B, T, g, S) as logged.
        held: bool (B, T, g): places that hold an item.
        asked: bool (B, T, g): places whose item is to be predicted from the steps before.
        profiles: float32 (B, p).
        behavior: float32 (B, T, v) what a language model last made of the history before each step, zero where it
            read nothing; None where none reads histories.
    """

    items: Tensor
    signals: Tensor
    held: Tensor
    asked: Tensor
    profiles: Tensor
    behavior: Tensor | None = None


@dataclass(frozen=True)
class Log:
    """U users' consumption, oldest first: rows offsets[u] to offsets[u+1] are user u's.

    Args:
        items: int64 (M,).
        offsets: int64 (U+1,).
        feedback: float32 (M, S).
        profiles: float32 (U, p).
        behavior: float32 (C, v) vectors of histories cut here and there, and int64 (M,) which of them is the newest
            that ends before a row, -1 where none does (`BehaviorEncoder.prefixes`); None without.
    """

    items: Ints
    offsets: Ints
    feedback: Floats
    profiles: Floats
    behavior: tuple[Tensor, Tensor] | None = None

    def popularity(self, n: int) -> Tensor:
        """How often each item was consumed, (N,)."""
        return torch.from_numpy(np.bincount(self.items, minlength=n).astype(np.float32))

    def batch(
        self,
        users: Ints,
        starts: Ints,
        window: int,
        group: int,
        asked_places: int | None,
        device: torch.device,
    ) -> Batch:
        """`window` items of each user from `starts` (B,) on, in groups; empty places at the end.

        `asked_places` asks for that many of the newest items instead of all.
        """
        counts = np.minimum(self.offsets[users + 1] - self.offsets[users] - starts, window)
        steps = -(-int(counts.max()) // group)
        place = np.arange(steps * group)
        held = place < counts[:, None]  # (B, T g)
        rows = np.where(held, (self.offsets[users] + starts)[:, None] + place, 0)
        asked = held if asked_places is None else held & (place >= counts[:, None] - asked_places)

        def tensor(values: npt.NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(values.reshape(len(users), steps, group, *values.shape[2:])).to(device)

        signals = np.where(held[..., None], self.feedback[rows], np.float32(0))
        items = np.where(held, self.items[rows], 0)
        profiles = torch.from_numpy(self.profiles[users]).to(device)
        behavior = None if self.behavior is None else self._read(rows[:, ::group], held[:, ::group]).to(device)
        return Batch(tensor(items), tensor(signals), tensor(held), tensor(asked), profiles, behavior)

    def _read(self, rows: Ints, held: npt.NDArray[np.bool_]) -> Tensor:
        """What was last made of the history before each step, (B, T, v), by the row of its first item."""
        assert self.behavior is not None
        vectors, newest = self.behavior
        cut = torch.from_numpy(np.where(held, newest.numpy()[rows], -1))
        return torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])[cut]


def batches(
    log: Log, users: Ints, fitting: NextItemConfig, generator: torch.Generator
) -> Iterator[tuple[Ints, Ints, int]]:
    """Users, where their windows start and the group size, batch by batch; like lengths come together."""
    size = fitting.batch_users
    users = users[torch.randperm(len(users), generator=generator).numpy()]
    lengths = np.minimum(log.offsets[users + 1] - log.offsets[users], fitting.window)
    pool = size * 8
    order = np.concatenate(
        [start + np.argsort(lengths[start : start + pool], kind="stable") for start in range(0, len(users), pool)]
    )
    firsts = torch.randperm(-(-len(users) // size), generator=generator) * size
    for first in firsts.tolist():
        chosen = users[order[first : first + size]]
        spare = np.maximum(log.offsets[chosen + 1] - log.offsets[chosen] - fitting.window, 0)
        starts = (torch.rand(len(chosen), generator=generator).numpy() * (spare + 1)).astype(np.int64)
        pick = int(torch.randint(len(fitting.group_sizes), (1,), generator=generator))
        yield chosen, np.minimum(starts, spare), fitting.group_sizes[pick]
