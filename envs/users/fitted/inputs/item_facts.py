"""What a log tells of every item: where it lies in content and in behaviour, and how it was taken; fitted once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Floats, Ints, Sequences, rows_of
from recloop.envs.logs.walk import every_step

CONTENT, OWN, FACTS = 16, 4, 4
"""Lengths: content of an item, its vector of who consumes it, and facts of it."""
PLACE = CONTENT + OWN
"""Length r of where an item lies, as tastes read it."""
_QUANTILES = (0.01, 0.05, 0.2)
"""Of the distances between items: the widths of the kernels."""
WIDTHS = len(_QUANTILES)
_FEW_USERS = 60
"""Below so many users nothing is learned of who consumes what with what."""
_SHRINK = 20.0
"""Showings that an item's rates are pulled to the mean by."""
_SAMPLE = 512
"""Items between which distances are measured, at most."""


@dataclass(frozen=True)
class LoggedItemFacts:
    """N items as the inputs read them.

    Args:
        basis: float32 (d, 16) content vectors less `centre` times this are where an item lies, most spread first.
        centre: float32 (d,).
        own: float32 (N+1, 4) from who consumed what with what among the users fitted on; row N is zero.
        facts: float32 (N+1, 4) take rate, what followed a take, leaving after it, mean of the other answers, each
            less its mean and pulled to it; row N is zero.
        widths: float32 (3,) of the Gaussian kernels of nearness.
        rate: float32 () share of shown places that are taken; assumed where nobody knows what was shown.
    """

    basis: Tensor
    centre: Tensor
    own: Tensor
    facts: Tensor
    widths: Tensor
    rate: Tensor


