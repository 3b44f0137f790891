"""A user's behaviour as one vector: the items of a history pooled, or the whole history read by a language model."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from recloop.encoders.errors import EncoderError
from recloop.encoders.storage import read_json, read_tensors, replacing_folder, write_json, write_tensors

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Pooling = Literal["mean", "decay"]
_AT_ONCE = 1024


class BehaviorEncoder(Protocol):
    """What a user did, as one vector, from the newest items of a history.

    Attributes:
        dim: length of a vector.
        catalogue_size: N; also the row that stands for an empty place.
        window: only the newest so many items are read.
        refresh: steps of the loop after which a vector is made anew; 0 where that is cheap enough to do at every one.
    """

    dim: int
    catalogue_size: int
    window: int
    refresh: int

    @abstractmethod
    def encode(self, history: Tensor, feedback: Tensor, keep: bool = False) -> Tensor:
        """Histories -> float32 (B, dim) on the device of `history`; a history without items is a zero row.

        Args:
            history: int64 (B, H) item rows, newest last; places holding N are empty and change nothing.
            feedback: float32 (B, H, S) signals as logged.
            keep: these histories are logged ones that come again: worth a place on disk, where there is a cache.
        """

    @abstractmethod
    def save(self, folder: Path | str) -> None:
        """Write all it takes to make this encoder again; the folder is replaced whole."""

    def prefixes(
        self, offsets: Ints, items: Ints, feedback: Floats, every: int, progress: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Every user's history, encoded after each `every` items: what fitting reads in place of the loop's vectors.

        Args:
            offsets: int64 (U+1,); user u's consumption is rows offsets[u] to offsets[u+1].
            items: int64 (M,) item rows, oldest first within a user.
            feedback: float32 (M, S) signals as logged.
            every: items between cuts.
            progress: a progress bar.

        Returns:
            vectors: float32 (C, dim) of the histories cut after `every`, twice `every`, ... items.
            newest: int64 (M,): which cut is the newest that ends before this row, so that its vector knows nothing of
                the row itself; -1 where there is none yet (a zero row stands for it).
        """
        if every < 1:
            raise EncoderError(f"every={every} items between cuts of a history must be at least 1")
        lengths = np.diff(offsets)
        cuts = np.maximum(lengths - 1, 0) // every  # (U,): a cut after the last row would serve none
        first = np.cumsum(cuts) - cuts
        place = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        newest = np.where(place < every, -1, np.repeat(first, lengths) + place // every - 1)
        user = np.repeat(np.arange(len(cuts)), cuts)
        ends = offsets[:-1][user] + every * (np.arange(len(user)) - first[user] + 1)
        vectors = torch.zeros(len(ends), self.dim)
        bar = tqdm(total=len(ends), desc="histories", unit="history", disable=not progress)
        for start in range(0, len(ends), _AT_ONCE):
            chunk = slice(start, start + _AT_ONCE)
            rows = ends[chunk, None] - self.window + np.arange(self.window)  # (c, window), newest last
            held = rows >= offsets[:-1][user[chunk], None]
            history = np.where(held, items[rows.clip(0)], self.catalogue_size)
            signals = np.where(held[..., None], feedback[rows.clip(0)], np.float32(0))
            vectors[chunk] = self.encode(torch.from_numpy(history), torch.from_numpy(signals), keep=True)
            bar.update(len(rows))
        bar.close()
        return vectors, torch.from_numpy(newest)


class ItemBehavior(BehaviorEncoder):
    """The cheap form: vectors of items, computed once, pooled over the newest of a history.

    What an item's vector does not know (a zero row: an item without text) takes no part in the mean. Feedback is not
    read. A mean of rows of length 1 is shorter the more a history wanders; it is left so.

    Args:
        table: float32 (N, w) a row an item; dim is w.
        pooling: `mean` counts all alike; `decay` counts an item the less the more came after it.
        window: newest items that are read.
        decay: what an item counts after one more, in (0, 1); for pooling `decay`.

    Raises:
        EncoderError: for a table with NaN, or settings outside their limits.
    """

    refresh = 0

    def __init__(self, table: Tensor, pooling: Pooling = "mean", window: int = 50, decay: float = 0.9) -> None:
        if pooling not in get_args(Pooling):
            raise EncoderError(f"pooling='{pooling}' of behaviour is unknown; take {' or '.join(get_args(Pooling))}")
        if window < 1 or not 0 < decay < 1:
            raise EncoderError(f"window={window} must be at least 1 and decay={decay} lie in (0, 1)")
        if table.dim() != 2 or not bool(torch.isfinite(table).all()):
            raise EncoderError(
                f"the item vectors of behaviour are {tuple(table.shape)}; they must be finite and (N, w)"
            )
        self.pooling, self.window, self.decay = pooling, window, decay
        self.catalogue_size, self.dim = table.shape
        self.table = torch.cat([table.float(), table.new_zeros(1, self.dim).float()])  # (N+1, w)

    def encode(self, history: Tensor, feedback: Tensor, keep: bool = False) -> Tensor:
        """Histories -> float32 (B, dim); see `BehaviorEncoder`."""
        if self.table.device != history.device:
            self.table = self.table.to(history.device)
        held = history < self.catalogue_size
        age = held.flip(1).cumsum(1).flip(1) - 1  # (B, H): items that came after
        counted = held & (age < self.window) & (self.table != 0).any(1)[history]
        weight = counted.float()
        if self.pooling == "decay":
            weight = weight * self.decay**age
        total = torch.einsum("bh,bhw->bw", weight, self.table[history])
        return total / weight.sum(1, keepdim=True).clamp_min(1e-9)

    def save(self, folder: Path | str) -> None:
        """Write `behavior.json` and `behavior.safetensors`; the folder is replaced whole."""
        facts = {"kind": "items", "pooling": self.pooling, "window": self.window, "decay": self.decay}
        with replacing_folder(Path(folder)) as part:
            write_tensors(part / "behavior.safetensors", {"table": self.table[:-1]})
            write_json(part / "behavior.json", facts)

    @classmethod
    def load(cls, folder: Path | str) -> ItemBehavior:
        """Read what `save` wrote, onto the CPU."""
        facts = _facts(Path(folder), "items")
        return cls(read_tensors(Path(folder) / "behavior.safetensors")["table"], **facts)


def _facts(folder: Path, kind: str) -> dict[str, Any]:
    """The settings of `behavior.json`; `EncoderError` where it is of another kind."""
    facts: dict[str, Any] = read_json(folder / "behavior.json")
    found = facts.pop("kind", None)
    if found != kind:
        raise EncoderError(f"{folder / 'behavior.json'} holds behaviour of kind '{found}', not '{kind}'; build it anew")
    return facts


def load_behavior(folder: Path) -> BehaviorEncoder:
    """Any behaviour encoder from its folder, by the kind that `behavior.json` names."""
    kind = read_json(folder / "behavior.json").get("kind")
    if kind == "items":
        return ItemBehavior.load(folder)
    raise EncoderError(f"{folder / 'behavior.json'} holds behaviour of kind '{kind}', which this version does not know")
