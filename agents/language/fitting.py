"""Fine-tuning through the one loop of supervised fits: learning rates by kind of weight, early stopping, adapters."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.language.tokens import Tokens, Words
from recloop.agents.language.tuning import TuningConfig, rank_planner
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import FitHistory, FitLoop, Pass, fit

Batch = TypeVar("Batch")
_SCALAR_RATE = 1e-2
_HIDDEN, _AS_MASK, _AS_OTHER = 0.15, 0.8, 0.1
"""Share of the tokens that are asked for; of these, shares shown as the mask and as a random token (BERT's)."""


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
    loop, steps_a_pass = _loop(tuning, tuning.steps)
    loop = replace(loop, patience=tuning.patience if held_out is not None else None, accumulate=tuning.accumulate)
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

    with _seeded(options.seed, device):
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


class OwnTask(nn.Module):
    """What a language model was trained for, on other texts: masked tokens, or the next one where it has no mask.

    Continued pre-training (Gururangan et al. 2020). Differences: tokens are told by the model's input embeddings behind
    a linear map that starts as the identity and is thrown away afterwards, whatever head the model came with; only
    weights that fine-tuning opens are moved.

    Args:
        language: the model, its weights open as they are to be trained.
        words: of its tokenizer.
        seed: of which tokens are hidden.
    """

    def __init__(self, language: nn.Module, words: Words, seed: int) -> None:
        super().__init__()
        self.language, self.words = language, words
        dim = int(language.config.hidden_size)  # type: ignore[arg-type, union-attr]
        self.map = nn.Linear(dim, dim, device="meta").to_empty(device="cpu")  # which draws nothing
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(len(self.map.weight)))
            self.map.bias.zero_()
        self._draws = torch.Generator().manual_seed(seed)

    def loss(self, tokens: Tokens) -> Tensor:
        """Cross-entropy of the tokens that are asked for, over the whole vocabulary."""
        asked = tokens.held & ~torch.isin(tokens.ids, self.words.special.to(tokens.ids.device))
        ids = tokens.ids
        if self.words.mask is None:
            asked = asked & (torch.arange(ids.shape[1], device=ids.device) > 0)
        else:
            luck = torch.rand(2, *ids.shape, generator=self._draws).to(ids.device)
            other = torch.randint(self.words.size, ids.shape, generator=self._draws).to(ids.device)
            asked = asked & (luck[0] < _HIDDEN)
            ids = torch.where(asked & (luck[1] < _AS_MASK), self.words.mask, ids)
            ids = torch.where(asked & (luck[1] > 1 - _AS_OTHER), other, ids)
        hidden = self.language(input_ids=ids, attention_mask=tokens.held.long()).last_hidden_state
        if self.words.mask is None:
            hidden = torch.cat([hidden[:, :1], hidden[:, :-1]], 1)  # what stands before a token foretells it
        table = self.language.get_input_embeddings().weight  # type: ignore[operator]
        return F.cross_entropy(self.map(hidden[asked]).float() @ table.float().T, tokens.ids[asked])


def pretrain(
    language: nn.Module,
    words: Words,
    tuning: TuningConfig,
    texts: Callable[[int], Tokens],
    options: FitOptions,
) -> FitHistory:
    """Move the weights that are open by the model's own task on texts of the log; `tuning.pretraining` steps.

    Args:
        language: the model within a policy, on its device.
        words: of its tokenizer.
        tuning: how.
        texts: so many texts, drawn anew with every call.
        options: seed, progress bar and log: `train/pretraining`.
    """
    task = OwnTask(language, words, options.seed).to(next(language.parameters()).device).train()
    device = task.map.weight.device

    def loss(batch: Tokens) -> tuple[Tensor, float]:
        with tuning.autocast(device):
            return task.loss(batch), 1.0

    def log(one: Pass) -> None:
        if options.log is not None:
            options.log("train/pretraining", one.loss, one.number + 1)

    loop, steps = _loop(tuning, tuning.pretraining)
    groups = [{"params": [weight for weight in task.parameters() if weight.requires_grad]}]
    with _seeded(options.seed, device):
        return fit(
            task,
            loop,
            lambda: (texts(tuning.batch) for _ in range(steps)),
            loss,
            groups=groups,
            log=log,
            name="pretraining",
            progress=options.progress,
            error=PolicyError,
        )


def _loop(tuning: TuningConfig, steps: int) -> tuple[FitLoop, int]:
    """How so many steps are taken, in as many passes as there are validations, and the steps of a pass."""
    passes = min(tuning.validations, steps)
    each = -(-steps // passes)
    loop = FitLoop(
        passes=passes,
        learning_rate=tuning.rate,
        weight_decay=tuning.weight_decay,
        schedule="warm-cosine",
        warmup=max(1, round(tuning.warmup * passes * each)),
        steps_a_pass=each,
        clip=1.0,
    )
    return loop, each


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """What layers draw comes from the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


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
