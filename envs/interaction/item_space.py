"""The space of `proto` actions: item vectors around their mean, and a coordinate for how popular an item is."""

import torch
from torch import Tensor
from torch.nn import functional as F

POPULARITY_SPREAD = 0.5
"""Standard deviation of the coordinate of popularity, as a multiple of the vectors' spread around their mean."""


def item_space(vectors: Tensor, popularity: Tensor) -> Tensor:
    """Item vectors float32 (N+1, d), row N zero, and how often each item was consumed (N,) -> float32 (N+1, d + 1)."""
    logs = torch.log1p(popularity.to(vectors.device, torch.float32))
    return centred(with_popularity(vectors, logs))


def with_popularity(vectors: Tensor, logs: Tensor, spread: float = POPULARITY_SPREAD) -> Tensor:
    """Vectors (N+1, d) with one more coordinate: the standardised log counts (N,), which texts may not tell."""
    length = _length(vectors[:-1] - vectors[:-1].mean(0))
    coordinate = spread * length * (logs - logs.mean()) / logs.std(correction=0).clamp_min(1e-6)
    return torch.cat([vectors.detach(), F.pad(coordinate, (0, 1)).unsqueeze(1)], dim=1)


def centred(vectors: Tensor) -> Tensor:
    """The vectors around their mean over the catalogue, of mean square length 1; (N+1, d), row N zero."""
    parts = vectors[:-1] - vectors[:-1].mean(0)
    return F.pad(parts / _length(parts).clamp_min(1e-6), (0, 0, 0, 1))


def _length(parts: Tensor) -> Tensor:
    """Root mean square length of rows."""
    return parts.square().sum(1).mean().sqrt()
