"""The one supervised fit: passes of gradient steps, early stopping on what is held out, the best weights kept.

loop = FitLoop(passes=20, learning_rate=1e-3, schedule="cosine", clip=1.0, patience=3)
history = fit(model, loop, batches, loss, held_out, name="my encoder")
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.progress import progress_bar

Batch = TypeVar("Batch")
Schedule = Literal["constant", "linear", "cosine", "warm-cosine"]
"""How the step size goes: it stays; falls evenly to zero; falls by half a cosine; or rises evenly, then does so."""


@dataclass(frozen=True)
class FitLoop:
    """How weights are moved, and for how long.

    Args:
        passes: at most so many over the batches.
        learning_rate: the highest step size.
        optimizer: `adam` (Kingma and Ba 2015) or `adamw`, whose decay leaves the gradient alone (Loshchilov and
            Hutter 2019).
        weight_decay: of AdamW, for all weights that bring none of their own.
        betas: decay of the running means of gradients and of their squares.
        schedule: of the step size.
        lowest_rate: where `cosine` ends.
        warmup: steps over which `warm-cosine` rises.
        steps_a_pass: where given, the step size moves with every step of a run of `passes` times as many; else with
            every pass.
        clip: longest gradient; None for no limit.
        patience: passes without a better held-out loss before the fit stops; None never stops early.
        margin: by how much a held-out loss must be lower to be better.
        seconds: the fit stops after this time, and `warm-cosine` then ends with it; None for no limit. A run cut by
            time cannot be repeated to the bit.
        summed: a batch's loss is a sum over what it counts; steps follow the mean.
        accumulate: batches whose gradients are averaged before the weights move; those left over at the end of a pass
            move nothing. `steps_a_pass` counts steps.
    """

    passes: int
    learning_rate: float
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = "constant"
    lowest_rate: float = 0.0
    warmup: int = 1
    steps_a_pass: int | None = None
    clip: float | None = None
    patience: int | None = None
    margin: float = 0.0
    seconds: float | None = None
    summed: bool = False
    accumulate: int = 1


@dataclass(frozen=True)
class Pass:
    """How one pass went.

    Args:
        number: from 0.
        loss: mean of the batches' losses, weighted by what they count.
        held_out: the held-out loss after the pass; `loss` where nothing is held out.
        learning_rate: step size of its last step.
    """

    number: int
    loss: float
    held_out: float
    learning_rate: float


@dataclass(frozen=True)
class FitHistory:
    """All passes of a fit, and the number of the one whose weights were kept."""

    passes: tuple[Pass, ...]
    best: int


class KeepsFit(Protocol):
    """Where a fit is kept after every pass, so that an interrupted one goes on from there bit for bit.

    Attributes:
        generators: what batches and noise are drawn from, by name; their states are kept too.
    """

    generators: Mapping[str, torch.Generator]

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Tensor]]] | None:
        """Counters, as JSON, and tensors by part and name; None where nothing is kept yet."""

    def save(self, counters: Mapping[str, Any], parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Replace what is kept."""


def fit(
    model: nn.Module,
    loop: FitLoop,
    batches: Callable[[], Iterable[Batch]],
    loss: Callable[[Batch], tuple[Tensor, float]],
    held_out: Callable[[], float] | None = None,
    *,
    groups: Sequence[dict[str, Any]] | None = None,
    log: Callable[[Pass], None] | None = None,
    keep: KeepsFit | None = None,
    name: str = "fit",
    progress: bool = False,
    error: type[RecloopError] = RecloopError,
) -> FitHistory:
    """Fit a model in place; it ends with the weights of its best pass, or the last where nothing says which is best.

    Nothing is drawn at random here: order and noise are the callables', by generators of their own.

    Args:
        model: whose weights are moved.
        loop: how.
        batches: the batches of one pass, in order; called once a pass.
        loss: of a batch, a scalar, and how much the batch counts.
        held_out: the loss that says which pass is best, called without gradients after every pass. Without one, the
            pass's own loss says so if there is a `patience`, and else the last weights stay.
        groups: weights with settings of their own, as PyTorch's optimisers take them; default all alike.
        log: told of every pass.
        keep: where the fit is kept after every pass, and taken up again; None keeps nothing.
        name: of the progress bar and in errors.
        error: what is raised.

    Raises:
        RecloopError: a loss is no longer a finite number; of the type `error`.
    """
    began = time.monotonic()

    def spent() -> float:
        return 0.0 if loop.seconds is None else (time.monotonic() - began) / loop.seconds

    def finite(figure: float, what: str) -> float:
        if not math.isfinite(figure):
            raise error(
                f"{name}: the {what} is {figure} in pass {len(passes) + 1}; lower the learning rate "
                f"({loop.learning_rate:g}), or look for NaN and huge numbers in what is fitted on"
            )
        return figure

    optimizer = _optimizer(groups or [{"params": list(model.parameters())}], loop)
    scheduler = _scheduler(optimizer, loop, spent)
    passes: list[Pass] = []
    best, best_loss, kept = 0, math.inf, None
    found_before = None if keep is None else keep.load()
    if keep is not None and found_before is not None:
        counters, parts = found_before
        passes = [Pass(**one) for one in counters["passes"]]
        best, best_loss, kept = int(counters["best"]), float(counters["best_loss"]), dict(parts["best"]) or None
        _take_up(parts, model, optimizer, scheduler, counters["scheduled"], keep.generators)
    over = loop.patience is not None and bool(passes) and len(passes) - 1 - best >= loop.patience
    left = range(len(passes), len(passes) if over else loop.passes)
    bar = progress_bar(left, desc=name, unit="epoch", disable=not progress)
    for number in bar:
        losses, counts, rate = [], [], loop.learning_rate
        for place, batch in enumerate(batches(), start=1):
            value, count = loss(batch)
            if place % loop.accumulate == 1 % loop.accumulate:
                optimizer.zero_grad(set_to_none=True)
            followed = value / count if loop.summed else value
            (followed / loop.accumulate).backward()  # type: ignore[no-untyped-call]
            losses.append(value.detach())
            counts.append(float(count))
            if place % loop.accumulate:
                continue
            if loop.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), loop.clip)
            optimizer.step()
            rate = float(optimizer.param_groups[0]["lr"])
            if scheduler is not None and loop.steps_a_pass is not None:
                scheduler.step()
            if spent() >= 1:
                break
        if scheduler is not None and loop.steps_a_pass is None:
            scheduler.step()
        mean = finite(_mean(losses, counts, loop.summed), "loss")
        with torch.no_grad():
            found = mean if held_out is None else finite(held_out(), "held-out loss")
        passes.append(Pass(number, mean, found, rate))
        if log is not None:
            log(passes[-1])
        bar.set_postfix(loss=f"{mean:.3f}", held_out=f"{found:.3f}")
        if held_out is None and loop.patience is None:
            best = number
        elif found < best_loss - loop.margin:
            best, best_loss, kept = number, found, _weights(model)
        if keep is not None:
            counters = {"passes": [asdict(one) for one in passes], "best": best, "best_loss": best_loss}
            parts = _parts(model, kept, optimizer, keep.generators)
            keep.save({**counters, "scheduled": 0 if scheduler is None else scheduler.last_epoch}, parts)
        if loop.patience is not None and number - best >= loop.patience:
            break
        if spent() >= 1:
            break
    bar.close()
    if kept is not None:
        model.load_state_dict(kept)
    return FitHistory(tuple(passes), best)


