"""The encoders of the ablation: what each is made of, and how it is fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import EncoderError, RecloopError, unknown_name
from recloop.encoders.items.encoder import ItemKnowledge
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.links import item_links
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.state.behavior import TextBehavior
from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.state.fitting import fit_state_encoder
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.experiments.studies.ablation.splits import Mask, Scorer

POPULARITY, COSINE, NEIGHBOURS = "popularity", "MiniLM cosine (untrained)", "KG neighbours (untrained)"
UNTRAINED = (POPULARITY, COSINE, NEIGHBOURS)
READS = "+ histories as text"
_PATTERNS = 4


@dataclass(frozen=True)
class Recipe:
    """What a trained encoder is made of.

    Args:
        name: its row in the table.
        text: items' text vectors.
        kg: the knowledge graph: items' entities, and the relations that users are attentive to.
        ids: a learned residual an item.
        sequence: what reads the history.
        patterns: attention queries over the history; 0 leaves them out.
        fusion: the predicted next attends to entity and relation tokens.
        reads: a language model reads the whole history as one text, another token.
        wrong: items whose text, or whose place in the graph, is another item's on purpose.
    """

    name: str
    text: bool = False
    kg: bool = False
    ids: bool = False
    sequence: Literal["mean", "gru", "lstm"] = "mean"
    patterns: int = 0
    fusion: bool = False
    reads: bool = False
    wrong: Literal["", "text", "kg"] = ""


_BOTH = Recipe("text + KG", text=True, kg=True)
_FULL = replace(_BOTH, name="+ fusion", patterns=_PATTERNS, sequence="lstm", fusion=True)
LADDER = (
    Recipe("ids only", ids=True),
    Recipe("text only", text=True),
    Recipe("KG only", kg=True),
    _BOTH,
    replace(_BOTH, name="+ patterns", patterns=_PATTERNS),
    replace(_BOTH, name="+ LSTM", patterns=_PATTERNS, sequence="lstm"),
    _FULL,
)
"""Part by part: from `text + KG` on, each row has all of the row before and one part more."""
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *LADDER,
        replace(_FULL, name="full + ids", ids=True),
        replace(_FULL, name=READS, reads=True),
        replace(_FULL, name="full, KG scrambled", wrong="kg"),
        replace(_FULL, name="full, text shuffled", wrong="text"),
        replace(_BOTH, name="text + KG, KG scrambled", wrong="kg"),
        replace(_BOTH, name="text + KG, text shuffled", wrong="text"),
    )
}
ENCODERS = (*UNTRAINED, *RECIPES)
"""Rows of the table."""
QUICK = tuple(name for name in ENCODERS if name != READS)
"""Those that a language model need not read thousands of histories for."""


@dataclass(frozen=True)
class Content:
    """What is known of N items besides who consumed them.

    Args:
        text: float32 (N, t) text vectors.
        knowledge: the graph's vectors; None in a log without a graph.
        graph: the triples; None likewise.
        entities: int64 (N,) each item's entity, -1 where not linked.
        bounds: lowest and highest value of each signal.
        reader: the language model over whole histories; None where there is none.
    """

    text: Tensor
    knowledge: ItemKnowledge | None
    graph: KnowledgeGraph | None
    entities: Ints
    bounds: tuple[tuple[float, float], ...]
    reader: TextBehavior | None = None


def scorer(name: str, content: Content, train: Sequences, seed: int, fitting: NextItemConfig) -> Scorer:
    """Fit the encoder of a row on `train`, or make what needs no fit.

    Raises:
        RecloopError: for an unknown name, or one that needs the graph a log does not have.
    """
    if name == POPULARITY:
        counts = torch.from_numpy(train.popularity(np.arange(train.users)))
        return lambda history, feedback: counts.expand(len(history), -1)
    if name == COSINE:
        cosine = CosineScorer(content.text)
        return lambda history, feedback: cosine(history)
    if name == NEIGHBOURS:
        if content.graph is None:
            raise RecloopError(f"'{name}' needs a knowledge graph and the log has none; leave it out of --encoders")
        neighbours = NeighbourScorer(content.graph, content.entities)
        return lambda history, feedback: neighbours(history)
    if name not in RECIPES:
        raise RecloopError(unknown_name("encoder", name, ENCODERS))
    return scores_of(fit(RECIPES[name], content, train, seed, fitting))


def fit(recipe: Recipe, content: Content, train: Sequences, seed: int, fitting: NextItemConfig) -> StateEncoder:
    """The state encoder of a recipe, fitted on the next item; users start from nothing but their history."""
    if recipe.kg and content.knowledge is None:
        raise RecloopError(f"'{recipe.name}' needs a knowledge graph and the log has none; leave it out of --encoders")
    if recipe.reads and content.reader is None:
        raise RecloopError(f"'{recipe.name}' needs a text model; leave it out of --encoders, or set --text")
    content = _made_wrong(recipe, content, seed)
    return fit_state_encoder(
        {"text": content.text} if recipe.text else {},
        content.knowledge if recipe.kg else None,
        train.items,
        train.offsets,
        train.feedback,
        content.bounds,
        config=StateEncoderConfig(sequence=recipe.sequence, patterns=recipe.patterns, fusion=recipe.fusion),
        seed=seed,
        catalogue_size=train.catalogue_size,
        fitting=replace(fitting, ids=recipe.ids),
        behavior=content.reader if recipe.reads else None,
    )


def scores_of(encoder: StateEncoder) -> Scorer:
    """An encoder as a scorer of histories."""

    def score(history: Tensor, feedback: Tensor) -> Tensor:
        state = encoder.start(history.new_zeros((len(history), 0), dtype=torch.float32), history, feedback)
        return encoder.scores(encoder.vector(state))

    return score


def _made_wrong(recipe: Recipe, content: Content, seed: int) -> Content:
    """Each item gets another's text, or another's place in the graph: as many vectors, none where it belongs."""
    random = np.random.default_rng([seed, 7])
    if recipe.wrong == "text":
        return replace(content, text=content.text[torch.from_numpy(_exchange(content.text.any(1).numpy(), random))])
    if recipe.wrong == "kg" and content.knowledge is not None:
        order = torch.from_numpy(_exchange(content.entities >= 0, random))
        known = content.knowledge
        tables = F.pad(known.tables[:-1][order], (0, 0, 0, 0, 0, 1))  # row N stays zero
        return replace(content, knowledge=replace(known, tables=tables))
    return content


def _exchange(present: Mask, random: np.random.Generator) -> Ints:
    """An order of the rows in which those present have changed places with each other at random."""
    rows = np.flatnonzero(present)
    order = np.arange(len(present))
    order[rows] = random.permutation(rows)
    return order


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
