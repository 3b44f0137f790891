"""The patterns of a world's behaviour: which segment each user belongs to, and which topics they follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.patterns import BehaviorTopics, ItemTerms, Portrait, UserSegments, item_terms, portraits
from recloop.envs.logs.sequences import Ints, Sequences

CHOOSE = 0
"""Number of segments that stands for: the silhouette chooses."""
NONE = -1
"""Number of segments that stands for: none."""
FIRST_PART = 0.5
"""Share of each user's steps that features tell of, rounded down; one step at least."""
FEATURES_FROM = (
    "The users' features hold segments and topics of the first half of each user's logged steps. Users were fitted on, "
    "and are held against, the steps after it alone. What the segments and topics are was learned on the whole "
    "histories of the train users, as the item vectors were."
)
"""What a card says where patterns are features."""
FEATURES_WARNING = (
    "Users who start cold carry features of a history that they have not lived, and nobody was fitted at such a "
    "moment: how they answer at first is not claimed. People that a policy serves outside have these features only "
    "where their profile gives them."
)
"""What a card does not claim where patterns are features."""


@dataclass(frozen=True)
class PatternConfig:
    """What is looked for.

    Args:
        segments: number of segments of users; `CHOOSE` (0) takes the one with the best silhouette, `NONE` (-1) none.
        topics: number of topics of behaviour; 0 none.
        seed: of both.
    """

    segments: int = CHOOSE
    topics: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.segments < NONE:
            raise EncoderError(f"segments={self.segments}; give a number, {CHOOSE} to choose it or {NONE} for none")
        if self.topics < 0:
            raise EncoderError(f"topics={self.topics}; give a number, or 0 for none")


