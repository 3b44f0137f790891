"""When to ask instead of recommending: by expected information gain, or as returns in the loop taught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

FACTS = ("constant", "information gain", "share of the episode gone", "questions asked")
"""What an asker looks at."""

_TELLS, _WRONG = 0.9, 0.05
"""Chances that an answer is taken to have of being true, and of naming another wish."""
_SILENT = 0.2
"""What an unanswered question leaves of the chance that the next one is answered: mostly there is no wish."""
_RATE = 2.0


def asking_facts(chances: Tensor, gone: Tensor, asked: Tensor, silent: Tensor) -> Tensor:
    """The `FACTS` of B lanes, float32 (B, 4).

    Args:
        chances: float32 (B, W) of wishes.
        gone: float32 (B,) share of the episode.
        asked: int64 (B,) questions so far, and `silent` int64 (B,) those since words were heard last.
        silent: see `asked`.
    """
    gain = information_gain(chances) * _SILENT ** silent.float()
    return torch.stack([torch.ones_like(gone), gain, gone, asked.float()], dim=1)


def information_gain(chances: Tensor) -> Tensor:
    """Nats (B,) that the answer to "what would you like?" is expected to tell of the wish.

    The mutual information of wish and answer, where a wish is told with chance .9, another one, any alike, with .05,
    and nothing with .05.
    """
    wishes = chances.shape[1]
    other = _WRONG / max(wishes - 1, 1)
    told = other + (_TELLS - other) * chances  # (B, W), chance of each answer
    prior = -(chances * chances.clamp_min(1e-12).log()).sum(1)
    noise = -(_TELLS * torch.log(chances.new_tensor(_TELLS)) + _WRONG * torch.log(chances.new_tensor(other)))
    answers = -(told * told.clamp_min(1e-12).log()).sum(1)
    gain: Tensor = answers - noise
    return torch.minimum(gain.clamp_min(0.0), prior)


class AskingStep(NamedTuple):
    """One step of B lanes: float32 (B, 4) facts, bool (B,) whether it asked, float32 (B,) what it earned, bool (B,)
    whether the lane's first episode was running."""

    facts: Tensor
    asks: Tensor
    reward: Tensor
    alive: Tensor


def learned_asker(episodes: Callable[[Tensor, int], Iterator[AskingStep]], trials: int) -> Tensor:
    """Weights (4,) of the log-odds to ask, by REINFORCE (Williams 1992) with the step's mean return as baseline.

    Args:
        episodes: weights and a number -> the steps of one episode a lane under them.
        trials: how often.
    """
    weights = torch.tensor([-1.0, 0.0, 0.0, 0.0])
    for trial in range(trials):
        steps = list(episodes(weights, trial))
        after = torch.zeros_like(steps[0].reward)
        moves: list[Tensor] = []
        for step in reversed(steps):
            after = (after + step.reward) * step.alive
            centred = (after - after[step.alive].mean()) / after[step.alive].std(correction=0).clamp_min(1e-6)
            off = step.asks.float() - torch.sigmoid(step.facts @ weights)
            moves.append((step.facts * (off * centred * step.alive).unsqueeze(1)).sum(0))
        lanes = sum(int(step.alive.sum()) for step in steps)
        weights = weights + _RATE * len(steps) * torch.stack(moves).sum(0) / lanes
    return weights
