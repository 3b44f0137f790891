"""How well fitted vectors predict triples that they never saw: filtered ranks, for heads and tails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SIDES = ("head", "tail")
"""What is looked for, the two other parts of a triple given."""
_HITS = (1, 3, 10)


class TripleScorer(Protocol):
    """Scores every entity in one place of a triple; higher is likelier. `Embeddings` is one."""

    def heads(self, relations: Tensor, tails: Tensor) -> Tensor:
        """Every entity as the head: int64 (b,), (b,) -> float32 (b, E)."""
        ...

    def tails(self, heads: Tensor, relations: Tensor) -> Tensor:
        """Every entity as the tail: int64 (b,), (b,) -> float32 (b, E)."""
        ...


def split_triples(kg: KnowledgeGraph, share: float = 0.1, seed: int = 0) -> tuple[KnowledgeGraph, Ints]:
    """The graph without some of its triples, and those, int64 (T, 3).

    Triples are taken out in a seeded random order, but for the last one of an entity or a relation: what nothing was
    learned of cannot be ranked. A triple said twice is held once. Fewer than `share` come out where the graph is so
    sparse that most triples are somebody's last.

    Raises:
        EncoderError: where `share` lies outside (0, 1), or no triple can be spared.
    """
    if not 0 < share < 1:
        raise EncoderError(f"share={share} of triples to hold out must lie inside (0, 1)")
    triples = np.unique(kg.triples, axis=0)
    wanted = max(round(share * len(triples)), 1)
    left = np.bincount(triples[:, [0, 2]].ravel(), minlength=len(kg.entities)).tolist()
    relations = np.bincount(triples[:, 1], minlength=len(kg.relations)).tolist()
    out: list[int] = []
    for row in np.random.default_rng(seed).permutation(len(triples)).tolist():
        head, relation, tail = triples[row].tolist()
        own = 2 if head == tail else 1
        if left[head] <= own or left[tail] <= own or relations[relation] <= 1:
            continue
        left[head] -= 1
        left[tail] -= 1
        relations[relation] -= 1
        out.append(row)
        if len(out) == wanted:
            break
    if not out:
        raise EncoderError(
            f"none of the {len(triples)} triples can be held out: each is the last of an entity or a relation; "
            "give a graph whose entities share neighbours"
        )
    held = np.zeros(len(triples), dtype=bool)
    held[out] = True
    return replace(kg, triples=triples[~held]), triples[held]


@dataclass(frozen=True)
class Ranks:
    """Where held-out triples came in.

    Args:
        relations: int64 (T,) each triple's relation.
        ranks: side -> float64 (T,) rank from 1 of the true entity among all candidates.
        candidates: side -> int64 (T,) how many were ranked, the true one included.
    """

    relations: Ints
    ranks: Mapping[str, Floats]
    candidates: Mapping[str, Ints]

    def figures(self, side: str | None = None, relation: int | None = None) -> dict[str, float]:
        """MRR and Hits@1, 3, 10 of one side or of both pooled, of one relation or of all; NaN over no triple."""
        mine = slice(None) if relation is None else self.relations == relation
        ranks = np.concatenate([self.ranks[name][mine] for name in ([side] if side else SIDES)])
        if not len(ranks):
            return dict.fromkeys(("mrr", *(f"hits_at_{k}" for k in _HITS)), float("nan"))
        hits = {f"hits_at_{k}": float((ranks <= k).mean()) for k in _HITS}
        return {"mrr": float((1 / ranks).mean()), **hits}

    def by_chance(self, side: str | None = None) -> dict[str, float]:
        """What a ranking at random comes to in expectation, over the same candidates."""
        counts = np.concatenate([self.candidates[name] for name in ([side] if side else SIDES)])
        harmonic = np.cumsum(1 / np.arange(1, counts.max(initial=1) + 1))
        hits = {f"hits_at_{k}": float(np.minimum(k / counts, 1).mean()) for k in _HITS}
        return {"mrr": float((harmonic[counts - 1] / counts).mean()), **hits}


@torch.no_grad()
def rank_triples(
    scorer: TripleScorer,
    triples: Ints,
    known: Ints | None,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Ranks:
    """Rank the true head and the true tail of each triple among all entities, filtered.

    The protocol of Bordes et al. (2013): entities that make another true triple do not count as mistakes. Ties count
    in the middle ("realistic", Berrendorf et al. 2020), so that a scorer which finds all alike earns nothing. Of the
    (T, E) scores `batch_size` rows exist at a time.

    Args:
        triples: int64 (T, 3) to rank.
        known: int64 (K, 3) every triple held true: training ones and `triples`; None ranks unfiltered.

    Raises:
        EncoderError: where a score is NaN.
    """
    ranks: dict[str, list[Tensor]] = {side: [] for side in SIDES}
    counts: dict[str, list[Tensor]] = {side: [] for side in SIDES}
    filters = {side: _Known(known, side) for side in SIDES} if known is not None else None
    for rows in np.array_split(triples, max(-(-len(triples) // batch_size), 1)):
        heads, relations, tails = (part.to(device) for part in torch.from_numpy(rows).unbind(1))
        for side, truth in (("head", heads), ("tail", tails)):
            scores = scorer.heads(relations, tails) if side == "head" else scorer.tails(heads, relations)
            own = scores.gather(1, truth[:, None])
            if bool(torch.isnan(scores).any()):
                raise EncoderError("scores of triples are NaN; fit the embeddings anew with a lower learning rate")
            open_to = torch.ones_like(scores, dtype=torch.bool)
            if filters is not None:
                lanes, entities = filters[side].of(rows)
                open_to[torch.from_numpy(lanes).to(device), torch.from_numpy(entities).to(device)] = False
            open_to.scatter_(1, truth[:, None], True)
            better = ((scores > own) & open_to).sum(1)
            alike = ((scores == own) & open_to).sum(1) - 1
            ranks[side].append((1 + better + alike / 2).double().cpu())
            counts[side].append(open_to.sum(1).cpu())
    return Ranks(
        triples[:, 1].copy(),
        {side: torch.cat(parts).numpy() for side, parts in ranks.items()},
        {side: torch.cat(parts).numpy() for side, parts in counts.items()},
    )


class Frequency:
    """Scores an entity by how often it has the relation on that side: what needs no embedding.

    Args:
        kg: the training triples.
    """

    def __init__(self, kg: KnowledgeGraph) -> None:
        shape = (len(kg.relations), len(kg.entities))
        heads, relations, tails = kg.triples.T
        self._heads, self._tails = (
            torch.from_numpy(np.bincount(relations * shape[1] + side, minlength=shape[0] * shape[1]).reshape(shape))
            for side in (heads, tails)
        )

    def heads(self, relations: Tensor, tails: Tensor) -> Tensor:
        """Counts of (entity, relation, ·), (b, E)."""
        return self._heads.to(relations.device)[relations].float()

    def tails(self, heads: Tensor, relations: Tensor) -> Tensor:
        """Counts of (·, relation, entity), (b, E)."""
        return self._tails.to(relations.device)[relations].float()


class _Known:
    """The true entities on one side of a triple, by its two other parts.

    Args:
        triples: int64 (K, 3).
        side: what is looked up.
    """

    def __init__(self, triples: Ints, side: str) -> None:
        self._side, self._relations = side, int(triples[:, 1].max(initial=0)) + 1
        key, entity = self._key(triples), triples[:, 0 if side == "head" else 2]
        order = np.argsort(key, kind="stable")
        self._keys, self._entities = key[order], entity[order]

    def of(self, triples: Ints) -> tuple[Ints, Ints]:
        """(lane, entity) of every true triple that shares the two other parts with `triples` (b, 3)."""
        key = self._key(triples)
        first, last = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        lanes = np.repeat(np.arange(len(key)), last - first)
        parts = [self._entities[a:b] for a, b in zip(first, last, strict=True)]
        return lanes, np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def _key(self, triples: Ints) -> Ints:
        key: Ints = triples[:, 2 if self._side == "head" else 0] * self._relations + triples[:, 1]
        return key
