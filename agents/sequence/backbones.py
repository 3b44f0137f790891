"""Layers that read a sequence: attention, gated attention, pointwise attention, recurrence, a fading mean."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.sequence.config import SequenceConfig


def backbone(config: SequenceConfig, generator: torch.Generator) -> nn.ModuleList:
    """The layers of a config, each `(x, held, noise) -> x`.

    x is float32 (B, T, d) with empty places at the end, held bool (B, T) says which are not, `noise` draws the dropout
    (None: no dropout). Causal layers give place t what depends on places up to t alone, whatever is held.
    """
    if config.backbone == "mean":
        return nn.ModuleList([MeanBlock(config)])
    kinds = {"hstu": PointwiseBlock, "gru": RecurrentBlock, "lstm": RecurrentBlock}
    kind = kinds.get(config.backbone, AttentionBlock)
    return nn.ModuleList(kind(config, generator) for _ in range(config.blocks))


class AttentionBlock(nn.Module):
    """Self-attention, then a feed-forward layer, each behind a layer norm and beside a shortcut.

    As in SASRec (Kang and McAuley 2018), but norm first, GELU, and twice as wide inside; no dropout in attention. For
    `bert4rec` (Sun et al. 2019) in both directions. For `ligr`, eSASRec's layers (Tikhonovich et al. 2025, after
    Borisyuk et al. 2024), what a layer adds is gated by a sigmoid of its input, and the inner layer is a SwiGLU.
    """

    def __init__(self, config: SequenceConfig, generator: torch.Generator) -> None:
        super().__init__()
        d = config.dim
        self.heads, self.dropout = config.heads, config.dropout
        self.causal, self.gated = config.causal, config.backbone == "ligr"
        self.before_attention, self.before_layers = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query_key_value = linear(d, 3 * d, generator)
        self.mix = linear(d, d, generator)
        self.inner = linear(d, 4 * d if self.gated else 2 * d, generator)
        self.outer = linear(2 * d, d, generator)
        if self.gated:
            self.attention_gate, self.layers_gate = linear(d, d, generator), linear(d, d, generator)

    def forward(self, x: Tensor, held: Tensor, noise: torch.Generator | None) -> Tensor:
        """See `backbone`."""
        b, t, d = x.shape
        split = self.query_key_value(self.before_attention(x)).view(b, t, 3, self.heads, d // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, heads, T, d / heads)
        mask = None if self.causal else held[:, None, None, :]
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=self.causal)
        read = dropped(self.mix(read.transpose(1, 2).reshape(b, t, d)), self.dropout, noise)
        x = x + (read * self.attention_gate(x).sigmoid() if self.gated else read)
        inner = self.inner(self.before_layers(x))
        if self.gated:
            gate, inner = inner.chunk(2, dim=-1)
            inner = F.silu(gate) * inner
        else:
            inner = F.gelu(inner)
        out = dropped(self.outer(dropped(inner, self.dropout, noise)), self.dropout, noise)
        return x + (out * self.layers_gate(x).sigmoid() if self.gated else out)


class PointwiseBlock(nn.Module):
    """HSTU's layer (Zhai et al. 2024): attention by SiLU instead of softmax, gated, with biases by distance.

    Differences: no time stamps in the biases, which are per head; sums are divided by the longest length that the model
    reads.
    """

    def __init__(self, config: SequenceConfig, generator: torch.Generator) -> None:
        super().__init__()
        d = config.dim
        self.heads, self.dropout, self.length = config.heads, config.dropout, config.length
        self.before, self.after = nn.LayerNorm(d), nn.LayerNorm(d)
        self.all_four = linear(d, 4 * d, generator)
        self.out = linear(d, d, generator)
        self.distances = nn.Parameter(torch.zeros(config.heads, config.length + 1))

    def forward(self, x: Tensor, held: Tensor, noise: torch.Generator | None) -> Tensor:
        """See `backbone`."""
        b, t, d = x.shape
        four = F.silu(self.all_four(self.before(x))).view(b, t, 4, self.heads, d // self.heads)
        gate, value, query, key = four.permute(2, 0, 3, 1, 4)  # each (B, heads, T, d / heads)
        back = torch.arange(t, device=x.device).unsqueeze(1) - torch.arange(t, device=x.device)  # (T, T)
        scores = query @ key.transpose(-1, -2) / math.sqrt(d // self.heads) + self.distances[:, back.clamp_min(0)]
        read = (F.silu(scores) * (back >= 0) / self.length) @ value
        read = self.after(read.transpose(1, 2).reshape(b, t, d)) * gate.transpose(1, 2).reshape(b, t, d)
        return x + dropped(self.out(read), self.dropout, noise)


class RecurrentBlock(nn.Module):
    """A GRU, as in GRU4Rec (Hidasi et al. 2016), or an LSTM, over the items; without a shortcut."""

    def __init__(self, config: SequenceConfig, generator: torch.Generator) -> None:
        super().__init__()
        d, kind = config.dim, nn.LSTM if config.backbone == "lstm" else nn.GRU
        self.dropout = config.dropout
        self.cell = kind(d, d, batch_first=True, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for weight in self.cell.parameters():
                weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) / math.sqrt(d))
        self.cell.flatten_parameters()

    def forward(self, x: Tensor, held: Tensor, noise: torch.Generator | None) -> Tensor:
        """See `backbone`."""
        read, _ = self.cell(x)
        return dropped(read, self.dropout, noise)


class MeanBlock(nn.Module):
    """The mean of the items so far, old ones counting less, and a linear map that starts as the identity.

    FISM (Kabbur et al. 2013), with order. So an untrained model shows what is like the history, and what is learned of
    some directions of the items' space leaves the others as they were: what another catalogue is made of.
    """

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.fading = nn.Parameter(torch.tensor(-3.0))  # log of the rate: an item counts half after 14 others
        self.change = nn.Parameter(torch.zeros(config.dim, config.dim))

    def forward(self, x: Tensor, held: Tensor, noise: torch.Generator | None) -> Tensor:
        """See `backbone`."""
        t = x.shape[1]
        back = torch.arange(t, device=x.device).unsqueeze(1) - torch.arange(t, device=x.device)  # (T, T)
        counts = torch.exp(-self.fading.exp() * back.clamp_min(0)) * (back >= 0)
        first = (torch.arange(t, device=x.device) > 0).unsqueeze(1) & (torch.arange(t, device=x.device) == 0)
        counts = counts.masked_fill(first, 0.0)  # the start token is read where nothing else is
        read = dropped((counts / counts.sum(1, keepdim=True)) @ x, self.dropout, noise)
        return read + read @ self.change


def dropped(x: Tensor, share: float, noise: torch.Generator | None) -> Tensor:
    """Dropout that draws from a generator of its own; the identity where `noise` is None."""
    if noise is None or share == 0:
        return x
    keep = torch.rand(x.shape, generator=noise, device=x.device) >= share
    return x * keep * (1 / (1 - share))


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer whose weights come from `generator` (Glorot and Bengio 2010, uniform) and whose bias is zero."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = math.sqrt(6 / (inputs + outputs))
    with torch.no_grad():
        layer.weight.copy_((torch.rand(outputs, inputs, generator=generator) * 2 - 1) * bound)
        layer.bias.zero_()
    return layer


def isometry(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer that at first keeps lengths and angles, as far as so many outputs can: orthonormal, bias zero."""
    layer = linear(inputs, outputs, generator)
    with torch.no_grad():
        basis, _ = torch.linalg.qr(torch.randn(max(inputs, outputs), min(inputs, outputs), generator=generator))
        layer.weight.copy_(basis if outputs >= inputs else basis.T)
    return layer