def shuffled(count: int, size: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """The rows 0 to count - 1 in a random order, in batches of `size`, int64; None draws from the global generator."""
    return torch.split(torch.randperm(count, generator=generator), size)


def minimise(value: Callable[[], Tensor], variables: Sequence[Tensor], steps: int = 60) -> None:
    """Move a few variables to a minimum of a smooth function of them, by L-BFGS with a strong Wolfe line search."""
    search = torch.optim.LBFGS(list(variables), max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        found = value()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]


class _WarmCosine(LRScheduler):
    """An even rise over the first steps, times half a cosine over the share done of the run or of its time."""

    def __init__(self, optimizer: torch.optim.Optimizer, warmup: int, steps: int, spent: Callable[[], float]) -> None:
        self.warmup, self.steps, self.spent = warmup, steps, spent
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        rise = min(1.0, (self.last_epoch + 1) / self.warmup)
        share = min(max(self.last_epoch / self.steps, self.spent()), 1.0)
        return [base * rise * 0.5 * (1 + math.cos(math.pi * share)) for base in self.base_lrs]


def _optimizer(groups: Sequence[dict[str, Any]], loop: FitLoop) -> torch.optim.Optimizer:
    if loop.optimizer == "adam":
        return torch.optim.Adam(groups, lr=loop.learning_rate, betas=loop.betas)
    return torch.optim.AdamW(groups, lr=loop.learning_rate, betas=loop.betas, weight_decay=loop.weight_decay)


def _scheduler(optimizer: torch.optim.Optimizer, loop: FitLoop, spent: Callable[[], float]) -> LRScheduler | None:
    steps = loop.passes * (loop.steps_a_pass or 1)
    if loop.schedule == "linear":
        return LambdaLR(optimizer, lambda done: 1 - done / steps)
    if loop.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps, loop.lowest_rate)
    if loop.schedule == "warm-cosine":
        return _WarmCosine(optimizer, loop.warmup, steps, spent)
    return None


def _mean(losses: Sequence[Tensor], counts: Sequence[float], summed: bool) -> float:
    """The mean loss of a pass, added up in the order of its batches; read from the device once."""
    total = 0.0
    for value, count in zip(torch.stack(list(losses)).tolist(), counts, strict=True):
        total += value if summed else value * count
    return total / max(sum(counts), 1)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments and step counts of an optimizer by name; undone by `restore_optimizer`."""
    held = optimizer.state_dict()["state"]
    return {f"{place}.{moment}": value for place, moments in held.items() for moment, value in moments.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_state`; the settings of the groups stay those of this optimizer."""
    held: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        place, _, moment = name.partition(".")
        held.setdefault(int(place), {})[moment] = value
    optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})


def _parts(
    model: nn.Module,
    best: Mapping[str, Tensor] | None,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
) -> dict[str, Mapping[str, Tensor]]:
    """All tensors that a fit goes on from."""
    return {
        "model": model.state_dict(),
        "best": best or {},
        "optimizer": optimizer_state(optimizer),
        "rates": {str(i): torch.tensor(g["lr"], dtype=torch.float64) for i, g in enumerate(optimizer.param_groups)},
        "generators": {name: generator.get_state() for name, generator in generators.items()},
    }


def _take_up(
    parts: Mapping[str, Mapping[str, Tensor]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    scheduled: int,
    generators: Mapping[str, torch.Generator],
) -> None:
    """Undo `_parts`."""
    model.load_state_dict(dict(parts["model"]))
    restore_optimizer(optimizer, parts["optimizer"])
    for place, group in enumerate(optimizer.param_groups):
        group["lr"] = float(parts["rates"][str(place)])
    if scheduler is not None:
        scheduler.last_epoch = scheduled
    for name, generator in generators.items():
        generator.set_state(parts["generators"][name])


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
