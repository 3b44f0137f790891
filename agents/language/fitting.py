"""Fine-tuning through the one loop of supervised fits: learning rates by kind of weight, early stopping, adapters."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from recloop.agents.language.tuning import TuningConfig, rank_planner
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import FitHistory, FitLoop, Pass, fit

Batch = TypeVar("Batch")
_SCALAR_RATE = 1e-2


def fine_tune(
    module: nn.Module,
    tuning: TuningConfig,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[Batch], Tensor],
    held_out: Callable[[], float] | None,
    options: FitOptions,
    name: str,
) -> FitHistory:
    """Move the weights that are open; they end as they were when held-out users were foretold best.

    Weights of the language model or its adapter have the method's learning rate, our own on top of it `head_rate`, and
    single numbers 0.01. Everything that layers draw (dropout) comes from one seed, and the global
    generator is left as it was. AdaLoRA's ranks follow its importance scores; its penalty that keeps the factors
    orthogonal is left out.

    Args:
        module: `language` is the language model within it.
        tuning: how.
        batches: so many of `tuning.batch` examples.
        loss: mean of a batch.
        held_out: the loss that says which weights are best.
        options: seed, progress bar and log: `train/loss` and `validation/loss` a validation.
        name: in errors.
    """
    device = next(module.parameters()).device
    passes = min(tuning.validations, tuning.steps)
    steps_a_pass = -(-tuning.steps // passes)
    planner, done = rank_planner(module), 0

    def counted(batch: Batch) -> tuple[Tensor, float]:
        nonlocal done
        if planner is not None and done and done % tuning.accumulate == 0:
            planner(done // tuning.accumulate)  # the last step's gradients are still there
        done += 1
        module.train()
        with tuning.autocast(device):
            return loss(batch), 1.0

    def validated() -> float:
        module.eval()
        assert held_out is not None
        with tuning.autocast(device):
            return held_out()

    def log(one: Pass) -> None:
        if options.log is not None:
            options.log("train/loss", one.loss, one.number + 1)
            options.log("validation/loss", one.held_out, one.number + 1)

    loop = FitLoop(
        passes=passes,
        learning_rate=tuning.rate,
        weight_decay=tuning.weight_decay,
        schedule="warm-cosine",
        warmup=max(1, round(tuning.warmup * passes * steps_a_pass)),
        steps_a_pass=steps_a_pass,
        clip=1.0,
        patience=tuning.patience if held_out is not None else None,
        accumulate=tuning.accumulate,
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        history = fit(
            module,
            loop,
            lambda: batches(steps_a_pass * tuning.accumulate),
            counted,
            None if held_out is None else validated,
            groups=_groups(module, tuning),
            log=log,
            name=name,
            progress=options.progress,
            error=PolicyError,
        )
    module.eval()
    return history


def _groups(module: nn.Module, tuning: TuningConfig) -> list[dict[str, object]]:
    open_ = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
    language = [weight for name, weight in open_ if name.startswith("language.")]
    own = [weight for name, weight in open_ if not name.startswith("language.")]
    groups: list[dict[str, object]] = [
        {"params": language, "lr": tuning.rate},
        {"params": [w for w in own if w.dim() > 0], "lr": tuning.head_rate},
        {"params": [w for w in own if w.dim() == 0], "lr": _SCALAR_RATE, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
