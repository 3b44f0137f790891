"""Item vectors: what text and knowledge graph say of an item, projected together into one space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.errors import EncoderError
from recloop.encoders.storage import read_json, read_tensors, replacing_folder, write_json, write_tensors

FORMAT = 1


@dataclass(frozen=True)
class ItemKnowledge:
    """What a knowledge graph says of N items.

    Args:
        relations: names of the R relations, the most frequent first.
        tables: float32 (N+1, R, e) mean vector of an item's neighbours under each relation; zero where it has
            none, and in row N.
        vectors: float32 (N, e) the item's own entity vector; zero where it is not linked.
    """

    relations: tuple[str, ...]
    tables: Tensor
    vectors: Tensor


class ItemEncoder(nn.Module):
    """N items as vectors of length 1: a linear map of text and entity vectors, side by side.

    Fitted jointly with the user's state (`fit_state_encoder`), then frozen into a table. Both inputs are centred
    and scaled to a mean length of 1. A zero row means "none" (no text, no link): a learned vector stands in.
    Where there is neither text nor graph, the vectors themselves are learned.

    Args:
        catalogue_size: N.
        dim: d, length of an item vector.
        text: float32 (N, t) text vectors, or None.
        entities: float32 (N, e) entity vectors, or None.
        generator: draws the starting weights.

    Raises:
        EncoderError: where rows do not fit the catalogue or hold NaN.
    """

    def __init__(
        self,
        catalogue_size: int,
        dim: int,
        text: Tensor | None = None,
        entities: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.catalogue_size, self.dim = catalogue_size, dim
        generator = generator or torch.Generator().manual_seed(0)
        parts = [("text", text), ("entities", entities)]
        self.sources = tuple(name for name, rows in parts if rows is not None)
        widths = []
        for name, rows in parts:
            if rows is None:
                continue
            if rows.dim() != 2 or len(rows) != catalogue_size or not bool(torch.isfinite(rows).all()):
                raise EncoderError(
                    f"{name} vectors are {tuple(rows.shape)}; {catalogue_size} items need as many finite rows"
                )
            scaled, missing = _centred(rows.float())
            self.register_buffer(name, scaled)
            self.register_buffer(f"{name}_missing", missing)
            self.register_parameter(f"{name}_stand_in", nn.Parameter(torch.zeros(rows.shape[1])))
            widths.append(rows.shape[1])
        inputs = sum(widths) or catalogue_size
        # Independent normal weights keep the angles between the inputs (Johnson and Lindenstrauss 1984).
        scale = 1 / math.sqrt(dim)
        self.weight = nn.Parameter(torch.randn(inputs, dim, generator=generator) * scale)

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Vectors of length 1 of the items `rows` (b,) int64, or of all: (b, d) or (N, d)."""
        if not self.sources:
            table: Tensor = self.weight
            return F.normalize(table if rows is None else F.embedding(rows, table), dim=-1)
        inputs = []
        for name in self.sources:
            values, missing = getattr(self, name), getattr(self, f"{name}_missing")
            if rows is not None:
                values, missing = values[rows], missing[rows]
            inputs.append(torch.where(missing.unsqueeze(-1), getattr(self, f"{name}_stand_in"), values))
        return F.normalize(torch.cat(inputs, dim=-1) @ self.weight, dim=-1)

    @torch.no_grad()
    def table(self) -> Tensor:
        """All item vectors and the zero row of an empty place, (N+1, d)."""
        return torch.cat([self(), self.weight.new_zeros(1, self.dim)])

    def save(self, folder: Path | str) -> None:
        """Write `items.json` and `items.safetensors`; the folder is replaced whole."""
        facts = {"format": FORMAT, "catalogue_size": self.catalogue_size, "dim": self.dim}
        with replacing_folder(Path(folder)) as part:
            write_tensors(part / "items.safetensors", self.state_dict())
            write_json(part / "items.json", facts)

    @classmethod
    def load(cls, folder: Path | str) -> ItemEncoder:
        """Read what `save` wrote, onto the CPU.

        Raises:
            EncoderError: for a newer format, or tensors that do not fit.
        """
        folder = Path(folder)
        facts = read_json(folder / "items.json")
        if facts.get("format") != FORMAT:
            raise EncoderError(f"{folder / 'items.json'} has format {facts.get('format')}; this version reads {FORMAT}")
        tensors = read_tensors(folder / "items.safetensors")
        encoder = cls(facts["catalogue_size"], facts["dim"], tensors.get("text"), tensors.get("entities"))
        try:
            encoder.load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise EncoderError(f"{folder / 'items.safetensors'} does not fit: {reason}") from None
        return encoder


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, w) less the mean of those present and at a mean length of 1, and which are missing (N,)."""
    missing = (rows == 0).all(dim=1)
    if bool(missing.all()):
        return rows, missing
    centred = rows - rows[~missing].mean(0)
    length = centred[~missing].norm(dim=1).mean().clamp_min(1e-6)
    return (centred / length).masked_fill(missing.unsqueeze(-1), 0.0), missing
