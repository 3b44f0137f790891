"""Fitted vectors of entities and relations, and how likely they find a triple."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import EncoderError, unknown_name

Model = Literal["transe", "distmult", "complex", "rotate"]
HALVED: tuple[Model, ...] = ("complex", "rotate")
"""Models whose entities are complex numbers: the first half of a row is real, the second imaginary."""


class Embeddings(Artifact):
    """Entities and relations of a knowledge graph as vectors that score triples.

    | kind | score of (h, r, t) | paper |
    |---|---|---|
    | `transe` | -‖h + r - t‖₁, h and t scaled to ‖·‖₁ = 1 | Bordes et al. 2013 |
    | `distmult` | Σ h r t | Yang et al. 2015 |
    | `complex` | Re Σ h r t̄ | Trouillon et al. 2016 |
    | `rotate` | -‖h e^{ir} - t‖₂ | Sun et al. 2019 |

    Each is a query made of two parts of a triple, held against every entity by one product or one distance. Scores
    equal those of torch-geometric's models (for `rotate` less its constant margin); higher is likelier.

    Args:
        kind: the model.
        entities: float32 (E, dim) as fitted, in the graph's order.
        relations: float32 (R, dim); (R, dim / 2) angles for `rotate`.

    Attributes:
        dim: length of an entity's vector.

    Raises:
        EncoderError: for an unknown kind, shapes that do not fit it, or numbers that are not finite.
    """

    artifact_file = "embeddings"

    def __init__(self, kind: Model, entities: Tensor, relations: Tensor) -> None:
        if kind not in get_args(Model):
            raise EncoderError(unknown_name("embedding model", kind, get_args(Model)))
        self.kind, self.entities, self.relations = kind, entities, relations
        self.dim = entities.shape[-1]
        if entities.dim() != 2 or relations.dim() != 2 or relations.shape[1] != self.dim // (1 + (kind == "rotate")):
            raise EncoderError(f"entities {tuple(entities.shape)}, relations {tuple(relations.shape)} are no '{kind}'")
        if not bool(torch.isfinite(entities).all() and torch.isfinite(relations).all()):
            raise EncoderError(f"the '{kind}' vectors hold NaN or infinity; fit them anew with a lower learning rate")

    def vectors(self) -> Tensor:
        """What each entity hands on: float32 (E, dim), rows of length 1."""
        return F.normalize(self.entities, dim=1)

    def scores(self, triples: Tensor) -> Tensor:
        """How likely each of `triples`, int64 (T, 3), is: float32 (T,)."""
        heads, relations, tails = triples.unbind(1)
        query, entity = self._tail_query(heads, relations), self._entities(tails)
        if self.kind in ("distmult", "complex"):
            return (query * entity).sum(1)
        distance: Tensor = torch.linalg.vector_norm(query - entity, ord=self._norm, dim=1)
        return -distance

    def tails(self, heads: Tensor, relations: Tensor) -> Tensor:
        """Scores of every entity as the tail: int64 (b,), (b,) -> float32 (b, E)."""
        return self._against_all(self._tail_query(heads, relations))

    def heads(self, relations: Tensor, tails: Tensor) -> Tensor:
        """Scores of every entity as the head: int64 (b,), (b,) -> float32 (b, E)."""
        tail, relation = self._entities(tails), self.relations[relations]
        if self.kind == "transe":
            return self._against_all(tail - relation)
        if self.kind == "distmult":
            return self._against_all(tail * relation)
        real, imaginary = self._turns(relation)
        return self._against_all(_product(tail, real, -imaginary))

    def to(self, device: torch.device | str) -> Embeddings:
        """The same on another device."""
        return Embeddings(self.kind, self.entities.to(device), self.relations.to(device))

    def stored_facts(self) -> dict[str, Any]:
        """The kind of model."""
        return {"kind": self.kind}

    def stored_tensors(self) -> dict[str, Tensor]:
        """Both tables."""
        return {"entities": self.entities, "relations": self.relations}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Embeddings:
        """See `Artifact`."""
        return cls(facts["kind"], tensors["entities"], tensors["relations"])

    @property
    def _norm(self) -> int:
        return 1 if self.kind == "transe" else 2

    def _entities(self, rows: Tensor | None = None) -> Tensor:
        """Entity rows as the score reads them."""
        entities = self.entities if rows is None else self.entities[rows]
        return F.normalize(entities, p=1, dim=1) if self.kind == "transe" else entities

    def _turns(self, relation: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of relation rows of a complex model."""
        if self.kind == "rotate":
            return torch.cos(relation), torch.sin(relation)
        real, imaginary = relation.chunk(2, dim=1)
        return real, imaginary

    def _tail_query(self, heads: Tensor, relations: Tensor) -> Tensor:
        """What a tail is held against, (b, dim)."""
        head, relation = self._entities(heads), self.relations[relations]
        if self.kind == "transe":
            return head + relation
        return head * relation if self.kind == "distmult" else _product(head, *self._turns(relation))

    def _against_all(self, queries: Tensor) -> Tensor:
        entities = self._entities()
        if self.kind in ("distmult", "complex"):
            return queries @ entities.T
        # The fast way to a Euclidean distance loses the last digits, and ties with them.
        return -torch.cdist(queries, entities, p=self._norm, compute_mode="donot_use_mm_for_euclid_dist")


def _product(rows: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    """Complex product of rows (b, 2w) with real and imaginary parts (b, w) each."""
    own_real, own_imaginary = rows.chunk(2, dim=1)
    return torch.cat([own_real * real - own_imaginary * imaginary, own_imaginary * real + own_real * imaginary], dim=1)
