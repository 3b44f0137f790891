"""A user's behaviour as one vector: the items of a history pooled, or the whole history read by a language model."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import EncoderError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import read_json
from recloop.encoders.text.cache import Key, text_key
from recloop.encoders.text.encoder import HashedText, TextEncoder, TextVectors
from recloop.encoders.text.history import HistoryTemplate

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Pooling = Literal["mean", "decay"]
_AT_ONCE = 1024
_RECENT = 16384


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
        bar = progress_bar(total=len(ends), desc="histories", unit="history", disable=not progress)
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


class ItemBehavior(Artifact, BehaviorEncoder):
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

    artifact_file = "behavior"

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

    def stored_facts(self) -> dict[str, Any]:
        """The settings."""
        return {"kind": "items", "pooling": self.pooling, "window": self.window, "decay": self.decay}

    def stored_tensors(self) -> dict[str, Tensor]:
        """The items' vectors."""
        return {"table": self.table[:-1]}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> ItemBehavior:
        """See `Artifact`."""
        settings = _checked_kind(facts, "items", folder)
        return cls(tensors["table"], **settings)


class TextBehavior(Artifact, BehaviorEncoder):
    """V = LM(X): the whole history as one text through a language model.

    Made at the start of a session and every `refresh` steps. Equal histories are encoded once a batch, and the newest
    16,384 vectors stay in memory, so that a user who comes again costs nothing; those of logged histories (`keep`)
    are in the text encoder's cache on disk too. Where a text is longer than the model reads, the oldest is cut.

    Args:
        text: the model; a `TextEncoder` must have `truncate="start"`, or the newest would be cut. What stands in front
            of every history belongs into its `prefix`, which is never cut; the template's `before` may be.
        titles: of all items, by row, (N,).
        signals: name, lowest and highest value of each of the S signals, in order of the feedback's columns; a value
            of 0 outside its bounds was not given.
        template: how a history reads; its `most_items` gives way to `window`.
        window: newest items that are told.
        refresh: steps of the loop between encodings, at least 1.

    Raises:
        EncoderError: for a model that would cut the newest, or settings outside their limits.
        LogError: for a template with a field that is no signal.
    """

    artifact_file = "behavior"

    def __init__(
        self,
        text: TextVectors,
        titles: Sequence[str],
        signals: Sequence[tuple[str, float, float]],
        template: HistoryTemplate | None = None,
        window: int = 50,
        refresh: int = 10,
    ) -> None:
        if window < 1 or refresh < 1:
            raise EncoderError(f"window={window} and refresh={refresh} of behaviour as text must be at least 1")
        if isinstance(text, TextEncoder) and text.truncate != "start":
            raise EncoderError("truncate='end' would cut the newest of a history; make the text encoder with 'start'")
        self.text, self.titles, self.window, self.refresh = text, tuple(titles), window, refresh
        self.signals = tuple((name, float(low), float(high)) for name, low, high in signals)
        self.template = replace(template or HistoryTemplate(), most_items=window)
        if template is not None:
            template.check(name for name, _, _ in self.signals)
        self.catalogue_size, self.dim = len(self.titles), text.dim
        self._recent: OrderedDict[Key, Tensor] = OrderedDict()

    def texts(self, history: Tensor, feedback: Tensor) -> list[str]:
        """Histories (B, H) with signals (B, H, S) as text; one without items is blank."""
        lines: dict[tuple[int, tuple[float, ...]], str] = {}
        texts = []
        for items, signals in zip(history.tolist(), feedback.tolist(), strict=True):
            held = [(i, tuple(values)) for i, values in zip(items, signals, strict=True) if i < self.catalogue_size]
            own = held[-self.window :]
            for key in own:
                if key not in lines:
                    lines[key] = self.template.line(self.titles[key[0]], self._given(key[1]))
            texts.append(self.template.join([lines[key] for key in own]) if own else "")
        return texts

    def encode(self, history: Tensor, feedback: Tensor, keep: bool = False) -> Tensor:
        """Histories -> float32 (B, dim); see `BehaviorEncoder`."""
        told = self.texts(history, feedback)
        keys = [text_key(text) for text in told]
        new = {key: text for key, text in zip(keys, told, strict=True) if text and key not in self._recent}
        if new:
            self._recent.update(zip(new, self.text.encode(list(new.values()), keep=keep), strict=True))
        vectors = torch.zeros(len(keys), self.dim)
        for row, (key, text) in enumerate(zip(keys, told, strict=True)):
            if text:
                vectors[row] = self._recent[key]
                self._recent.move_to_end(key)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return vectors.to(history.device)

    def stored_facts(self) -> dict[str, Any]:
        """The settings, and which kind of text encoder reads; `EncoderError` for one that cannot be read back."""
        if not isinstance(self.text, TextEncoder | HashedText):
            raise EncoderError(f"behaviour read by {type(self.text).__name__} cannot be saved; take a TextEncoder")
        text = "hashed" if isinstance(self.text, HashedText) else "model"
        settings = {"titles": self.titles, "signals": self.signals, "window": self.window, "refresh": self.refresh}
        return {"kind": "text", "text": text, "template": asdict(self.template), **settings}

    def write(self, folder: Path) -> None:
        """Write the settings of the text encoder beside."""
        super().write(folder)
        self.text.save(folder)  # type: ignore[attr-defined]

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> TextBehavior:
        """Context: settings of the text encoder (device, cache, ...), which win over those that were stored."""
        facts = _checked_kind(facts, "text", folder)
        hashed = facts.pop("text") == "hashed"
        text = HashedText.load(folder) if hashed else TextEncoder.load(folder, **context)
        template = facts.pop("template")
        return cls(text, template=HistoryTemplate(**{**template, "lines": tuple(template["lines"])}), **facts)

    def _given(self, values: Sequence[float]) -> dict[str, float]:
        pairs = zip(self.signals, values, strict=True)
        return {name: value for (name, low, high), value in pairs if value != 0 or low <= 0 <= high}


def _checked_kind(facts: dict[str, Any], kind: str, folder: Path) -> dict[str, Any]:
    """The settings without their kind; `EncoderError` where it is another."""
    found = facts.pop("kind", None)
    if found != kind:
        raise EncoderError(f"{folder / 'behavior.json'} holds behaviour of kind '{found}', not '{kind}'; build it anew")
    return facts


def load_behavior(folder: Path) -> BehaviorEncoder:
    """Any behaviour encoder from its folder, by the kind that `behavior.json` names."""
    kind = read_json(folder / "behavior.json").get("kind")
    if kind == "items":
        return ItemBehavior.load(folder)
    if kind == "text":
        return TextBehavior.load(folder)
    raise EncoderError(f"{folder / 'behavior.json'} holds behaviour of kind '{kind}', which this version does not know")
