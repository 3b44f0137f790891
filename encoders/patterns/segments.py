"""Segments of users: K-means over what they consumed, with the number of segments chosen by silhouette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import EncoderError
from recloop.encoders.patterns.portraits import Portrait

TRIED = range(2, 11)
"""Numbers of segments that the silhouette chooses from."""
NO_HISTORY = "no history"
"""Name of the last segment: users of whom no behaviour is known."""
_STARTS = 4
"""K-means runs from so many starting points, and the best is kept."""


class UserSegments(Artifact):
    """K segments of users by the direction in which their behaviour differs from the average, and one for the rest.

    Vectors are centred on the fitted users' mean and scaled to length 1 before K-means (scikit-learn's, Lloyd 1982
    from k-means++): users differ by taste, not by how much they did. A zero vector is a user without a history, who
    belongs to segment K, "no history".

    | method | in | out |
    |---|---|---|
    | `assign` | float (B, w) behaviour vectors | int64 (B,), 0 to K |
    | `encode` | float (B, w) behaviour vectors | float32 (B, K+1), one 1 a row |

    Args:
        origin: float32 (w,) the mean that is taken off.
        centres: float32 (K, w).
        silhouettes: mean silhouette (Rousseeuw 1987) by the numbers of segments that were tried; empty where K was
            given.
        portraits: of the K segments, in order; default without names.

    Attributes:
        dim: K + 1.
    """

    artifact_file = "segments"

    def __init__(
        self,
        origin: Tensor,
        centres: Tensor,
        silhouettes: Mapping[int, float] | None = None,
        portraits: Sequence[Portrait] = (),
    ) -> None:
        if centres.dim() != 2 or origin.shape != centres.shape[1:]:
            shapes = f"{tuple(centres.shape)} and the origin {tuple(origin.shape)}"
            raise EncoderError(f"centres are {shapes}; give (K, w) and (w,)")
        self.origin, self.centres = origin.float(), centres.float()
        self.silhouettes = dict(silhouettes or {})
        self.portraits = tuple(portraits) or (Portrait(),) * len(centres)
        self.dim = len(centres) + 1

    @classmethod
    def fit(
        cls,
        vectors: Tensor,
        k: int | None = None,
        *,
        tried: Sequence[int] = TRIED,
        sample: int = 2000,
        seed: int = 0,
    ) -> UserSegments:
        """Segments of users with behaviour vectors (U, w).

        Args:
            vectors: float (U, w); zero rows are left out.
            k: number of segments; None chooses the one of `tried` with the highest silhouette.
            tried: numbers of segments to choose from; those above the number of distinct users are skipped.
            sample: most users that the silhouettes are measured on.
            seed: of the starting points and the sample.

        Raises:
            EncoderError: for NaN, or a `k` above the number of distinct users with a history.
        """
        held = _checked(vectors, None)
        held = held[(held != 0).any(1)]
        if len(held) == 0:
            return cls(vectors.new_zeros(vectors.shape[1]), vectors.new_zeros(0, vectors.shape[1]))
        origin = held.double().mean(0)
        points = _directions(held, origin)
        distinct = len(np.unique(points, axis=0))
        if k is not None and not 1 <= k <= distinct:
            raise EncoderError(
                f"{k} segments of {distinct} distinct user(s) with a history; choose 1 to {distinct}, or let the "
                "silhouette choose"
            )
        silhouettes: dict[int, float] = {}
        if k is None:
            from sklearn.metrics import silhouette_score  # slow to load

            chance = np.random.default_rng(seed)
            some = points if len(points) <= sample else points[np.sort(chance.choice(len(points), sample, False))]
            most = min(len(np.unique(some, axis=0)), len(some) - 1)
            for number in tried:
                if 2 <= number <= most:
                    labels = _k_means(number, seed).fit_predict(some)
                    silhouettes[number] = float(silhouette_score(some, labels))
            k = max(silhouettes, key=lambda number: (silhouettes[number], -number)) if silhouettes else 1
        centres = _k_means(k, seed).fit(points).cluster_centers_
        order = np.lexsort(centres.T[::-1])  # one numbering, whatever order the starting points came in
        return cls(origin, torch.from_numpy(centres[order]), silhouettes)

    @property
    def k(self) -> int:
        """Number of segments without the one of users without a history."""
        return len(self.centres)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all K + 1 segments."""
        return (*(portrait.name for portrait in self.portraits), NO_HISTORY)

    def named(self, portraits: Sequence[Portrait]) -> UserSegments:
        """These segments with portraits, one for each of the K."""
        if len(portraits) != self.k:
            raise EncoderError(f"{len(portraits)} portraits for {self.k} segments; give one each")
        return UserSegments(self.origin, self.centres, self.silhouettes, portraits)

    def assign(self, vectors: Tensor) -> Tensor:
        """The segment of each user: float (B, w) -> int64 (B,); K where the row is zero.

        Raises:
            EncoderError: for another width, or NaN.
        """
        vectors = _checked(vectors, self.centres.shape[1]).cpu()
        empty = (vectors == 0).all(1)
        if self.k == 0:
            return torch.zeros(len(vectors), dtype=torch.int64)
        points = torch.from_numpy(_directions(vectors, self.origin.double()))
        centres = self.centres.double()
        distance = (centres**2).sum(1) - 2 * points @ centres.T  # (B, K), less what all centres share
        return torch.where(empty, self.k, distance.argmin(1))

    def encode(self, vectors: Tensor) -> Tensor:
        """The segment of each user as float32 (B, K+1) with one 1 a row."""
        return F.one_hot(self.assign(vectors), self.dim).float()

    def stored_facts(self) -> dict[str, Any]:
        """How their number was chosen, and their portraits."""
        silhouettes = {str(number): value for number, value in self.silhouettes.items()}
        return {"silhouettes": silhouettes, "portraits": [portrait.as_dict() for portrait in self.portraits]}

    def stored_tensors(self) -> dict[str, Tensor]:
        """Where they lie."""
        return {"origin": self.origin, "centres": self.centres}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> UserSegments:
        """See `Artifact`."""
        silhouettes = {number: facts["silhouettes"][str(number)] for number in sorted(map(int, facts["silhouettes"]))}
        drawn = [Portrait.of(each) for each in facts["portraits"]]
        return cls(tensors["origin"], tensors["centres"], silhouettes, drawn)


def _checked(vectors: Tensor, width: int | None) -> Tensor:
    if vectors.dim() != 2 or (width is not None and vectors.shape[1] != width):
        wanted = "w" if width is None else width
        raise EncoderError(f"behaviour vectors are {tuple(vectors.shape)}; these segments need (B, {wanted})")
    bad = (~torch.isfinite(vectors)).any(1)
    if bool(bad.any()):
        raise EncoderError(f"{int(bad.sum())} behaviour vector(s) hold NaN or infinite numbers; encode them anew")
    return vectors


def _directions(vectors: Tensor, origin: Tensor) -> npt.NDArray[np.float64]:
    """Vectors (B, w) less the origin, at length 1; one at the origin stays zero."""
    return F.normalize(vectors.detach().cpu().double() - origin.cpu(), dim=1).numpy()


def _k_means(k: int, seed: int) -> Any:
    from sklearn.cluster import KMeans  # slow to load: a second and 100 MB

    return KMeans(k, n_init=_STARTS, random_state=seed)
