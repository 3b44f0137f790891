"""Vectors kept on disk by content: what was encoded once is read back, and a damaged file is not believed."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from recloop.encoders.base.storage import replacing_file

Key = bytes
"""sha256 of a text, 32 bytes."""


def text_key(text: str) -> Key:
    """The key of a text; unpaired surrogates are kept apart rather than refused."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class VectorCache:
    """Rows by key in one folder.

    Every `write` adds one file, named by the sha256 of its bytes: a file whose bytes do not give its name is removed
    and its rows are encoded anew. Several processes may write at once. Where the folder cannot be written, a
    warning says so and nothing is kept.

    Args:
        folder: where the files lie; one folder for one encoder and its settings.
        dim: length of a row.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder, self.dim = folder, dim
        self.cut: set[Key] = set()
        """Keys of texts that were too long and cut, of the rows read or written so far."""
        self._rows: dict[Key, Tensor] | None = None

    def read(self) -> Mapping[Key, Tensor]:
        """All rows by key."""
        if self._rows is None:
            self._rows = {}
            for path in sorted(self.folder.glob("*.safetensors")):
                self._rows.update(self._shard(path))
        return self._rows

    def write(self, keys: list[Key], rows: Tensor, cut: Tensor | None = None) -> None:
        """Add rows (n, dim) under n keys; `cut` (n,) bool: which texts were cut."""
        self.read()
        assert self._rows is not None
        cut = torch.zeros(len(keys), dtype=torch.bool) if cut is None else cut
        self._rows.update(zip(keys, rows, strict=True))
        self.cut.update(itertools.compress(keys, cut.tolist()))
        packed = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 32)
        payload = save({"keys": packed, "rows": rows.contiguous(), "cut": cut})
        name = hashlib.sha256(payload).hexdigest()[:32]
        try:
            with replacing_file(self.folder / f"{name}.safetensors") as part:
                part.write_bytes(payload)
        except OSError as error:
            warnings.warn(
                f"text vectors cannot be kept in {self.folder} ({error.strerror}); the next run encodes them again. "
                "Set RECLOOP_CACHE to a folder that can be written",
                stacklevel=2,
            )

    def _shard(self, path: Path) -> dict[Key, Tensor]:
        """The rows of one file, or nothing where it is damaged."""
        try:
            payload = path.read_bytes()
            if hashlib.sha256(payload).hexdigest()[:32] != path.stem:
                raise ValueError("its bytes have changed")
            tensors = load(payload)
            keys, rows, cut = [bytes(key) for key in tensors["keys"].numpy()], tensors["rows"], tensors["cut"]
            if rows.shape != (len(keys), self.dim) or cut.shape != (len(keys),):
                raise ValueError(f"it holds rows of {tuple(rows.shape)}")
            if not bool(torch.isfinite(rows).all()):
                raise ValueError("it holds NaN")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            warnings.warn(f"{path} is damaged ({error}) and is left out; its texts are encoded again", stacklevel=2)
            path.unlink(missing_ok=True)
            return {}
        self.cut.update(itertools.compress(keys, cut.tolist()))
        return dict(zip(keys, rows, strict=True))
