"""Next items without any training: by what texts say alike, and by what the knowledge graph says alike.

What a trained encoder must beat before its training is worth anything. Both see cold items as well as warm ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.links import item_links


class CosineScorer:
    """Items scored by the cosine of their text to the mean of a history's texts.

    The mean is of vectors of length 1; an item without text (a zero row) neither counts in a history nor scores
    above 0.

    Args:
        vectors: float32 (N, t) text vectors, of any length.

    Raises:
        EncoderError: where the vectors hold NaN or are no table.
    """

    def __init__(self, vectors: Tensor) -> None:
        if vectors.dim() != 2 or not bool(torch.isfinite(vectors).all()):
            raise EncoderError(f"text vectors are {tuple(vectors.shape)}; a finite table (N, t) is needed")
        self._table = F.pad(F.normalize(vectors.float(), dim=1), (0, 0, 0, 1))  # (N+1, t); row N is zero

    def __call__(self, history: Tensor) -> Tensor:
        """Scores in [-1, 1] of every item, (B, N), on the history's device.

        Args:
            history: int64 (B, H) item rows; places holding N are empty. A history of nothing scores all 0.
        """
        self._table = self._table.to(history.device)
        user = F.normalize(self._table[history].sum(1), dim=1)  # (B, t)
        return user @ self._table[:-1].T


class NeighbourScorer:
    """Items scored by the entities they share with a history, without embeddings.

    An item is the set of its (relation, neighbour) pairs in the graph, each weighted by its inverse document
    frequency log(1 + L / df) over the L linked items, scaled to length 1: the vector space model of Salton and
    Buckley (1988), as Di Noia et al. (2012) use it for linked data. Differences: one cosine over all relations at
    once, without a learned weight a relation. A history is the sum of its items.

    Args:
        kg: the triples.
        entity_rows: int64 (N,) each item's entity, or -1; an item that is not linked scores 0.
    """

    def __init__(self, kg: KnowledgeGraph, entity_rows: npt.NDArray[np.int64]) -> None:
        links = np.unique(item_links(kg, entity_rows), axis=0)  # (L, 3): item, kind, neighbour
        pairs, column = np.unique(links[:, 1:], axis=0, return_inverse=True)
        column = column.reshape(-1)
        linked = max(len(np.unique(links[:, 0])), 1)
        weight = np.log1p(linked / np.bincount(column, minlength=len(pairs)))[column]
        n = len(entity_rows)
        length = np.sqrt(np.bincount(links[:, 0], weight**2, minlength=n))[links[:, 0]]
        self._items = sparse.csr_array((weight / length, (links[:, 0], column)), shape=(n, len(pairs)))
        self._by_pair = self._items.T.tocsr()

    def __call__(self, history: Tensor) -> Tensor:
        """Scores in [0, 1] of every item, (B, N), on the history's device.

        Args:
            history: int64 (B, H) item rows; places holding N are empty. A history of nothing scores all 0.
        """
        b, n = len(history), self._items.shape[0]
        lanes, places = np.nonzero((history < n).cpu().numpy())
        rows = history.cpu().numpy()[lanes, places]
        consumed = sparse.csr_array((np.ones(len(rows)), (lanes, rows)), shape=(b, n))
        user = consumed @ self._items  # (B, pairs)
        length = np.sqrt(user.power(2).sum(axis=1)).clip(1e-12)
        scores = (user @ self._by_pair).toarray() / length[:, None]
        return torch.from_numpy(scores).to(history.device, torch.float32)
