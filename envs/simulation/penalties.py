"""What keeps agents honest that train in users fitted on a log: charges and bonuses on top of what a step earns.

A fitted model is wrong where the log is thin, and an agent finds those places. MOPO (Yu et al. 2020) charges for the
model's uncertainty; DORL (Gao et al. 2023) adds a bonus for where the logging policy had shown many different things,
because charging alone drives everybody to the few popular items that the log knows best. For training only: nothing
of it is part of what a policy is worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.floors import Floor, FlooredReward, FloorOf
from recloop.envs.interaction.randomness import absorb
from recloop.envs.interaction.reward import Outcome, Reward, WeightedReward
from recloop.envs.interaction.reward_terms import KeptReward
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.logs.walk import every_step
from recloop.envs.world.world import World

Uncertainty = Literal["std", "max"]
"""How an ensemble's disagreement is measured: standard deviation over its members, or how far off the farthest is."""

ORDERS = (1, 2)
"""How many of the last consumed items make a state of the log, one table each, as in DORL's experiments."""


@dataclass(frozen=True)
class PenaltyConfig:
    """What a training step is charged and given, in units of the reward; by default nothing.

    Args:
        pessimism: taken off for each unit of the training users' disagreement; at least 0.
        uncertainty: how disagreement is measured, `std` or `max`.
        entropy_bonus: given for each unit of the log's entropy where the user stands; at least 0.
        orders: how many of the last consumed items make a state of the log, for that entropy; one table each.
        floor_of: what the policy must give its users on average: diversity, liking or nothing; see `Floor`.
        floor: how much of it, at least.
        floor_rate: how fast the multiplier of the floor moves.
    """

    pessimism: float = 0.0
    uncertainty: Uncertainty = "std"
    entropy_bonus: float = 0.0
    orders: tuple[int, ...] = ORDERS
    floor_of: FloorOf = "nothing"
    floor: float = 0.0
    floor_rate: float = 0.5

    def __post_init__(self) -> None:
        for name, what in (("pessimism", "penalty"), ("entropy_bonus", "bonus")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise RecloopError(f"{name}={value}; it is a {what}, give 0 or more")
        if self.uncertainty not in get_args(Uncertainty):
            raise RecloopError(unknown_name("uncertainty", self.uncertainty, get_args(Uncertainty)))
        if self.floor and self.floor_of == "nothing":
            raise RecloopError(f"floor={self.floor} is of nothing; say of what, floor_of diversity or liking")
        Floor(self.floor_of, self.floor, self.floor_rate)  # checks the rest

    @property
    def active(self) -> bool:
        """Whether anything is charged or given."""
        return bool(self.pessimism or self.entropy_bonus) or self.held is not None

    @property
    def held(self) -> Floor | None:
        """The floor; None where there is none."""
        return None if self.floor_of == "nothing" else Floor(self.floor_of, self.floor, self.floor_rate)


@dataclass(frozen=True)
class PenalisedReward:
    """reward - pessimism x sum over places of |weight| x disagreement about the signal + entropy_bonus x entropy.

    The disagreement is an ensemble's about the answers to the slate; the entropy that of the log where the user stands
    after it (`LoggedEntropy`). As MOPO and DORL. Differences: MOPO takes the largest predicted deviation of the next
    state, DORL the largest predicted variance of a rating, each with the noise that a model sees in its data; here a
    member's own noise is no sign of ignorance and only how far the members' means lie apart counts, as `std` or as
    `max`. A place is charged where it is shown, whether the user looks at it or not.

    Args:
        reward: what is earned.
        config: weights and measure.
        entropy: of the log, on the device of the core; None where `entropy_bonus` is 0.
    """

    reward: KeptReward
    config: PenaltyConfig
    entropy: LoggedEntropy | None = None

    def __post_init__(self) -> None:
        if self.config.entropy_bonus and self.entropy is None:
            raise RecloopError("an entropy bonus needs the log's entropies; pass LoggedEntropy.of(world)")
        if self.config.pessimism and not isinstance(self.reward, WeightedReward):
            raise RecloopError(
                f"pessimism weighs the users' disagreement by the weights of a reward and {self.reward.in_words()} has "
                "none; give --reward in terms, or leave --pessimism out"
            )

    @property
    def needs_spread(self) -> bool:
        """Whether the users must say how unsure they are."""
        return self.config.pessimism > 0

    def __call__(self, outcome: Outcome) -> Tensor:
        reward = self.reward(outcome)
        if self.config.pessimism:
            reward = reward - self.config.pessimism * self._unsure(outcome)
        if self.config.entropy_bonus and self.entropy is not None:
            if outcome.past is None:
                raise RecloopError("an entropy bonus needs the users' past; step through recloop.envs.Core")
            reward = reward + self.config.entropy_bonus * self.entropy(outcome.past.history)
        return reward

    def _unsure(self, outcome: Outcome) -> Tensor:
        """Disagreement about what the slate is worth, (B,)."""
        apart = outcome.spread if self.config.uncertainty == "std" else outcome.farthest
        if apart is None:
            raise RecloopError(
                "pessimism needs users who say how unsure they are (an ensemble's spread); train in a fitted world, "
                "or with pessimism 0"
            )
        assert isinstance(self.reward, WeightedReward)
        charged = (apart * self.reward.units(outcome.signals, outcome.items).abs()).sum(2)  # (B, K)
        return (charged * (outcome.slate < len(outcome.item_vectors) - 1)).sum(1)


def training_reward(world: World, config: PenaltyConfig, device: torch.device | str = "cpu") -> Reward | None:
    """What agents are trained on in a world: its own reward (None, the core's default) where nothing is charged.

    The log is counted here, once a training.
    """
    if not config.active:
        return None
    reward: Reward = world.reward
    if config.pessimism or config.entropy_bonus:
        entropy = LoggedEntropy.of(world, config.orders).to(device) if config.entropy_bonus else None
        reward = PenalisedReward(world.reward, config, entropy)
    return reward if config.held is None else FlooredReward(reward, config.held, device)


@dataclass(frozen=True)
class LoggedEntropy:
    """Entropy of what the log's users met next, by what they consumed last: a table lookup.

    For each order k a state is the last k consumed items in whatever order, and its entropy is that of the counts of
    what came next over all users: of what was shown where the log has exposures, else of what was consumed. The orders
    are summed. After DORL (Gao et al. 2023), whose k-order entropies stand for the divergence of the logging policy
    from a uniform one. Differences: entropies are divided by log N, so that each lies in [0, 1] and a bonus has the
    scale of the reward whatever the catalogue; states are of items, not of item features; what comes next is all of a
    slate. A state that was never logged counts 0, as does one with a single item after it.

    Args:
        orders: k of each table.
        keys: int64 (E_k,) sorted hashes of the states, one tensor an order.
        values: float32 (E_k,) their entropies, in [0, 1].
        empty: N.
    """

    orders: tuple[int, ...]
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    empty: int

    @classmethod
    def of(cls, world: World, orders: Sequence[int] = ORDERS) -> LoggedEntropy:
        """Count the log of a world's train users; see `counted`."""
        return cls.counted(world.sequences, world.users.rows("train").numpy(), orders)

    @classmethod
    def counted(cls, sequences: Sequences, users: Ints, orders: Sequence[int] = ORDERS) -> LoggedEntropy:
        """Count the log of some users, rows of `sequences`.

        Raises:
            RecloopError: no order, an order below 1, or a log in which nobody met anything after so many items.
        """
        if not orders or min(orders) < 1:
            raise RecloopError(f"orders={tuple(orders)}; give one or more numbers of items, each at least 1")
        steps = every_step(sequences, users)
        recent = sequences.last(steps.users, max(orders), steps.consumed_before)[0]  # (Q, k) before each step
        following = torch.from_numpy(steps.items)  # (Q, K)
        tables = [_table(recent[:, -k:], following, sequences.catalogue_size) for k in orders]
        if not any(len(keys) for keys, _ in tables):
            raise RecloopError(
                f"no train user met anything after {min(orders)} consumed items: the log has no entropy to reward; "
                "train with an entropy bonus of 0"
            )
        keys, values = zip(*tables, strict=True)
        return cls(tuple(orders), keys, values, sequences.catalogue_size)

    def to(self, device: torch.device | str) -> LoggedEntropy:
        """The same tables on a device."""
        keys, values = (tuple(t.to(device) for t in tensors) for tensors in (self.keys, self.values))
        return LoggedEntropy(self.orders, keys, values, self.empty)

    def __call__(self, history: Tensor) -> Tensor:
        """Consumed items (B, H), newest last, N where empty -> summed entropies (B,), on the device of both."""
        total = torch.zeros(len(history), device=history.device)
        for k, known, entropies in zip(self.orders, self.keys, self.values, strict=True):
            if history.shape[1] < k or not len(known):
                continue
            recent = history[:, -k:]
            wanted = _hashes(recent)
            at = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
            held = (known[at] == wanted) & (recent < self.empty).all(1)
            total = total + entropies[at] * held
        return total


def _hashes(items: Tensor) -> Tensor:
    """One number (M,) for the items (M, k) in whatever order; two states share one with chance 2^-64."""
    key = torch.full_like(items[:, 0], items.shape[1])
    for place in items.sort(1).values.unbind(1):
        key = absorb(key, place)
    return key


def _table(recent: Tensor, following: Tensor, empty: int) -> tuple[Tensor, Tensor]:
    """The states (M, k) that were logged whole, as sorted hashes, and the entropy of what came after each."""
    whole = (recent < empty).all(1)
    hashes, met = _hashes(recent[whole]), following[whole]
    there = met < empty
    states, nexts = hashes.unsqueeze(1).expand_as(met)[there].numpy(), met[there].numpy()
    order = np.lexsort((nexts, states))
    states, nexts = states[order], nexts[order]
    new_state = np.ones(len(states), dtype=bool)
    new_state[1:] = states[1:] != states[:-1]
    new_pair = new_state.copy()
    new_pair[1:] |= nexts[1:] != nexts[:-1]
    starts = np.flatnonzero(new_pair)
    counts = np.diff(np.append(starts, len(states))).astype(np.float64)  # of each (state, next) pair
    of_state = np.cumsum(new_state[starts]) - 1
    total = np.bincount(of_state, counts)
    spent = np.bincount(of_state, counts * np.log(counts))
    entropy = np.log(total) - spent / total
    scaled = (entropy / math.log(max(empty, 2))).clip(0).astype(np.float32)
    return torch.from_numpy(states[new_state]), torch.from_numpy(scaled)
