"""Layers whose first weights come from a generator of one's own."""

import torch
from torch import Tensor, nn


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


def moved(cell: nn.GRUCell, inputs: Tensor, hidden: Tensor) -> Tensor:
    """A GRU cell's next state, rows (R, i) and (R, h) -> (R, h): `cell` itself where gradients flow.

    Elsewhere the same numbers within rounding: gates that lie apart, and tanh by the sigmoid, which is cheaper.
    """
    if torch.is_grad_enabled():
        found: Tensor = cell(inputs, hidden)
        return found
    h = cell.hidden_size
    bias, bias_back = cell.bias_ih, cell.bias_hh
    both = torch.addmm((bias + bias_back)[: 2 * h], inputs, cell.weight_ih[: 2 * h].T)
    reset, kept = both.addmm_(hidden, cell.weight_hh[: 2 * h].T).sigmoid_().chunk(2, dim=1)  # (R, h) each
    new = torch.addmm(bias[2 * h :], inputs, cell.weight_ih[2 * h :].T)
    back = torch.addmm(bias_back[2 * h :], hidden, cell.weight_hh[2 * h :].T)
    new = new.addcmul_(reset, back).mul_(2).sigmoid_().mul_(2).sub_(1)
    return torch.lerp(new, hidden, kept)


def start_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Uniform weights by fan-in (He et al. 2015), zero biases, from a generator of one's own."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() < 2:
                weight.zero_()
            elif weight.numel():
                bound = weight.shape[1] ** -0.5
                weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
