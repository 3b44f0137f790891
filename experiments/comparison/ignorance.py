"""What is not known of a rollout while it runs: steps beyond the log, and members of an ensemble that disagree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.evidence.support.bracket import BracketRules, BracketTally
from recloop.envs.evidence.support.model import SupportModel
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.schema import Signal
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import RolloutStep
from recloop.envs.users.fitted.ensemble import EnsembleUsers

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
        self.asks = True
        self.members: Tensor | None = None
        self.nowhere = torch.zeros(core.batch, device=core.device)

    def add(self, one: RolloutStep) -> None:
        """One step of the lanes whose first episode was running before it."""
        past, step, alive = one.past, one.transition, one.alive
        rows = alive.nonzero()[:, 0]
        distance = self.nowhere.clone()
        distance[rows] = self.support.distance(past.rows(rows), step.slate[rows])
        self.tally.add(distance, step.reward, step.terminated, alive, one.number)
        expected = self._expected(past, one.state, step.slate) if self.asks else None
        if expected is not None:
            earned = expected.double() * alive.unsqueeze(1)
            self.members = earned if self.members is None else self.members + earned

    def _expected(self, past: Past, state: Any, slate: Tensor) -> Tensor | None:
        """What each member of an ensemble expects the slates to earn, (B, M); None where nobody disagrees.

        Users that only tell a spread count as two members, one above and one below the mean in every place alike.
        """
        simulator, world = self.core.simulator, self.core.world
        if isinstance(simulator, EnsembleUsers):
            found = [m.expected(s, past, slate) for m, s in zip(simulator.members, state.states, strict=True)]
            earned = [expected_reward(one.mean, world.reward, world.signals) for one in found]
            return torch.stack(earned, dim=1)
        one = simulator.expected(state, past, slate)
        if one is None or one.spread is None:
            self.asks = False
            return None
        ends = (one.mean - one.spread, one.mean + one.spread)
        return torch.stack([expected_reward(end, world.reward, world.signals) for end in ends], dim=1)

    @property
    def outside(self) -> Floats:
        """Steps outside the support, (B,)."""
        return _host(self.tally.outside)

    @property
    def expected(self) -> Floats | None:
        """What each member expected of the episodes, (B, M); None where nobody disagrees."""
        return None if self.members is None else _host(self.members)

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


def expected_reward(mean: Tensor, reward: WeightedReward, signals: Sequence[Signal]) -> Tensor:
    """What signals of expected values (B, K, S) earn, (B,); the reward's other parts are left out.

    A signal that exists on another's positives counts as often as these are expected.
    """
    names = [signal.name for signal in signals]
    total = torch.zeros(len(mean), device=mean.device)
    for place, signal in enumerate(signals):
        weight = reward.signals.get(signal.name, 0.0)
        if weight == 0:
            continue
        given = mean[..., names.index(signal.given_on)] if signal.given_on is not None else 1.0
        total = total + weight * (mean[..., place] * given).sum(1)
    return total
