"""Topics of behaviour: latent Dirichlet allocation over the terms of what users consumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from scipy.special import psi
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import EncoderError
from recloop.encoders.patterns.portraits import Portrait

Floats = npt.NDArray[np.float64]
Counts: TypeAlias = csr_array | Floats

_ROUNDS = 100
_SETTLED = 1e-3
"""scikit-learn's own limits of a document's fit: rounds, and mean change of its topic weights."""
_ROUNDS_IN_FIT = 25
"""Rounds a user and pass while topics are fitted: more cost time and change little."""
_CHUNK = 256
"""Users that are worked on at once."""


class BehaviorTopics(Artifact):
    """T topics over V terms; a user is a mix of them.

    LDA (Blei, Ng and Jordan 2003) fitted by scikit-learn's batch variational Bayes (Hoffman et al. 2010), with a
    document a user: the terms of all that they consumed. Difference: a new user's mix is worked out here, by the same
    rounds as scikit-learn's `transform`, so that nothing but arrays is kept.

    | method | in | out |
    |---|---|---|
    | `counts` | B lists of terms | float64 sparse (B, V) |
    | `mix` | the same lists, or counts (B, V) | float32 (B, T), rows sum to 1; even where no term is known |

    Args:
        vocabulary: the V terms.
        components: float64 (T, V) weights of the terms in each topic, above 0.
        prior: of a document's topic weights.
        portraits: of the T topics; default without names.

    Attributes:
        dim: T.
    """

    artifact_file = "topics"

    def __init__(
        self, vocabulary: Sequence[str], components: Floats, prior: float, portraits: Sequence[Portrait] = ()
    ) -> None:
        if components.ndim != 2 or components.shape[1] != len(vocabulary) or not (components > 0).all():
            raise EncoderError(f"components are {components.shape}; {len(vocabulary)} terms need (T, V), all above 0")
        self.vocabulary, self.components, self.prior = tuple(vocabulary), components, float(prior)
        self.portraits = tuple(portraits) or (Portrait(),) * len(components)
        self.dim = len(components)
        self._columns = {term: place for place, term in enumerate(self.vocabulary)}
        self._weights = np.exp(psi(components) - psi(components.sum(1, keepdims=True)))  # (T, V)

    @classmethod
    def fit(
        cls,
        counts: Counts,
        vocabulary: Sequence[str],
        topics: int,
        *,
        passes: int = 10,
        sample: int = 1000,
        seed: int = 0,
    ) -> BehaviorTopics:
        """Topics of users with counts (U, V) of the terms of `vocabulary`.

        Args:
            counts: not negative; users without a term are left out.
            vocabulary: the V terms.
            topics: T.
            passes: over the users.
            sample: most users that are fitted on, drawn by chance.
            seed: of the starting weights and the sample.

        Raises:
            EncoderError: where T is below 1, or no user has a term.
        """
        from sklearn.decomposition import LatentDirichletAllocation  # slow to load

        counts = csr_array(counts)
        if topics < 1:
            raise EncoderError(f"{topics} topics; choose 1 or more")
        held = counts[np.flatnonzero(counts.sum(1) > 0)]
        if held.shape[0] == 0:
            raise EncoderError("no user consumed an item with a known term; topics need item texts or a graph")
        if held.shape[0] > sample:
            chance = np.random.default_rng(seed)
            held = held[np.sort(chance.choice(held.shape[0], sample, replace=False))]
        model = LatentDirichletAllocation(
            topics, max_iter=passes, learning_method="batch", max_doc_update_iter=_ROUNDS_IN_FIT, random_state=seed
        ).fit(held)
        return cls(vocabulary, model.components_, model.doc_topic_prior_)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the T topics."""
        return tuple(portrait.name for portrait in self.portraits)

    def named(self, portraits: Sequence[Portrait]) -> BehaviorTopics:
        """These topics with portraits, one each."""
        if len(portraits) != self.dim:
            raise EncoderError(f"{len(portraits)} portraits for {self.dim} topics; give one each")
        return BehaviorTopics(self.vocabulary, self.components, self.prior, portraits)

    def counts(self, bags: Sequence[Sequence[str]]) -> csr_array:
        """Lists of terms as sparse counts (B, V); unknown terms are skipped."""
        cells = [(row, self._columns[t]) for row, bag in enumerate(bags) for t in bag if t in self._columns]
        rows, columns = zip(*cells, strict=True) if cells else ((), ())
        return csr_array((np.ones(len(cells)), (rows, columns)), shape=(len(bags), len(self.vocabulary)))

    def mix(self, users: Counts | Sequence[Sequence[str]]) -> Tensor:
        """Each user's mix of topics, float32 (B, T).

        Raises:
            EncoderError: for counts of another width, negative ones, or NaN.
        """
        counts = users if isinstance(users, np.ndarray | csr_array) else self.counts(users)
        counts = csr_array(counts)
        if counts.shape[1] != len(self.vocabulary):
            raise EncoderError(f"counts are {counts.shape}; these topics know {len(self.vocabulary)} terms")
        if not np.isfinite(counts.data).all() or (counts.data < 0).any():
            raise EncoderError("counts of terms hold NaN or negative numbers; count them anew")
        parts = [self._mix(counts[begin : begin + _CHUNK].toarray()) for begin in range(0, counts.shape[0], _CHUNK)]
        return torch.from_numpy(np.concatenate([np.zeros((0, self.dim)), *parts]).astype(np.float32))

    def _mix(self, counts: Floats) -> Floats:
        """The fixed point of each document's topic weights given the topics, (B, T); settled users stand still."""
        weights = np.ones((len(counts), self.dim))
        moving = np.arange(len(weights))
        for _ in range(_ROUNDS):
            before = weights[moving]  # (M, T)
            share = np.exp(psi(before) - psi(before.sum(1, keepdims=True)))
            expected = counts[moving] / (share @ self._weights + np.finfo(np.float64).eps)  # (M, V)
            weights[moving] = share * (expected @ self._weights.T) + self.prior
            moving = moving[np.abs(weights[moving] - before).mean(1) >= _SETTLED]
            if len(moving) == 0:
                break
        return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float64)

    def stored_facts(self) -> dict[str, Any]:
        """Terms, prior and portraits."""
        drawn = [portrait.as_dict() for portrait in self.portraits]
        return {"vocabulary": self.vocabulary, "prior": self.prior, "portraits": drawn}

    def stored_tensors(self) -> dict[str, Tensor]:
        """How topics use terms."""
        return {"components": torch.from_numpy(self.components)}

    @classmethod
    def restored(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any
    ) -> BehaviorTopics:
        """See `Artifact`."""
        drawn = [Portrait.of(each) for each in facts["portraits"]]
        return cls(facts["vocabulary"], tensors["components"].numpy(), facts["prior"], drawn)
