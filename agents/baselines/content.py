"""Policies of vectors alone: what lies nearest to what the user consumed, or what the state encoder expects next."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.facts import Trains
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.serving import Serving
from recloop.envs.interaction.observation import Observation
from recloop.envs.world.world import World


class ContentPolicy(ScoringPolicy):
    """Shows the k admissible items nearest (by cosine) to the mean of what the user consumed.

    Nothing is learned: the vectors are the world's, each scaled to length one, so that no item counts for more. A user
    who consumed nothing yet gets the most popular items.

    Args:
        vectors: float32 (N+1, d) item vectors; row N is zero.
        counts: float32 (N,) how often each item was consumed, for users without a history.
    """

    name = "content"
    kind = "content"
    trains: ClassVar[Trains] = "no"
    deterministic: ClassVar[bool] = True
    newest: ClassVar[int | None] = None
    """How many of the newest consumed items count; None for all that the observation holds."""

    def __init__(self, vectors: Tensor, counts: Tensor) -> None:
        self.vectors = F.normalize(vectors.detach(), dim=1)  # a zero row stays zero
        self.counts = counts

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Take the world's item vectors and counts."""
        return cls(world.item_vectors.cpu(), world.catalogue.popularity)

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Cosine to the mean direction of the history, (B, N); counts where the history is empty."""
        history = observation["history"]
        if self.newest is not None:
            history = history[:, -self.newest :]
        vectors, counts = self.vectors.to(history.device), self.counts.to(history.device)
        taste = F.normalize(vectors[history].sum(1), dim=1)  # (B, d)
        nobody = (history == len(counts)).all(1, keepdim=True)  # (B, 1)
        return torch.where(nobody, counts, taste @ vectors[:-1].T)

    def tensors(self) -> dict[str, Tensor]:
        """Vectors and counts."""
        return {"vectors": self.vectors, "counts": self.counts}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `tensors`."""
        return cls(tensors["vectors"], tensors["counts"])


class LastItemPolicy(ContentPolicy):
    """Shows the k admissible items nearest (by cosine) to the one consumed last; see `ContentPolicy`."""

    name = "last-item"
    kind = "last-item"
    newest: ClassVar[int | None] = 1


class EncoderOrderPolicy(ScoringPolicy):
    """Shows the k items that the world's state encoder expects next: where our learners start, and learns nothing more.

    The control of a comparison: what an agent earns beyond it, its training added.
    """

    name = "encoder"
    kind = "encoder"
    trains: ClassVar[Trains] = "no"
    deterministic: ClassVar[bool] = True

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """The encoder is the world's."""
        policy = cls()
        policy.serving = Serving.of(world)
        return policy

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """The encoder's next-item scores, (B, N)."""
        encoder, state = self._serving().world.state_encoder, observation["state"]
        return encoder.scores(state.to(encoder.item_vectors.device)).to(state.device)
