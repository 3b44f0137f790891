"""What is not known of a rollout while it runs: steps beyond the log, and members of an ensemble that disagree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.core import Core, Transition
from recloop.envs.logs.schema import Signal
from recloop.envs.rewards import WeightedReward
from recloop.envs.support.bracket import BracketRules, BracketTally
from recloop.envs.support.model import SupportModel
from recloop.envs.users.contract import Expected, Past

Floats = npt.NDArray[np.float64]


class Ignorance:
    """Watches the first episode of every lane of a core.

    Args:
        core: reset.
        support: on the core's device.
        rules: of the brackets.
    """

    def __init__(self, core: Core, support: SupportModel, rules: BracketRules) -> None:
        self.core, self.support = core, support
        self.tally = BracketTally(support, rules, core.batch, core.max_steps, core.device)
        self.step = 0
        self.asks = True
        self.none = torch.zeros(core.batch, device=core.device)

    def add(self, past: Past, state: Any, step: Transition, alive: Tensor) -> None:
        """One step of the lanes that were `alive` (B,) before it; `past` and `state` are from before it, too."""
        rows = alive.nonzero()[:, 0]
        distance = self.none.clone()
        distance[rows] = self.support.distance(past.rows(rows), step.slate[rows])
        spread = self._spread(past, state, step.slate)
        self.tally.add(distance, step.reward, spread, step.terminated, alive, self.step)
        self.step += 1

    def _spread(self, past: Past, state: Any, slate: Tensor) -> Tensor:
        """Standard deviation of the slates' expected reward over the ensemble, (B,); 0 where nobody says."""
        if not self.asks:
            return self.none
        expected = self.core.simulator.expected(state, past, slate)
        if expected is None or expected.spread is None:
            self.asks = False
            return self.none
        return reward_spread(expected, self.core.world.reward, self.core.world.signals)

    @property
    def outside(self) -> Floats:
        """Steps outside the support, (B,)."""
        return _host(self.tally.outside)

    @property
    def spread(self) -> Floats:
        """Sum over steps of the spread of their expected reward, (B,)."""
        return _host(self.tally.spread)

    @property
    def pessimistic(self) -> Floats:
        """What the episodes were worth at worst, (B,)."""
        return _host(self.tally.low)

    @property
    def optimistic(self) -> Floats:
        """What the episodes were worth at best, (B,)."""
        return _host(self.tally.high)


def _host(tensor: Tensor) -> Floats:
    return np.asarray(tensor.cpu().numpy(), dtype=np.float64)


def reward_spread(expected: Expected, reward: WeightedReward, signals: Sequence[Signal]) -> Tensor:
    """How unsure an ensemble is of the mean reward of slates, (B,): its members are taken to err alike in every place.

    Only what signals earn counts. A signal that exists on another's positives counts as often as these are expected.
    """
    if expected.spread is None:
        return torch.zeros(len(expected.mean), device=expected.mean.device)
    names = [signal.name for signal in signals]
    total = torch.zeros(len(expected.mean), device=expected.mean.device)
    for place, signal in enumerate(signals):
        weight = abs(reward.signals.get(signal.name, 0.0))
        if weight == 0:
            continue
        spread = expected.spread[..., place]
        if signal.given_on is not None:
            spread = spread * expected.mean[..., names.index(signal.given_on)]
        total = total + weight * spread.sum(1)
    return total
