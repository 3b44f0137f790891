"""Sizes and parts of a state encoder, and what it keeps of a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from recloop.encoders.base.errors import EncoderError, unknown_name
from recloop.encoders.base.tensor_struct import TensorStruct

SequenceModel = Literal["gru", "lstm", "mean"]


@dataclass(frozen=True)
class StateEncoderConfig:
    """Sizes and parts of a `StateEncoder`, and how its sums forget.

    Args:
        dim: d, length of item vectors and of the user's vector.
        hidden: dh, units of the recurrent state.
        key_dim: dk, length of a relation token's key.
        value_dim: dv, length of a relation token's value.
        decay: what is left of the sums over relations and patterns after one more step, in (0, 1].
        sequence: what predicts the next: a `gru` or an `lstm` over the steps, or the `mean` of what was consumed,
            decayed, without any order.
        patterns: M attention-pooled patterns of the behaviour that it reads; 0 without.
        fusion: whether what is predicted attends to the relations of the knowledge graph.
        heads: attention heads of the fusion; divides `key_dim` and `value_dim`.
    """

    dim: int = 64
    hidden: int = 128
    key_dim: int = 16
    value_dim: int = 16
    decay: float = 0.95
    sequence: SequenceModel = "gru"
    patterns: int = 4
    fusion: bool = True
    heads: int = 2

    def __post_init__(self) -> None:
        for name, least in (("dim", 1), ("hidden", 1), ("key_dim", 1), ("value_dim", 1), ("heads", 1), ("patterns", 0)):
            if getattr(self, name) < least:
                raise EncoderError(f"{name}={getattr(self, name)} of the state encoder must be at least {least}")
        if not 0 < self.decay <= 1:
            raise EncoderError(f"decay={self.decay} of the state encoder must lie in (0, 1]")
        if self.sequence not in get_args(SequenceModel):
            raise EncoderError(
                unknown_name("sequence model of the state encoder", self.sequence, get_args(SequenceModel))
            )
        if self.key_dim % self.heads or self.value_dim % self.heads:
            raise EncoderError(
                f"heads={self.heads} must divide key_dim={self.key_dim} and value_dim={self.value_dim}; try heads=1"
            )

    @property
    def pooled(self) -> int:
        """How many pooled vectors a state holds: M, or the plain mean where nothing else keeps the past."""
        return max(self.patterns, 1) if self.sequence == "mean" else self.patterns


@dataclass(frozen=True)
class EncoderState(TensorStruct):
    """What the encoder keeps of B users.

    Args:
        hidden: float32 (B, dh) the recurrent state; without one, what the profile says.
        keys: float32 (B, R, dk) decayed sum of the relation keys of what was consumed.
        values: float32 (B, R, dv) likewise of the values.
        presence: float32 (B, R) likewise of who has a relation at all: what the two sums are divided by.
        count: float32 (B,) items consumed so far.
        patterns: float32 (B, M, d) decayed sums of item vectors, weighted by what each pattern looks for.
        mass: float32 (B, M) the same sums of the weights.
        cell: float32 (B, dh) the memory of an LSTM; None for others.
        behavior: float32 (B, dk + dv) what a language model made of the history when it last read it, as a token;
            zero where it read nothing. None where no language model reads histories.
    """

    hidden: Tensor
    keys: Tensor
    values: Tensor
    presence: Tensor
    count: Tensor
    patterns: Tensor
    mass: Tensor
    cell: Tensor | None = None
    behavior: Tensor | None = None


@dataclass(frozen=True)
class EncoderFitReport:
    """How a fit went.

    Args:
        train_loss: mean negative log-likelihood of the next item, a value a pass; from sampled
            negatives where the catalogue is large.
        validation_loss: the same on held-out users, over the whole catalogue.
        best_epoch: the pass whose weights were kept, from 0.
        recall_at_10: share of held-out next items among the ten best; items already consumed are left out
            where no user of the log consumes an item twice.
        ndcg_at_10: the same, discounted by rank.
        popularity_recall_at_10: what ranking by popularity gives there.
        users: users fitted on.
        validation_users: users held out; 0 where there were too few: the figures are then of fitted users.
    """

    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    best_epoch: int
    recall_at_10: float
    ndcg_at_10: float
    popularity_recall_at_10: float
    users: int
    validation_users: int

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> EncoderFitReport:
        """From what `dataclasses.asdict` gave, by way of JSON; older ones held the seconds that the fit took."""
        held: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items() if k != "seconds"}
        return cls(**held)