@torch.no_grad()
def item_facts(
    vectors: Tensor, sequences: Sequences, users: Ints, signals: tuple[Signal, ...], assumed_rate: float
) -> LoggedItemFacts:
    """From item vectors (N+1, d) and the behaviour of `users` alone.

    Args:
        assumed_rate: of taking what is shown, in logs without exposures.
    """
    points = vectors[:-1].detach().cpu().double()
    centre = points.mean(0)
    spread = torch.linalg.eigh((points - centre).T @ (points - centre) / max(len(points), 1))
    basis = spread.eigenvectors.flip(1)[:, :CONTENT]
    basis = basis * torch.where(basis.sum(0) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    basis = torch.nn.functional.pad(basis, (0, CONTENT - basis.shape[1]))
    length = ((points - centre) @ basis).square().sum(1).mean().clamp_min(1e-12).sqrt()
    basis = basis / length
    widths = _widths(((points - centre) @ basis).float())
    shown, taken = _answered(sequences, users)
    rate = taken.sum() / max(shown.sum(), 1) if sequences.slates is not None else assumed_rate
    return LoggedItemFacts(
        basis=basis.float(),
        centre=centre.float(),
        own=_padded(_own_vectors(sequences, users)),
        facts=_padded(_facts(sequences, users, signals, shown, taken)),
        widths=widths,
        rate=torch.tensor(float(np.clip(rate, 1e-3, 0.999))),
    )


def empty_facts(items: int, dim: int) -> LoggedItemFacts:
    """Of the right shapes, for weights to be loaded into."""
    shapes = [(dim, CONTENT), (dim,), (items + 1, OWN), (items + 1, FACTS), (WIDTHS,), ()]
    return LoggedItemFacts(*(torch.zeros(shape) for shape in shapes))


def _widths(placed: Tensor) -> Tensor:
    """Of kernels, from the distances between items (N, 16)."""
    apart = torch.pdist(placed[:: max(len(placed) // _SAMPLE, 1)])
    apart = apart[apart > 1e-6]
    if not len(apart):
        return torch.ones(WIDTHS)
    return torch.quantile(apart, torch.tensor(_QUANTILES)).clamp_min(1e-3)


def _answered(sequences: Sequences, users: Ints) -> tuple[Floats, Floats]:
    """How often each item was shown and taken, (N,) each; in a log without exposures shown means taken."""
    n = sequences.catalogue_size
    if sequences.slates is None:
        taken = sequences.popularity(users)
        return taken, taken
    rows = rows_of(sequences.slates.offsets, users)
    items, took = sequences.slates.items[rows].ravel(), sequences.slates.answers[rows][..., 0].ravel() > 0.5
    shown = np.bincount(items, minlength=n + 1)[:n].astype(np.float32)
    return shown, np.bincount(items[took], minlength=n + 1)[:n].astype(np.float32)


def _facts(sequences: Sequences, users: Ints, signals: tuple[Signal, ...], shown: Floats, taken: Floats) -> Floats:
    """(N, 4), see `LoggedItemFacts`."""
    n = sequences.catalogue_size
    found = np.zeros((n, FACTS), dtype=np.float32)
    if len(signals) > 1:
        rows = rows_of(sequences.offsets, users)
        given = sequences.given[rows, 1]
        low, high = signals[1].bounds
        values = (sequences.feedback[rows, 1][given] - low) / (high - low)
        found[:, 3] = _shrunk(sequences.items[rows][given], values, n)
    if sequences.slates is None:
        share = np.log1p(taken)
        found[:, 0] = (share - share.mean()) / max(share.std(), 1e-6)
        return found
    mean = taken.sum() / max(shown.sum(), 1)
    found[:, 0] = ((taken + _SHRINK * mean) / (shown + _SHRINK) - mean) / max(mean, 1e-3)
    steps = every_step(sequences, users)
    took = steps.answers[..., 0] > 0.5  # (Q, K)
    step, place = np.nonzero(took)
    of = steps.items[step, place]
    count = took.sum(1).astype(np.float32)
    later = np.append(count[1:], 0)  # taken in the next slate of the same user
    same = np.append(steps.users[1:] == steps.users[:-1], False)
    known = same[step]
    found[:, 1] = _shrunk(of[known], later[step][known], n)
    known = steps.left[step] >= 0
    found[:, 2] = _shrunk(of[known], steps.left[step][known].astype(np.float32), n)
    return found


def _shrunk(items: Ints, values: Floats, n: int) -> Floats:
    """Mean value by item less the mean over all, in standard deviations, pulled to nothing where few: (N,)."""
    if not len(items):
        return np.zeros(n, dtype=np.float32)
    values = (values - values.mean()) / max(float(values.std()), 1e-6)
    count = np.bincount(items, minlength=n + 1)[:n]
    total = np.bincount(items, weights=values, minlength=n + 1)[:n]
    found: Floats = (total / (count + _SHRINK)).astype(np.float32)
    return found


def _own_vectors(sequences: Sequences, users: Ints) -> Floats:
    """(N, 4) leading directions of who took what more often than others did (truncated SVD); zero where few."""
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd  # slow to load

    n = sequences.catalogue_size
    found = np.zeros((n, OWN), dtype=np.float32)
    people = np.unique(users)
    if len(people) < _FEW_USERS or n <= OWN:
        return found
    shown, taken = _answered(sequences, people)
    if sequences.slates is None:
        rows = rows_of(sequences.offsets, people)
        owner = np.repeat(np.arange(len(people)), sequences.lengths[people])
        items, values = sequences.items[rows], np.ones(len(rows))
    else:
        slates = sequences.slates
        rows = rows_of(slates.offsets, people)
        owner = np.repeat(np.arange(len(people)), np.diff(slates.offsets)[people])
        owner, items = np.repeat(owner, slates.items.shape[1]), slates.items[rows].ravel()
        took = (slates.answers[rows][..., 0] > 0.5).ravel().astype(np.float64)
        held = items < n
        owner, items, took = owner[held], items[held], took[held]
        expected = (taken + 1) / (shown + 2)
        more = np.bincount(owner, weights=took - expected[items], minlength=len(people))  # than others take, by user
        values = took - expected[items] - (more / (np.bincount(owner, minlength=len(people)) + 5))[owner]
    weight = np.sqrt(np.bincount(items, minlength=n)[:n] + 5.0)
    table = csr_matrix((values / weight[items], (owner, items)), shape=(len(people), n))
    if table.nnz == 0 or not np.any(table.data):
        return found
    _, size, right = randomized_svd(table, OWN, random_state=0)
    vectors = (right.T * size) / weight[:, None]  # (N, 4)
    vectors = vectors * np.where(vectors.sum(0) < 0, -1, 1)
    scale = np.sqrt((vectors**2).sum(1).mean())
    return (vectors / max(scale, 1e-9) * np.sqrt(0.5)).astype(np.float32) if scale > 0 else found


def _padded(values: Floats) -> Tensor:
    """With a row of zeros for the empty place."""
    return torch.from_numpy(np.concatenate([values, np.zeros((1, values.shape[1]), dtype=np.float32)]))