@dataclass(frozen=True)
class Patterns(Artifact):
    """Segments and topics, fitted on the train users, and where every user stands by their logged history.

    Args:
        segments: over the mean item vector of what a user consumed; None without.
        topics: over the terms of what a user consumed; None without, as where items have neither text nor entities.
        terms: what the items say.
        segment: int64 (U,) each user's segment; K (the last) without a history; empty without segments.
        mix: float32 (U, T) each user's mix of topics; (U, 0) without topics.
    """

    artifact_file = "patterns"

    segments: UserSegments | None
    topics: BehaviorTopics | None
    terms: ItemTerms
    segment: Tensor
    mix: Tensor

    def of_histories(self, history: Tensor, item_vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Where users stand who consumed `history`: int64 (B, H), N at empty places -> segments (B,), mixes (B, T).

        Args:
            item_vectors: float32 (N+1, d) of the world.
        """
        items = history.numpy()
        rows, places = np.nonzero(items < len(item_vectors) - 1)
        counts = _counts(rows, items[rows, places], len(items), len(item_vectors) - 1)
        return _standing(self.segments, self.topics, self.terms, counts, item_vectors)

    def features(self, sequences: Sequences, item_vectors: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        """Users' features float32 (U, K+1+T) and their names: one number a segment, 0 or 1, and one a topic.

        They are of what each user consumed in the steps that `sequences.profile_prefix` counts, and of nothing later.
        """
        ends = sequences.consumed_after(np.arange(sequences.users), sequences.first_scored)
        owner = np.repeat(np.arange(sequences.users), ends)
        rows = np.arange(len(owner)) + np.repeat(sequences.offsets[:-1] - np.cumsum(ends) + ends, ends)
        counts = _counts(owner, sequences.items[rows], sequences.users, sequences.catalogue_size)
        segment, mix = _standing(self.segments, self.topics, self.terms, counts, item_vectors)
        columns, names = [mix.new_zeros(len(mix), 0)], []
        if self.segments is not None:
            columns.append(torch.nn.functional.one_hot(segment, self.segments.dim).float())
            names += [f"segment {number}" for number in range(self.segments.dim)]
        if self.topics is not None:
            columns.append(mix)
            names += [f"topic {number}" for number in range(self.topics.dim)]
        return torch.cat(columns, dim=1), tuple(names)

    def sentences(self) -> tuple[str, ...]:
        """What was learned, for the world's card."""
        lines = []
        if self.segments is not None:
            lines.append(
                f"{self.segments.k} segment(s) of users, K-means over what the train users consumed; {self.silhouettes}"
            )
        if self.topics is not None:
            lines.append(f"{self.topics.dim} topics of behaviour, LDA over what the train users consumed")
        return tuple(lines)

    @property
    def silhouettes(self) -> str:
        """How the number of segments was chosen, in words."""
        tried = self.segments.silhouettes if self.segments is not None else {}
        if not tried:
            return "their number was given"
        return "silhouettes " + ", ".join(f"{k}: {value:.3f}" for k, value in tried.items())

    def stored_facts(self) -> dict[str, Any]:
        """What there is, and the terms."""
        there = {"segments": self.segments is not None, "topics": self.topics is not None}
        return {**there, "attributes": self.terms.attributes, "words": self.terms.words}

    def stored_tensors(self) -> dict[str, Tensor]:
        """What items say, and where users stand."""
        return {**self.terms.tensors(), "segment": self.segment, "mix": self.mix}

    def stored_children(self) -> dict[str, Artifact]:
        """Segments and topics, where there are any."""
        parts = {"segments": self.segments, "topics": self.topics}
        return {name: part for name, part in parts.items() if part is not None}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Patterns:
        """See `Artifact`."""
        return cls(
            segments=UserSegments.load(folder / "segments") if facts["segments"] else None,
            topics=BehaviorTopics.load(folder / "topics") if facts["topics"] else None,
            terms=ItemTerms.of(facts["attributes"], facts["words"], tensors),
            segment=tensors["segment"],
            mix=tensors["mix"],
        )


def fit_patterns(
    sequences: Sequences,
    train: Ints,
    item_vectors: Tensor,
    titles: Sequence[str],
    texts: Sequence[str],
    attributes: Sequence[Sequence[str]] | None = None,
    config: PatternConfig | None = None,
) -> Patterns | None:
    """Look for segments and topics; None where neither is wanted.

    A user's behaviour vector is the mean vector of what they consumed, signals aside. The recurrent state was tried
    instead: it is made to tell the next item, and on MovieLens-100K users form less clear groups in it (best silhouette
    over 2 to 10 segments 0.282, at 4, against 0.430, at 2).

    Args:
        sequences: everybody's behaviour; all of it is where a user stands.
        train: rows of the users that are fitted on.
        item_vectors: float32 (N+1, d).
        titles, texts: of the N items.
        attributes: entities and genres of each item, see `item_attributes`; default none, and the portraits name words.
        config: how many.

    Raises:
        EncoderError: for more segments than there are users to tell apart.
    """
    config = config or PatternConfig()
    if config.segments == NONE and config.topics == 0:
        return None
    owner = np.repeat(np.arange(sequences.users), sequences.lengths)
    counts = _counts(owner, sequences.items, sequences.users, sequences.catalogue_size)
    terms = item_terms(texts, attributes or [()] * len(texts))
    named = len(terms.attributes) or len(terms.words)
    mine = counts[train]

    def drawn(share: np.ndarray) -> tuple[Portrait, ...]:
        """Portraits of groups that the train users belong to by `share` (train users, G)."""
        consumed = share.T @ mine  # (G, N)
        return portraits(consumed, titles, consumed @ terms.matrix[:, :named].toarray(), terms.vocabulary[:named])

    segments = topics = None
    if config.segments != NONE:
        wanted = None if config.segments == CHOOSE else config.segments
        vectors = _means(mine, item_vectors)
        segments = UserSegments.fit(vectors, wanted, seed=config.seed)
        segments = segments.named(drawn(segments.encode(vectors)[:, : segments.k].double().numpy()))
    said = csr_array(mine @ terms.matrix)
    if config.topics and said.nnz:
        topics = BehaviorTopics.fit(said, terms.vocabulary, config.topics, seed=config.seed)
        topics = topics.named(drawn(topics.mix(said).double().numpy()))
    return Patterns(segments, topics, terms, *_standing(segments, topics, terms, counts, item_vectors))


def first_part(sequences: Sequences) -> Ints:
    """How many of each user's first steps features may tell of, int64 (U,): `FIRST_PART` of them, one at least.

    By steps and not by consumption: of who never consumes, the features must not tell it before it is over.
    """
    counts = np.diff(sequences.step_offsets)
    part: Ints = np.minimum(np.maximum((FIRST_PART * counts).astype(np.int64), 1), counts)
    return part


def item_attributes(graph: KnowledgeGraph | None, entities: Sequence[str | None]) -> list[list[str]]:
    """What the graph says of each item: names of the tails of the triples whose head is the item's entity.

    Args:
        graph: None says nothing.
        entities: of the N items; None where an item is not linked.
    """
    if graph is None:
        return [[] for _ in entities]
    tails = defaultdict(list)
    for head, _, tail in graph.triples.tolist():
        tails[head].append(graph.entities[tail])
    rows = graph.entity_rows(list(entities))
    return [tails[row] if row >= 0 else [] for row in rows.tolist()]


def _standing(
    segments: UserSegments | None,
    topics: BehaviorTopics | None,
    terms: ItemTerms,
    counts: csr_array,
    item_vectors: Tensor,
) -> tuple[Tensor, Tensor]:
    """Segments int64 (B,), empty without any, and mixes float32 (B, T) of users with counts (B, N)."""
    segment, mix = torch.zeros(0, dtype=torch.int64), torch.zeros(counts.shape[0], 0)
    if segments is not None:
        segment = segments.assign(_means(counts, item_vectors))
    if topics is not None:
        mix = topics.mix(csr_array(counts @ terms.matrix))
    return segment, mix


def _means(counts: csr_array, item_vectors: Tensor) -> Tensor:
    """Mean item vector of what each user consumed, float64 (B, d); zero without a history."""
    sums = counts @ item_vectors[:-1].double().cpu().numpy()
    return torch.from_numpy(sums / np.maximum(counts.sum(1), 1)[:, None])


def _counts(users: Ints, items: Ints, many: int, catalogue_size: int) -> csr_array:
    """How often each of `many` users consumed each item, sparse (many, N)."""
    return csr_array((np.ones(len(items)), (users, items)), shape=(many, catalogue_size))
