"""How a language model is fine-tuned: which of its weights move, by which steps, and what of them is kept."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from recloop.encoders.base.errors import PolicyError
from recloop.encoders.text.models import number_type

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Method = Literal["none", "head", "top", "all", "lora", "adalora", "ia3", "prefix"]
RATES = {"top": 1e-4, "all": 5e-5, "lora": 3e-4, "adalora": 1e-3, "ia3": 3e-3, "prefix": 3e-3}
"""Learning rate by method. The fewer numbers a method has, and the further from the answer, the longer its steps."""
_ADAPTERS = ("lora", "adalora", "ia3", "prefix")
_START = 0.02
"""Deviation of a new prefix; peft's own draws of deviation 1 would drown what the model has learned."""


@dataclass(frozen=True)
class TuningConfig:
    """What of a language model is trained, and how.

    Args:
        method: `none` (zero-shot), `head` (what stands on top of the model alone), `top` (and its upper layers),
            `all`, or with peft `lora` (Hu et al. 2022), `adalora` (Zhang et al. 2023), `ia3` (Liu et al. 2022),
            `prefix` (Li and Liang 2021).
        steps: of the optimiser.
        batch: examples that are read at once.
        accumulate: batches a step.
        learning_rate: of the language model's own weights or its adapter; None for the method's.
        head_rate: learning rate of what stands on top of the model.
        warmup: share of the steps over which the learning rate rises; afterwards it falls to zero by a cosine.
        weight_decay: of AdamW.
        layers: upper layers that `top` trains.
        targets: what `lora` and `adalora` stand beside: the linear layers of `attention`, or all `linear` ones.
        rank: of `lora`; of `adalora` on average.
        alpha: of `lora` and `adalora`: what they add counts alpha / rank times.
        dropout: of `lora` and `adalora`; the language model's own is off.
        virtual_tokens: of `prefix`.
        validations: how often held-out users are asked; the best weights are kept.
        patience: validations without a better loss before the training stops.
        held_out: share of the train users that are held out, in [0, 1).
        labelled: share of the others whose answers are learned from, in (0, 1], at least four users: what few labels
            are worth. Those held out choose the weights as ever.
        pretraining: steps of the model's own task (masked or next tokens) on the train users' texts, before.
        checkpointing: compute activations twice instead of keeping them: less memory, a third more time.
        dtype: of the arithmetic in training; `auto` is bfloat16 where the device computes in it. Acting is float32.
        bits: of a frozen weight: 32, or 8 or 4 with bitsandbytes on a CUDA device, for adapters.
    """

    method: Method = "lora"
    steps: int = 100
    batch: int = 32
    accumulate: int = 1
    learning_rate: float | None = None
    head_rate: float = 5e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    layers: int = 2
    targets: Literal["attention", "linear"] = "attention"
    rank: int = 8
    alpha: float = 32.0
    dropout: float = 0.05
    virtual_tokens: int = 8
    validations: int = 5
    patience: int = 2
    held_out: float = 0.1
    labelled: float = 1.0
    pretraining: int = 0
    checkpointing: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    bits: int = 32

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise PolicyError(f"method={self.method} of tuning is unknown; take {', '.join(get_args(Method))}")
        for name in ("steps", "batch", "accumulate", "layers", "rank", "virtual_tokens", "validations", "patience"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of tuning must be at least 1")
        for name in ("held_out", "dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of tuning must lie in [0, 1)")
        if not 0 < self.labelled <= 1:
            raise PolicyError(f"labelled={self.labelled} of tuning must lie in (0, 1]")
        if self.pretraining < 0 or (self.pretraining and self.method in ("none", "head")):
            raise PolicyError(
                f"pretraining={self.pretraining} with method={self.method}: it takes 0 steps or more, through weights "
                "of the model that are open; take all, top or an adapter"
            )
        if self.bits not in (4, 8, 32) or (self.bits < 32 and self.method in ("top", "all")):
            raise PolicyError(
                f"bits={self.bits} with method={self.method}; take 32, or 8 or 4 for weights that stay frozen (lora)"
            )

    @property
    def rate(self) -> float:
        """The learning rate of the model's own weights or its adapter."""
        return RATES.get(self.method, 0.0) if self.learning_rate is None else self.learning_rate

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return self.method != "none"

    def autocast(self, device: torch.device) -> torch.autocast:
        """The arithmetic of training."""
        dtype = number_type(self.dtype, device)
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def opened(model: PreTrainedModel, tuning: TuningConfig) -> PreTrainedModel:
    """The model with the weights of the method open to training and all others frozen.

    Args:
        model: as loaded; changed in place.
        tuning: how.

    Raises:
        PolicyError: peft is not installed or does not know the model, or it has fewer layers than are to be trained.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0  # the steps are few, and its draws take a third of the time of one
    model.requires_grad_(tuning.method == "all")
    if tuning.method == "top":
        for name, weight in model.named_parameters():
            weight.requires_grad_(_is_upper(name, model, tuning.layers))
    if tuning.method in _ADAPTERS:
        model = _with_adapter(model, tuning)
    if tuning.checkpointing and tuning.trains:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    return model


def changed(module: nn.Module) -> dict[str, Tensor]:
    """What training may have changed, by name: all that is kept beside the base model's name."""
    names = {name for name, weight in module.named_parameters() if weight.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name in names or ".ranknum." in name}


def bring_back(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Undo `changed`; `PolicyError` where the names or shapes are not this module's."""
    own = changed(module)
    odd = sorted(own.keys() ^ tensors.keys()) or [n for n in sorted(own) if own[n].shape != tensors[n].shape]
    if odd:
        raise PolicyError(f"the saved weights do not fit the model: {odd[0]} differs; train the policy anew")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def merged(module: nn.Module) -> None:
    """Add what low-rank and scaling adapters say to the weights they stand beside: acting then costs nothing more."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()


def rank_planner(module: nn.Module) -> Callable[[int], None] | None:
    """What `adalora` wants called with the number of every step done, while its gradients are there; else None."""
    planners = [own for own in module.modules() if hasattr(own, "update_and_allocate")]
    return planners[0].update_and_allocate if planners else None  # type: ignore[return-value]


def _with_adapter(model: PreTrainedModel, tuning: TuningConfig) -> Any:
    try:
        import peft
    except ImportError:
        raise PolicyError(
            f"tuning.method={tuning.method} needs peft; pip install 'recloop[text]', or take head, top or all"
        ) from None
    config: Any
    steps = tuning.steps
    low_rank: dict[str, Any] = {"lora_alpha": tuning.alpha, "lora_dropout": tuning.dropout}
    if tuning.method == "lora":
        config = peft.LoraConfig(r=tuning.rank, target_modules=_targets(model, tuning), **low_rank)
    elif tuning.method == "adalora":
        config = peft.AdaLoraConfig(
            init_r=tuning.rank * 3 // 2,
            target_r=tuning.rank,
            target_modules=_targets(model, tuning),
            total_step=steps + 1,
            tinit=steps // 5,
            tfinal=steps // 3,
            deltaT=max(1, steps // 50),
            **low_rank,
        )
    elif tuning.method == "ia3":
        config = peft.IA3Config()
    else:
        config = peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=tuning.virtual_tokens)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that it has renamed
            wrapped = peft.get_peft_model(model, config)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise PolicyError(
            f"peft cannot lay method={tuning.method} onto a model of type {model.config.model_type} ({reason}); "
            "take lora, top or all"
        ) from None
    if tuning.method == "prefix":
        with torch.no_grad():
            for name, weight in wrapped.named_parameters():
                if name.startswith("prompt_encoder"):
                    weight.mul_(_START)
    return wrapped


def _targets(model: PreTrainedModel, tuning: TuningConfig) -> list[str]:
    """Names of the linear layers within the model's blocks that low-rank adapters stand beside."""
    from transformers.pytorch_utils import Conv1D

    within = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and _block(name) is not None
    ]
    return [name for name in within if "att" in name] or within if tuning.targets == "attention" else within


def _block(name: str) -> int | None:
    """The number of the block that a weight belongs to.

    >>> _block("encoder.layer.4.attention.self.query"), _block("embeddings.word_embeddings")
    (4, None)
    """
    found = re.search(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.", f"{name}.")
    return int(found[1]) if found else None


def _is_upper(name: str, model: PreTrainedModel, layers: int) -> bool:
    depth = int(model.config.num_hidden_layers)
    if layers > depth:
        raise PolicyError(f"tuning.layers={layers} of a model that has {depth}; train {depth} or fewer, or all")
    block = _block(name)
    return block is not None and block >= depth - layers
