"""How the fit of a state encoder went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
        seconds: wall time.
    """

    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    best_epoch: int
    recall_at_10: float
    ndcg_at_10: float
    popularity_recall_at_10: float
    users: int
    validation_users: int
    seconds: float

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> EncoderFitReport:
        """From what `dataclasses.asdict` gave, by way of JSON."""
        held: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
        return cls(**held)
