"""One vector of what several sources say of an item: three ways to weigh them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

Fusion = Literal["concat", "gated", "attention"]


class ConcatFusion(nn.Module):
    """All sources count alike: with each source's map, a linear map of all sources side by side.

    A source that an item lacks is a learned token of that source.

    Args:
        sources: k.
        dim: d.
        generator: draws the starting weights; this fusion starts from zeros.
    """

    def __init__(self, sources: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.missing_tokens = nn.Parameter(torch.zeros(sources, dim))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """What each source says (b, k, d), and which say anything, bool (b, k): one vector an item, (b, d)."""
        return torch.where(present.unsqueeze(-1), tokens, self.missing_tokens).sum(-2)


class GatedFusion(nn.Module):
    """Every unit of an item's vector chooses among the sources, having seen all of them.

    The gated multimodal unit (Arevalo et al. 2017). Differences: gates read the projected sources and add up to 1 by a
    softmax over those present, as the unit for two modalities does, but for any number; no tanh, which would bend the
    angles between texts. Starts as the mean of the sources.

    Args:
        sources: k.
        dim: d.
        generator: draws the starting weights; this fusion starts from zeros.
    """

    def __init__(self, sources: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(sources * dim, sources * dim))
        self.bias = nn.Parameter(torch.zeros(sources, dim))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """As `ConcatFusion`; a source that an item lacks gets no weight."""
        heard = tokens * present.unsqueeze(-1)  # (b, k, d)
        logits = (heard.flatten(1) @ self.gate).view_as(heard) + self.bias
        return (_shares(logits, present.unsqueeze(-1)) * heard).sum(1)


class AttentionFusion(nn.Module):
    """A learned query attends over an item's sources: those whose key answers it count more.

    Pooling by attention (Set Transformer, Lee et al. 2019). Differences: one query and one head, no layers after it;
    keys know which source they come from; values are the projected sources themselves. Starts as their mean.

    Args:
        sources: k.
        dim: d.
        generator: draws the starting weights.
    """

    def __init__(self, sources: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        scale = 1 / math.sqrt(dim)
        self.key = nn.Parameter(torch.randn(dim, dim, generator=generator) * scale)
        self.kind = nn.Parameter(torch.randn(sources, dim, generator=generator) * scale)
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """As `ConcatFusion`; a source that an item lacks gets no weight."""
        logits = (tokens @ self.key + self.kind) @ self.query  # (b, k); keys are about 1 long
        return (_shares(logits, present).unsqueeze(-1) * tokens).sum(1)


FUSIONS: Mapping[str, type[ConcatFusion] | type[GatedFusion] | type[AttentionFusion]] = {
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "attention": AttentionFusion,
}


def _shares(logits: Tensor, present: Tensor) -> Tensor:
    """Softmax over the sources (axis 1) that are present; equal shares where none is, never NaN."""
    return logits.masked_fill(~present, torch.finfo(logits.dtype).min).softmax(1)
