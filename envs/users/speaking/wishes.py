"""What users may wish for: attributes of items, how likely each user wishes them, and in which words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import UserSimulatorError


@dataclass(frozen=True)
class Wishes(Artifact):
    """What may be wished for: W attributes, each in V wordings. `recloop.envs.build.speaking` finds those of a world.

    Args:
        names: kind and value of each attribute, (W,).
        texts: what users say, (W V,): the wordings of wish w from w V on.
        fits: bool (W, N) the items that have the attribute.
        vectors: float32 (W V, u) the words as the world's instruction encoder reads them.
        likely: float32 (U+1, W) the chance of each wish, given that there is one, by row of the users table; the last
            row is for who is not in it.
    """

    artifact_file = "wishes"
    artifact_error = UserSimulatorError

    names: tuple[str, ...]
    texts: tuple[str, ...]
    fits: Tensor
    vectors: Tensor
    likely: Tensor

    @property
    def wordings(self) -> int:
        """V."""
        return len(self.texts) // len(self.names)

    def stored_facts(self) -> dict[str, Any]:
        """Names and words."""
        return {"names": self.names, "texts": self.texts}

    def stored_tensors(self) -> dict[str, Tensor]:
        """The tables."""
        return {"fits": self.fits, "vectors": self.vectors, "likely": self.likely}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """See `Artifact`."""
        return cls(tuple(facts["names"]), tuple(facts["texts"]), **tensors)
