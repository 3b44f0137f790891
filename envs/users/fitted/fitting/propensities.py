"""Weights that undo how the logging policy chose what to show, and what can be checked on random slates."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.logs.sequences import Floats, Ints, Sequences, rows_of
from recloop.envs.users.fitted.config import FitConfig
from recloop.envs.users.fitted.fitting.losses import answer_losses, follow, step_scores
from recloop.envs.users.fitted.fitting.windows import WindowMaker
from recloop.envs.users.fitted.neural import NeuralUsers

CLIP = 10.0
"""Largest weight, in multiples of the median one."""
_UNIFORM = 0.2
"""How far a propensity may be from one over the catalogue's size to count as random."""


def propensity_weights(sequences: Sequences) -> Floats:
    """Inverse propensities (Q, K), clipped at `CLIP` times the median; 1 where none is logged, 1 on average.

    Raises:
        UserSimulatorError: a log without propensities.
    """
    slates = sequences.slates
    if slates is None or slates.propensity is None or not np.isfinite(slates.propensity).any():
        raise UserSimulatorError("the log holds no propensities of what was shown; fit with propensity='off'")
    known = np.isfinite(slates.propensity)
    inverse = 1 / slates.propensity[known]
    clipped = np.minimum(inverse, CLIP * np.median(inverse))
    weights = np.ones(slates.propensity.shape, dtype=np.float32)
    weights[known] = clipped / clipped.mean()
    return weights


def effective_sample_size(weights: npt.NDArray[np.floating]) -> float:
    """How many equally weighted answers these are worth: (sum w)^2 / sum w^2 (Kish 1965).

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())


def randomly_shown(sequences: Sequences, users: Ints) -> npt.NDArray[np.bool_]:
    """Which places of the users' slates (q, K) were filled by a uniform draw, as the logged propensities say."""
    slates = sequences.slates
    if slates is None or slates.propensity is None:
        return np.zeros((0, 1), dtype=bool)
    rows = rows_of(slates.offsets, users)
    uniform = 1 / np.maximum(sequences.catalogue_size - np.arange(slates.items.shape[1]), 1)
    with np.errstate(invalid="ignore"):
        near: npt.NDArray[np.bool_] = np.abs(slates.propensity[rows] / uniform - 1) < _UNIFORM
    return near


def random_maker(sequences: Sequences, config: FitConfig, memory: bool) -> WindowMaker:
    """Cuts windows in which only what was randomly shown weighs anything."""
    weight = np.where(randomly_shown(sequences, np.arange(sequences.users)), np.float32(1), np.float32(1e-9))
    return WindowMaker(sequences, config.history, config.lead, config.window, memory=memory, weight=weight)


@torch.no_grad()
def random_likelihood(
    fitted: NeuralUsers, sequences: Sequences, users: Ints, item_vectors: Tensor, profile: Tensor, config: FitConfig
) -> float:
    """Mean log-likelihood, in nats an answer and signal, of the places randomly shown to `users`."""
    maker = random_maker(sequences, config, fitted.memory.looks_back)
    moments = maker.moments(users)
    losses, sizes = [], []
    for start in range(0, len(moments), 256):
        windows = maker.cut(moments[start : start + 256])
        path = follow(fitted, item_vectors, profile, windows)
        raw = fitted.heads.calibrated(step_scores(fitted, path, windows, windows.items))
        losses.append(float(torch.stack(answer_losses(fitted, windows, raw, first=0)).mean()))
        sizes.append(float((windows.weight > 0.5).sum()))
    return -float(np.average(losses, weights=np.maximum(sizes, 1e-9)))
