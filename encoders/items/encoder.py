"""Item vectors: what text, knowledge graph and other sources say of an item, projected together into one space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.artifact import Artifact, check_shapes, fitted_module
from recloop.encoders.base.errors import EncoderError, unknown_name
from recloop.encoders.items.fusion import FUSIONS


@dataclass(frozen=True)
class ItemKnowledge:
    """What a knowledge graph says of N items.

    Args:
        relations: names of the R relations, the most frequent first.
        tables: float32 (N+1, R, e) mean vector of an item's neighbours under each relation; zero where it has
            none, and in row N.
    """

    relations: tuple[str, ...]
    tables: Tensor

    @property
    def content(self) -> Tensor:
        """What the graph says of an item by itself: its neighbours side by side, float32 (N, R e)."""
        return self.tables[:-1].flatten(1)


class ItemEncoder(nn.Module, Artifact):
    """N items as vectors of length 1, from any number of sources: text, neighbours in the graph, images, sound.

    Fitted jointly with the user's state (`fit_state_encoder`), then frozen into a table. Every source is centred and
    scaled to a mean length of 1, so that a wide one does not drown a narrow one, and projected linearly; `fusion` makes
    one vector of them (`recloop.encoders.items.fusion`). A zero row means that an item lacks the source, and so does a
    row that is the mean of all. Items that no source speaks of share a learned vector. Without any source, the vectors
    themselves are learned.

    Args:
        catalogue_size: N.
        dim: d, length of an item vector.
        sources: float32 (N, width) tables by name, such as {"text": (N, 384), "image": (N, 512)}.
        generator: draws the starting weights.
        fusion: "concat", "gated" or "attention".

    Raises:
        EncoderError: where rows do not fit the catalogue or hold NaN, or a name is unknown or unfit.
    """

    artifact_file = "items"
    artifact_format = 2

    def __init__(
        self,
        catalogue_size: int,
        dim: int,
        sources: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        fusion: str = "concat",
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise EncoderError(unknown_name("item fusion", fusion, FUSIONS))
        self.catalogue_size, self.dim, self.fusion = catalogue_size, dim, fusion
        self.sources = {name: rows.shape[-1] for name, rows in (sources or {}).items()}
        generator = generator or torch.Generator().manual_seed(0)
        for name, rows in (sources or {}).items():
            if not name.isidentifier():
                raise EncoderError(f"'{name}' cannot name a source; use letters, digits and _, such as image")
            if rows.dim() != 2 or len(rows) != catalogue_size or not bool(torch.isfinite(rows).all()):
                raise EncoderError(
                    f"{name} vectors are {tuple(rows.shape)}; {catalogue_size} items need as many finite rows"
                )
            scaled, missing = _centred(rows.float())
            self.register_buffer(f"{name}_rows", scaled)
            self.register_buffer(f"{name}_missing", missing)
        inputs = sum(self.sources.values()) or catalogue_size
        # Independent normal weights keep the angles between the inputs (Johnson and Lindenstrauss 1984).
        scale = 1 / math.sqrt(dim)
        self.weight = nn.Parameter(torch.randn(inputs, dim, generator=generator) * scale)
        if self.sources:
            self.unknown = nn.Parameter(torch.randn(dim, generator=generator) * scale)
            self.mix = FUSIONS[fusion](len(self.sources), dim, generator)

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Vectors of length 1 of the items `rows` (b,) int64, or of all: (b, d) or (N, d)."""
        if not self.sources:
            table: Tensor = self.weight
            return F.normalize(table if rows is None else F.embedding(rows, table), dim=-1)
        tokens, present = [], []
        weights = torch.split(self.weight, list(self.sources.values()))
        for name, weight in zip(self.sources, weights, strict=True):
            values, missing = getattr(self, f"{name}_rows"), getattr(self, f"{name}_missing")
            tokens.append((values if rows is None else values[rows]) @ weight)
            present.append(~(missing if rows is None else missing[rows]))
        known = torch.stack(present, dim=1)  # (b, k)
        fused = self.mix(torch.stack(tokens, dim=1), known)
        return F.normalize(torch.where(known.any(1, keepdim=True), fused, self.unknown), dim=-1)

    @torch.no_grad()
    def table(self) -> Tensor:
        """All item vectors and the zero row of an empty place, (N+1, d)."""
        return torch.cat([self(), self.weight.new_zeros(1, self.dim)])

    def stored_facts(self) -> dict[str, Any]:
        """Sizes and sources."""
        facts = {"catalogue_size": self.catalogue_size, "dim": self.dim}
        return {**facts, "sources": list(self.sources), "fusion": self.fusion}

    def stored_tensors(self) -> dict[str, Tensor]:
        """The weights and the sources' rows."""
        return self.state_dict()

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> ItemEncoder:
        """See `Artifact`."""
        sources = {name: tensors[f"{name}_rows"] for name in facts["sources"] if f"{name}_rows" in tensors}
        inputs = sum(rows.shape[-1] for rows in sources.values()) or facts["catalogue_size"]
        check_shapes(tensors, weight=(inputs, facts["dim"]))
        encoder = cls(facts["catalogue_size"], facts["dim"], sources, fusion=facts["fusion"])
        fitted_module(encoder, tensors)
        return encoder


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, w) less the mean of those present and at a mean length of 1, and which say nothing (N,)."""
    missing = (rows == 0).all(dim=1)
    if bool(missing.all()):
        return rows, missing
    centred = (rows - rows[~missing].mean(0)).masked_fill(missing.unsqueeze(-1), 0.0)
    length = centred[~missing].norm(dim=1).mean().clamp_min(1e-6)
    return centred / length, (centred == 0).all(dim=1)
