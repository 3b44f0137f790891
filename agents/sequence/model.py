"""A sequence model: items as vectors, a backbone over them, and scores of all items."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.sequence.backbones import backbone, dropped, isometry, linear
from recloop.agents.sequence.config import SequenceConfig


class SequenceModel(nn.Module):
    """Next-item scores from the items before.

    Items share one table as inputs and in scores, beside a bias that starts at the log of the counts. Causal backbones
    begin every sequence with a start token, so that an empty history has scores too; `bert4rec` reads a mask token at
    the end in its place.

    Args:
        catalogue_size: N.
        config: parts and sizes.
        seed: of the starting weights; no global generator is touched.
        content: float32 (N, w) of each source but `ids`, only while it is fitted: `fold` adds it to the table.

    Attributes:
        projections: the maps from content to items; after `fold` only where items are their texts alone, so that those
            of another catalogue can be read by the same map.
    """

    def __init__(
        self,
        catalogue_size: int,
        config: SequenceConfig,
        seed: int = 0,
        content: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.catalogue_size = catalogue_size
        self.config = config
        d = config.dim
        generator = torch.Generator().manual_seed(seed)
        self.items = _normal((catalogue_size + 1, d), generator)  # row N starts every sequence, or masks an item
        if config.backbone not in ("gru", "lstm", "hstu", "mean"):
            self.places = _normal((config.length + 1, d), generator)
        self.bias = nn.Parameter(torch.zeros(catalogue_size))
        self.blocks = backbone(config, generator)
        self.norm = nn.LayerNorm(d)
        self.content: dict[str, Tensor] = dict(content or {})
        layer = isometry if config.backbone == "mean" else linear
        self.projections = nn.ModuleDict({n: layer(x.shape[1], d, generator) for n, x in self.content.items()})

    def table(self) -> Tensor:
        """All items, and the special token in row N: (N+1, d)."""
        if not self.content:
            return self.items
        own = self.items[:-1] if "ids" in self.config.items else torch.zeros_like(self.items[:-1])
        for name, rows in self.content.items():
            said = self.projections[name](rows.to(own.device))
            own = own + said * (rows != 0).any(1, keepdim=True).to(said)  # an item without text says nothing
        return torch.cat([own, self.items[-1:]])

    @torch.no_grad()
    def fold(self) -> None:
        """Write the content into the table: the scores stay, and what it came from is no longer needed."""
        self.items.copy_(self.table())
        kept = self.projections if self.config.items == ("text",) else nn.ModuleDict()
        self.content, self.projections = {}, kept.requires_grad_(False)

    @torch.no_grad()
    def take(self, other: "SequenceModel") -> None:
        """The weights of a model of the same parts and sizes, but for what it holds of single items."""
        shared = {name: weight for name, weight in other.state_dict().items() if name not in ("items", "bias")}
        self.load_state_dict(shared, strict=False)
        self.items[-1] = other.items[-1]

    def forward(self, items: Tensor, table: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """What is expected at each place: items int64 (B, T), empty places N at the end -> (B, T', d).

        A causal model gives T' = T+1 <= length+1: place 0 has seen nothing, place t the first t items. `bert4rec` gives
        T' = T <= length+1, and items that are masked hold N+1. `noise` draws the dropout; None is evaluation.
        """
        n = self.catalogue_size
        held = items != n
        if self.config.causal:
            items, held = F.pad(items, (1, 0), value=n), F.pad(held, (1, 0), value=True)
        x = F.embedding(items.clamp_max(n), table) * math.sqrt(self.config.dim)
        if hasattr(self, "places"):
            x = x + self.places[: items.shape[1]]
        x = dropped(x, self.config.dropout, noise)
        for block in self.blocks:
            x = block(x, held, noise)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor, table: Tensor) -> Tensor:
        """(..., d) -> (..., N)."""
        return hidden @ table[:-1].T + self.bias

    def scores(self, history: Tensor) -> Tensor:
        """Scores of the next item: histories int64 (B, H), newest last, N empty -> (B, N)."""
        n, table = self.catalogue_size, self.table()
        history = history[:, -self.config.length :]
        held = history < n
        count = held.sum(1)
        order = torch.sort(held.long(), dim=1, descending=True, stable=True).indices  # items first, in order
        items = history.gather(1, order)[:, : max(int(count.max()), 1)]
        if not self.config.causal:
            items = F.pad(items, (0, 1), value=n).scatter(1, count.unsqueeze(1), n + 1)
        hidden = self.forward(items, table)
        return self.logits(hidden[torch.arange(len(history), device=history.device), count], table)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=generator) * 0.02)
