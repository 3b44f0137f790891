"""Fusion: what the user will want next attends to what the knowledge graph and a language model say of their past."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fusion(nn.Module):
    """V_fused = Transformer(V_future, E, R): one query attends to a fixed handful of tokens.

    A pre-norm transformer block (Vaswani et al. 2017; Xiong et al. 2020) whose only query is V_future. Differences:
    tokens do not attend to each other, so that their keys and values are sums over tables of the items and a step
    costs the same after ten items as after a thousand; a token nobody has is masked, and where there is none the
    block is a feed-forward layer. The weights start untouched memory: `StateEncoder` draws them.

    Args:
        width: dh, length of V_future and of the fused vector.
        tokens: R, how many there are.
        key_dim, value_dim: dk and dv of a token, each a multiple of `heads`.
        heads: attention heads.
    """

    def __init__(self, width: int, tokens: int, key_dim: int, value_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = _linear(width, key_dim)
        self.token_key = nn.Parameter(torch.empty(tokens, key_dim))
        self.token_value = nn.Parameter(torch.empty(tokens, value_dim))
        self.attended = _linear(value_dim, width)
        self.norm = nn.LayerNorm(width)
        self.wide = _linear(width, 2 * width)
        self.narrow = _linear(2 * width, width)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The fused vectors and what was attended to.

        Args:
            query: float32 (..., dh) V_future.
            keys, values: float32 (..., R, dk), (..., R, dv), without the tokens' own part.
            present: bool (..., R).

        Returns:
            (..., dh), and the weights (..., R), averaged over heads, summing to 1, or to 0 where no token is present.
        """
        h = self.heads
        asked = _by_head(self.query(query).unsqueeze(-2), h)  # (..., h, 1, dk/h)
        found = _by_head(keys + self.token_key, h)  # (..., h, R, dk/h)
        logits = (asked * found).sum(-1) / math.sqrt(found.shape[-1])  # (..., h, R)
        there = present.unsqueeze(-2)
        weights = torch.softmax(logits.masked_fill(~there, -1e9), dim=-1) * there
        told = _by_head(values + self.token_value, h)
        context = (weights.unsqueeze(-1) * told).sum(-2).flatten(-2)  # (..., dv)
        fused = query + self.attended(context)
        fused = fused + self.narrow(F.gelu(self.wide(self.norm(fused))))
        return fused, weights.mean(-2)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """Tokens (..., R, w) as each head sees them: (..., heads, R, w / heads)."""
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-3, -2)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer whose weights are not yet set: torch's initialisation would draw from the global generator."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
