"""What every encoder keeps to."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from recloop.encoders.instruction.encoder import InstructionEncoder
from recloop.encoders.items.encoder import ItemEncoder
from recloop.encoders.knowledge.triple_scores import Embeddings
from recloop.encoders.patterns import BehaviorTopics, UserSegments
from recloop.encoders.state.behavior import ItemBehavior, TextBehavior
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.text.encoder import HashedText, TextEncoder


@runtime_checkable
class Encoder(Protocol):
    """Turns plain strings, arrays or tensors into vectors of one length.

    What it learned or was told survives `save` and `load` as safetensors and JSON (no pickle), and equal inputs then
    give equal vectors. Making one draws from no global generator.

    Attributes:
        dim: length of a vector; fixed for the life of the object.
    """

    dim: int

    def save(self, folder: Path | str) -> None:
        """Write all it takes to make this encoder again."""
        ...

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote; `RecloopError` where that is broken."""
        ...


ENCODERS: tuple[type[Encoder], ...] = (
    StateEncoder,
    ItemEncoder,
    TextEncoder,
    HashedText,
    Embeddings,
    ItemBehavior,
    TextBehavior,
    InstructionEncoder,
    UserSegments,
    BehaviorTopics,
)
"""Every encoder of this package; the contract tests run over them."""
