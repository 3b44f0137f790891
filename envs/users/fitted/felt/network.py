"""One model of a small neural network on what users felt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.base.fit import FitLoop, fit
from recloop.envs.users.fitted.felt.labelled import Labelled, Objective, Rows, constant_of, too_few
from recloop.envs.users.fitted.layers import linear, start_weights

HIDDEN = (64, 32)
"""Units of the layers."""
_FAR = 4.0
"""Standard deviations beyond which an input is read as no further."""
_BATCH, _PASSES, _RATE, _DROP = 512, 24, 3e-4, 0.4
_STEPS = 250
"""Steps a pass below which steps are larger, by the root of how many are missing."""
_ROWS = 1 << 16
"""Rows scored at once."""


class Network(nn.Module):
    """Two layers on standardised inputs, and a line past them; one number where there was nothing to learn from.

    Args:
        inputs: F.
        constant: what is added to every score.
        size: passes of its fit.
    """

    def __init__(self, inputs: int, constant: float = 0.0, size: int = 0) -> None:
        super().__init__()
        self._size = size
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("constant", torch.tensor(constant))
        self.first = linear(inputs, HIDDEN[0])
        self.second = linear(HIDDEN[0], HIDDEN[1])
        self.last = linear(HIDDEN[1], 1)
        self.past = linear(inputs, 1, bias=False)

    centre: Tensor
    scale: Tensor
    constant: Tensor

    @property
    def size(self) -> int:
        """Passes of its fit."""
        return self._size

    @property
    def learned(self) -> bool:
        """Whether it was fitted."""
        return self._size > 0

    def forward(self, inputs: Tensor, drop: Tensor | None = None) -> Tensor:
        """Rows (R, F) -> (R,); `drop` (R, units) is laid over the first layer."""
        rows = ((inputs - self.centre) * self.scale).clamp(-_FAR, _FAR)
        hidden = F.silu(self.first(rows))
        hidden = hidden if drop is None else hidden * drop
        found: Tensor = self.last(F.silu(self.second(hidden))) + self.past(rows)
        return found.squeeze(-1) + self.constant

    def scores(self, inputs: Tensor) -> Tensor:
        """Raw scores of rows (R, F) -> (R,)."""
        return self(inputs) if self.learned else self.constant.expand(len(inputs))

    @torch.no_grad()
    def of(self, inputs: Rows) -> npt.NDArray[np.float64]:
        """The same of NumPy rows."""
        found = [self.scores(part) for part in torch.split(torch.from_numpy(inputs), _ROWS)]
        scores: npt.NDArray[np.float64] = torch.cat(found or [self.constant[None][:0]]).numpy().astype(np.float64)
        return scores

    def tensors(self) -> dict[str, Tensor]:
        """For safetensors; `read` undoes it."""
        return {**self.state_dict(), "size": torch.tensor(self.size)}

    @classmethod
    def read(cls, stored: dict[str, Tensor]) -> Network:
        """From what `tensors` gave."""
        size = int(stored.pop("size"))
        found = cls(len(stored["centre"]), size=size)
        found.load_state_dict(stored)
        return found.requires_grad_(False)


def trained(rows: Labelled, held_out: Labelled, objective: Objective, seed: int) -> Network:
    """A network fitted on rows, its best pass by the held-out loss; the same bits for the same rows and seed."""
    model = Network(rows.inputs.shape[1], constant_of(rows, objective))
    if too_few(rows, objective) or not len(held_out.values):
        return model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    start_weights(model, generator)
    with torch.no_grad():
        model.last.weight.mul_(0.1)
        model.past.weight.zero_()
        spread = rows.inputs.std(0)
        model.centre.copy_(torch.from_numpy(rows.inputs.mean(0)))
        model.scale.copy_(torch.from_numpy(np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)))
    told = [torch.from_numpy(x) for x in (rows.inputs, rows.values, _weights(rows))]
    seen = [torch.from_numpy(x) for x in (held_out.inputs, held_out.values, _weights(held_out))]

    def loss(inputs: Tensor, values: Tensor, weights: Tensor, drop: Tensor | None = None) -> Tensor:
        raw: Tensor = model(inputs, drop)
        if objective == "binary":
            return F.binary_cross_entropy_with_logits(raw, values, weights)
        return ((raw - values).square() * weights).mean()

    size = min(_BATCH, max(len(rows.values) // 16, 16))
    rate = _RATE * max(_STEPS * size / len(rows.values), 1.0) ** 0.5

    def batches() -> Iterator[Tensor]:
        return iter(torch.split(torch.randperm(len(rows.values), generator=generator), size))

    def of_batch(some: Tensor) -> tuple[Tensor, float]:
        kept = (torch.rand(len(some), HIDDEN[0], generator=generator) >= _DROP).float() / (1 - _DROP)
        inputs, values, weights = (x[some] for x in told)
        return loss(inputs, values, weights, kept), float(len(some))

    def of_held_out() -> float:
        parts = list(zip(*(torch.split(x, _ROWS) for x in seen), strict=True))
        return float(np.average([float(loss(*part)) for part in parts], weights=[len(part[1]) for part in parts]))

    loop = FitLoop(passes=_PASSES, learning_rate=rate, schedule="cosine", weight_decay=0.3, clip=5.0, patience=4)
    history = fit(model, loop, batches, of_batch, of_held_out, name="fit network users", error=UserSimulatorError)
    model._size = history.best + 1
    return model.requires_grad_(False)


def _weights(rows: Labelled) -> Rows:
    """Of mean 1."""
    if rows.weights is None:
        return np.ones_like(rows.values)
    found: Rows = (rows.weights / max(float(rows.weights.mean()), 1e-9)).astype(np.float32)
    return found
