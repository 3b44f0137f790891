"""Sums that forget: at every place of a sequence, what came before it, decayed."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64
"""Places summed by one matrix product: a sequence costs O(length), and not its square."""


def running_sums(values: Tensor, decay: Tensor) -> Tensor:
    """s_t = decay * s_{t-1} + values_t, with gradients.

    Args:
        values: float32 (B, T, G, w), of G sums side by side.
        decay: float32 (G,) what is left of each after one more place, in (0, 1].

    >>> running_sums(torch.ones(1, 3, 1, 1), torch.tensor([0.5])).flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    place = torch.arange(min(CHUNK, values.shape[1]), device=values.device)
    age = place[:, None] - place[None, :]  # (c, c)
    left = decay[:, None, None] ** age.clamp_min(0)
    matrix = torch.where(age >= 0, left, 0.0)  # (G, c, c)
    fade = decay[:, None] ** (place + 1)  # (G, c)
    carry, parts = None, []
    for part in torch.split(values, CHUNK, dim=1):
        c = part.shape[1]
        total = torch.einsum("gts,bsgw->btgw", matrix[:, :c, :c], part)
        if carry is not None:
            total = total + fade[:, :c].T[None, :, :, None] * carry
        parts.append(total)
        carry = total[:, -1:]
    return torch.cat(parts, dim=1) if parts else values
