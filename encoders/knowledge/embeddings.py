"""Entities and relations of a knowledge graph as vectors, and what they say of a catalogue's items."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.errors import EncoderError, unknown_name
from recloop.encoders.base.fit import FitLoop, fit, shuffled
from recloop.encoders.items.encoder import ItemKnowledge
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.links import item_links, kind_name, sharing
from recloop.encoders.knowledge.triple_scores import HALVED, Embeddings, Model

if TYPE_CHECKING:
    from torch_geometric.nn.kge import KGEModel

_DECAY: dict[Model, float] = {"transe": 0.0, "distmult": 2.0, "complex": 2.0, "rotate": 0.0}
"""How strongly vectors shrink; chosen on held-out triples of `ml-100k`, where products overfit and distances do not."""


def fit_embeddings(
    kg: KnowledgeGraph,
    model: Model = "distmult",
    dim: int = 64,
    epochs: int = 100,
    seed: int = 0,
    *,
    batch_size: int = 2_048,
    learning_rate: float = 0.01,
    weight_decay: float | None = None,
    progress: bool = False,
) -> Embeddings:
    """Fit entity and relation vectors by torch-geometric's `nn.kge`.

    Each triple is held against a random one that differs in head or tail, by the library's own losses. Equal seeds give
    equal bits; the global generator is left as it was.

    Args:
        kg: the triples.
        dim: length of an entity's vector; even for `complex` and `rotate`.
        epochs: passes over the triples.
        weight_decay: decoupled from the gradient (AdamW, Loshchilov and Hutter 2019): a step shrinks weights by
            `learning_rate * weight_decay` of them; None chooses by model.

    Returns:
        vectors that score triples; `Embeddings.vectors` are what items get.

    Raises:
        EncoderError: without torch-geometric, for an unknown model, an odd `dim`, or a graph without triples.
    """
    if model not in get_args(Model):
        raise EncoderError(unknown_name("embedding model", model, get_args(Model)))
    halved = model in HALVED
    if dim < 1 or (halved and dim % 2):
        raise EncoderError(f"dim={dim} does not suit '{model}'; give {'an even' if halved else 'a positive'} number")
    if len(kg.triples) == 0:
        raise EncoderError("the knowledge graph holds no triples; leave it out, or give one that does")
    decay = _DECAY[model] if weight_decay is None else weight_decay
    # torch-geometric draws weights and negatives from the global generator and takes no other, so it gets a
    # fork of it that ends with this block.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fitted = _model(model, len(kg.entities), len(kg.relations), dim // 2 if halved else dim)
        triples = torch.from_numpy(kg.triples)
        fit(
            fitted,
            FitLoop(passes=epochs, learning_rate=learning_rate, weight_decay=decay),
            lambda: shuffled(len(triples), batch_size),
            lambda rows: (fitted.loss(*triples[rows].unbind(1)), len(rows)),
            name="knowledge graph",
            progress=progress,
            error=EncoderError,
        )
    entities, relations = fitted.node_emb.weight.detach(), fitted.rel_emb.weight.detach()
    if halved:
        entities = torch.cat([entities, fitted.node_emb_im.weight.detach()], dim=1)
    if model == "complex":
        relations = torch.cat([relations, fitted.rel_emb_im.weight.detach()], dim=1)
    return Embeddings(model, entities.clone(), relations.clone())


def item_relation_tables(
    kg: KnowledgeGraph,
    entity_rows: npt.NDArray[np.int64],
    entity_vectors: Tensor,
    max_relations: int = 16,
) -> tuple[tuple[str, ...], Tensor]:
    """The mean vector of an item's neighbours, relation by relation, each shrunk by how few items touch it (`sharing`).

    Who belongs to one item alone connects it to nothing, and a vector fitted to that one item is noise to the others.

    Args:
        entity_rows: int64 (N,) each item's entity, or -1.
        entity_vectors: float32 (E, e).
        max_relations: how many are kept: those most items have, ties by name.

    Returns:
        names of the R relations, the most frequent first, "<relation> of" where the item is the tail; and float32
        (N+1, R, e), zero where an item has no such neighbour that it shares, and in row N.
    """
    links = item_links(kg, entity_rows)
    shared = sharing(links, len(kg.entities))
    kinds, counts = np.unique(links[:, 1], return_counts=True)
    names = {kind: kind_name(kg, kind) for kind in kinds.tolist()}
    order = sorted(range(len(kinds)), key=lambda i: (-counts[i], names[int(kinds[i])]))[:max_relations]
    kept = [int(kinds[i]) for i in order]
    n, r = len(entity_rows), len(kept)
    column = np.full(2 * len(kg.relations), -1, dtype=np.int64)
    column[kept] = np.arange(r)
    links = links[column[links[:, 1]] >= 0]
    place = torch.from_numpy(links[:, 0] * r + column[links[:, 1]])
    total = torch.zeros((n + 1) * r, entity_vectors.shape[1])
    shrunk = entity_vectors * torch.from_numpy(shared).to(entity_vectors.dtype).unsqueeze(1)
    total.index_add_(0, place, shrunk[torch.from_numpy(links[:, 2])])
    count = torch.bincount(place, minlength=(n + 1) * r).clamp_min(1).unsqueeze(1)
    return tuple(names[kind] for kind in kept), (total / count).view(n + 1, r, -1)


def item_knowledge(
    kg: KnowledgeGraph,
    entity_rows: npt.NDArray[np.int64],
    model: Model = "distmult",
    dim: int = 64,
    epochs: int = 100,
    seed: int = 0,
    *,
    max_relations: int = 16,
    progress: bool = False,
) -> ItemKnowledge | None:
    """All that a knowledge graph says of N items: `fit_embeddings` and `item_relation_tables` in one.

    `entity_rows` is int64 (N,), -1 for an item that is not linked. None where no item has a neighbour. An item's own
    vector is left out: its neighbours, whom it shares with others, tell more of an item that nobody consumed yet.
    """
    if not len(item_links(kg, entity_rows)):
        return None
    entities = fit_embeddings(kg, model, dim, epochs, seed, progress=progress).vectors()
    return ItemKnowledge(*item_relation_tables(kg, entity_rows, entities, max_relations))


def _model(name: Model, entities: int, relations: int, width: int) -> KGEModel:
    """A fresh model of torch-geometric."""
    try:
        from torch_geometric.nn import kge
    except ImportError:
        raise EncoderError("knowledge-graph vectors need torch-geometric; pip install 'recloop[kg]'") from None
    kinds = {"transe": kge.TransE, "distmult": kge.DistMult, "complex": kge.ComplEx, "rotate": kge.RotatE}
    return kinds[name](entities, relations, width)
