"""Layers whose first weights come from a generator of one's own."""

import torch
from torch import nn


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A layer whose weights are not set: torch's own initialisation would draw from the global generator."""
    layer: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, inputs, outputs, bias=bias
    )
    return layer


def gru_cell(inputs: int, hidden: int) -> nn.GRUCell:
    """Likewise, a GRU cell (Cho et al. 2014)."""
    cell: nn.GRUCell = nn.utils.skip_init(nn.GRUCell, inputs, hidden)  # type: ignore[no-untyped-call]
    return cell


def start_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Uniform weights by fan-in (He et al. 2015), zero biases, from a generator of one's own."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() < 2:
                weight.zero_()
            elif weight.numel():
                bound = weight.shape[1] ** -0.5
                weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
