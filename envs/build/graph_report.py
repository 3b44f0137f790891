"""How well the embeddings of a log's knowledge graph predict triples held out of it, for a world's card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from recloop.encoders.knowledge.embeddings import fit_embeddings
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.link_prediction import SIDES, Frequency, rank_triples, split_triples
from recloop.encoders.knowledge.triple_scores import Model

if TYPE_CHECKING:
    from recloop.envs.world.world import Card


@dataclass(frozen=True)
class GraphReport:
    """Filtered ranks of held-out triples.

    Args:
        model: the embedding.
        held: how many triples were held out of how many.
        mrr, hits_at_10: by side (`head`, `tail`): how well the model finds it.
        frequency_mrr: by side: what ranking entities by how often they have the relation comes to.
    """

    model: str
    held: tuple[int, int]
    mrr: dict[str, float]
    hits_at_10: dict[str, float]
    frequency_mrr: dict[str, float]

    @property
    def sentence(self) -> str:
        """For the card.

        >>> GraphReport("transe", (9, 90), {"head": 0.1, "tail": 0.3}, {}, {"head": 0.0, "tail": 0.2}).sentence
        'Knowledge graph: on 9 of 90 triples held out, transe has a filtered MRR of 0.100 for heads (frequency 0.000) \
and 0.300 for tails (frequency 0.200).'
        """
        sides = " and ".join(f"{self.mrr[s]:.3f} for {s}s (frequency {self.frequency_mrr[s]:.3f})" for s in SIDES)
        few, all_of_them = self.held
        start = f"Knowledge graph: on {few:,} of {all_of_them:,} triples held out, {self.model}"
        return f"{start} has a filtered MRR of {sides}."

    def on_card(self, card: Card) -> Card:
        """The card with this report."""
        figures = {f"graph_mrr_{side}": self.mrr[side] for side in SIDES}
        hits = {f"graph_hits_at_10_{side}": self.hits_at_10[side] for side in SIDES}
        return replace(card, learned=(*card.learned, self.sentence), figures={**card.figures, **figures, **hits})


def graph_report(graph: KnowledgeGraph, model: Model, dim: int, epochs: int, seed: int, progress: bool) -> GraphReport:
    """Hold a tenth of the triples out, fit on the rest, and rank; takes as long as the fit that the world keeps.

    Raises:
        EncoderError: where no triple can be held out.
    """
    train, held = split_triples(graph, 0.1, seed)
    known = np.concatenate([train.triples, held])
    fitted = fit_embeddings(train, model, dim, epochs, seed, progress=progress)
    ranks, frequency = rank_triples(fitted, held, known), rank_triples(Frequency(train), held, known)
    figures = {side: ranks.figures(side) for side in SIDES}
    return GraphReport(
        model,
        (len(held), len(known)),
        {side: figures[side]["mrr"] for side in SIDES},
        {side: figures[side]["hits_at_10"] for side in SIDES},
        {side: frequency.figures(side)["mrr"] for side in SIDES},
    )
