"""What logging policies go by: scores of items from what a policy may know, one function a kind of policy."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.interaction.observation import Observation
from recloop.envs.world.data import WorldData

_SHARP = 3.0
"""Standard deviation of a policy's scores, in nats: the best few of 200 items take most places."""
_FOCUS = 6.0
"""Nats by which a slate on one topic favours it."""
_SOFT_FOCUS, _SOFT_GRADE = 2.0, 0.4
"""The same of a soft focus, where all else still comes up, and what one standard deviation of grade weighs there."""
_CAP = 2
"""Places that one topic may fill in a capped slate."""
_BLUR = 0.25
"""How far an editor's grade of an item is off, in standard deviations of the item's popularity within its topic."""


@dataclass(frozen=True)
class ScoringFacts:
    """What logging policies know of the items.

    Args:
        vectors: float32 (N+1, d) of length 1; row N is zero.
        popularity: float32 (N,) standardised log popularity.
        grade: float32 (N,) standardised: popularity within the item's topic, as a blurred editor's grade.
        topic: int64 (N+1,); row N holds T.
        topics: T.
    """

    vectors: Tensor
    popularity: Tensor
    grade: Tensor
    topic: Tensor
    topics: int

    @classmethod
    def of(cls, world: WorldData, seed: int) -> "ScoringFacts":
        """From a world's catalogue; `seed` blurs the editor's grades."""
        topic = world.catalogue.groups[:, 0]
        topics = int(topic[-1])
        popular = _standard(world.catalogue.popularity.clamp_min(1e-6).log())
        members = F.one_hot(topic[:-1], topics).to(torch.float32)  # (N, T)
        mean = (popular @ members) / members.sum(0).clamp_min(1)
        generator = torch.Generator().manual_seed(seed)
        within = _standard(popular - mean[topic[:-1]])
        grade = _standard(within + _BLUR * torch.randn(len(within), generator=generator))
        return cls(F.normalize(world.item_vectors, dim=1), popular, grade, topic, topics)

    def to(self, device: torch.device) -> "ScoringFacts":
        """The same on a device."""
        return replace(
            self,
            vectors=self.vectors.to(device),
            popularity=self.popularity.to(device),
            grade=self.grade.to(device),
            topic=self.topic.to(device),
        )


@dataclass(frozen=True)
class Scores:
    """A mixture of M score tables for b lanes, each drawn with equal chance.

    Args:
        logits: float32 (b, M, N).
        cap: places that one topic may fill; None without limit.
    """

    logits: Tensor
    cap: int | None = None


def _random(known: ScoringFacts, seen: Observation) -> Scores:
    return _alike(torch.zeros_like(known.popularity), seen)


def _popular(known: ScoringFacts, seen: Observation) -> Scores:
    return _alike(_SHARP * known.popularity, seen)


def _worst_first(known: ScoringFacts, seen: Observation) -> Scores:
    return _alike(-_SHARP * known.popularity, seen)


def _capped(known: ScoringFacts, seen: Observation) -> Scores:
    return Scores(_popular(known, seen).logits, cap=_CAP)


def _graded(known: ScoringFacts, seen: Observation) -> Scores:
    return _alike(_SHARP * known.grade, seen)


def _content(known: ScoringFacts, seen: Observation) -> Scores:
    """Nearest to the mean of what was consumed; anything before the first consumption."""
    mean = known.vectors[seen["history"]].sum(1)
    return _near(known, mean)


def _last_item(known: ScoringFacts, seen: Observation) -> Scores:
    """Nearest to what was consumed last."""
    return _near(known, known.vectors[seen["history"][:, -1]])


def _focus(known: ScoringFacts, seen: Observation) -> Scores:
    """One topic, any of them, its popular items first."""
    favoured = _FOCUS * F.one_hot(known.topic[:-1], known.topics).T  # (T, N)
    return Scores((favoured + known.grade).expand(len(seen["history"]), -1, -1))


def _soft_focus(known: ScoringFacts, seen: Observation) -> Scores:
    """One topic or none in particular, any of them; better items more often, all of them sometimes."""
    favoured = _SOFT_FOCUS * F.one_hot(known.topic[:-1], known.topics).T  # (T, N)
    scores = F.pad(favoured, (0, 0, 1, 0)) + _SOFT_GRADE * known.grade  # (T+1, N)
    return Scores(scores.expand(len(seen["history"]), -1, -1))


def _least_shown(known: ScoringFacts, seen: Observation) -> Scores:
    """The topics that the last slates showed least."""
    shown = known.topic[seen["shown"].flatten(1)]  # (b, L x K)
    counts = F.one_hot(shown, known.topics + 1).sum(1)[:, : known.topics].to(torch.float32)
    scores = -counts[:, known.topic[:-1]] + known.grade
    return Scores(scores.unsqueeze(1))


def _blend(known: ScoringFacts, seen: Observation) -> Scores:
    """Half content, half popularity."""
    return Scores(0.5 * (_content(known, seen).logits + _popular(known, seen).logits))


KINDS: dict[str, Callable[[ScoringFacts, Observation], Scores]] = {
    "random": _random,
    "popularity": _popular,
    "content": _content,
    "last-item": _last_item,
    "worst-first": _worst_first,
    "one-topic": _focus,
    "capped-popularity": _capped,
    "graded": _graded,
    "least-shown": _least_shown,
    "blend": _blend,
    "soft-focus": _soft_focus,
}
"""Name -> scores of a logging policy for the lanes of an observation."""


def _alike(scores: Tensor, seen: Observation) -> Scores:
    return Scores(scores.expand(len(seen["history"]), 1, -1))


def _near(known: ScoringFacts, vector: Tensor) -> Scores:
    """Cosine with `vector` (b, d), standardised over items; zeros where there is no vector."""
    cosine = F.normalize(vector, dim=1) @ known.vectors[:-1].T  # (b, N)
    return Scores((_SHARP * _standard(cosine)).unsqueeze(1))


def _standard(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 along the last axis; zeros where all are equal."""
    centred = values - values.mean(-1, keepdim=True)
    return centred / centred.std(-1, keepdim=True).clamp_min(1e-6)
