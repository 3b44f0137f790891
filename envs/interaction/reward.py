"""What a step is worth: a weighted sum, or any callable of the same arguments."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.plug_ins import returned, source_of
from recloop.envs.interaction.item_columns import ItemColumns, ShownItems
from recloop.envs.interaction.response import Past, Response
from recloop.envs.logs.schema import Signal
from recloop.envs.simulation.deferred_checks import DeferredChecks


@dataclass(frozen=True)
class Outcome:
    """One step, as a reward sees it.

    Args:
        slate: int64 (B, K) what was shown; N where a place is invalid.
        response: the users' answers.
        invalid: int64 (B,) how many places hold no item: repeated, forbidden or left empty.
        item_vectors: float32 (N+1, d), row N zero.
        signals: what the answers carry.
        spread: float32 (B, K, S) how unsure the users' model was of each signal before it was drawn
            (`Expected.spread`); None unless the reward `needs_spread`.
        farthest: float32 (B, K, S) how far the most deviant of the users' models was (`Expected.farthest`), likewise.
        past: of the users just after the step; None where nobody kept one.
        columns: of the items table; `items` reads them.
    """

    slate: Tensor
    response: Response
    invalid: Tensor
    item_vectors: Tensor
    signals: tuple[Signal, ...]
    spread: Tensor | None = None
    farthest: Tensor | None = None
    past: Past | None = None
    columns: ItemColumns = field(default_factory=ItemColumns)

    @property
    def items(self) -> ShownItems:
        """Columns of the shown items by name: `outcome.items["price"]` is float32 (B, K), 0 at empty places."""
        return ShownItems(self.slate, self.columns)


Reward = Callable[[Outcome], Tensor]
"""Outcome of B lanes -> float32 (B,)."""


TERMS = ("leaving", "diversity", "repeats")
"""What a weighted reward counts beside signals and columns of the items table."""


@dataclass(frozen=True)
class WeightedReward:
    """sum over places of weight x signal + leaving x left + diversity x (1 - mean cosine) + repeats x invalid.

    Args:
        signals: weight of each signal by name; the others count 0.
        leaving: added when the user leaves.
        diversity: times the slate's diversity in [0, 2]: one minus the mean pairwise cosine of its item vectors.
        repeats: times the number of invalid places; negative to punish.
        columns: weight of each column of numbers in the items table: `margin` adds it for every item that is shown,
            `purchase*margin` times what that signal says of the item.
    """

    signals: Mapping[str, float] = field(default_factory=dict)
    leaving: float = 0.0
    diversity: float = 0.0
    repeats: float = 0.0
    columns: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, outcome: Outcome) -> Tensor:
        response = outcome.response
        answers = response.signals * response.given
        if self.columns:
            reward = self.by_place(answers, outcome.signals, outcome.items).sum(1)
        else:
            reward = answers.sum(1) @ self.units(outcome.signals, outcome.items)  # (B,)
        if self.leaving:
            reward = reward + self.leaving * response.left
        if self.repeats:
            reward = reward + self.repeats * outcome.invalid
        if self.diversity:
            reward = reward + self.diversity * slate_diversity(outcome.slate, outcome.item_vectors)
        return reward

    def by_place(self, answers: Tensor, signals: Sequence[Signal], items: ShownItems) -> Tensor:
        """What each place earns by its own answers and columns: answers (B, K, S), 0 where not given -> (B, K)."""
        earned = (answers * self.units(signals, items)).sum(2)
        for name, weight in self.columns.items():
            if "*" not in name:
                earned = earned + weight * items[name]
        return earned

    def units(self, signals: Sequence[Signal], items: ShownItems) -> Tensor:
        """What one unit of each signal earns: (S,), or (B, K, S) where it depends on the item."""
        names = [s.name for s in signals]
        for name in self.signals:
            if name not in names:
                raise RecloopError(unknown_name("signal", name, names))
        units = _on_device(tuple(self.signals.get(n, 0.0) for n in names), items.slate.device)
        products = {name: weight for name, weight in self.columns.items() if "*" in name}
        if not products:
            return units
        units = units.expand(*items.slate.shape, len(names)).clone()
        for name, weight in products.items():
            signal, column = name.split("*")
            units[..., names.index(signal)] += weight * items[column]
        return units

    def as_dict(self) -> dict[str, Any]:
        """For a world's card; `reward_of` undoes it."""
        return {
            "signals": dict(self.signals),
            "leaving": self.leaving,
            "diversity": self.diversity,
            "repeats": self.repeats,
            **({"columns": dict(self.columns)} if self.columns else {}),
        }

    def in_words(self) -> str:
        """As `recloop.envs.interaction.reward_terms.parsed_reward` reads it.

        >>> WeightedReward({"click": 1.0}, leaving=-0.5).in_words()
        'click=1 leaving=-0.5'
        """
        further = {name: value for name in TERMS if (value := getattr(self, name))}
        return " ".join(f"{n}={w:g}" for n, w in {**self.signals, **self.columns, **further}.items()) or "0"


def slate_diversity(slate: Tensor, item_vectors: Tensor) -> Tensor:
    """One minus the mean pairwise cosine of the shown items' vectors, (B,); 0 for fewer than two items."""
    vectors = torch.nn.functional.normalize(item_vectors[slate], dim=-1)  # (B, K, d)
    shown = (slate < len(item_vectors) - 1).sum(1)  # (B,)
    pairs = (shown * (shown - 1)).clamp(min=1)
    cosines = vectors.sum(1).square().sum(-1) - vectors.square().sum((1, 2))  # (B,), each pair twice
    diversity = (1 - cosines / pairs).clamp(0.0, 2.0)  # rounding may leave the range
    return torch.where(shown > 1, diversity, torch.zeros_like(diversity))


def checked_reward(reward: Any, lanes: Tensor, faults: DeferredChecks, function: Any = None) -> Tensor:
    """The reward as float32 (B,); `RecloopError` where it has another shape or is not finite, naming the first lane.

    `function` is what returned it, for messages.
    """
    if not isinstance(reward, Tensor) or reward.shape != lanes.shape or reward.is_complex():
        who = (
            "the reward"
            if function is None
            else f"the reward {getattr(function, 'path', None) or source_of(function)}(outcome)"
        )
        raise RecloopError(
            f"{who} returned {returned(reward)}; return a torch tensor with one number a lane, ({len(lanes)},)"
        )
    faults.look(~torch.isfinite(reward).all(), lambda: _not_finite(reward, lanes))
    return reward.to(torch.float32)


def _not_finite(reward: Tensor, lanes: Tensor) -> RecloopError:
    lane = int((~torch.isfinite(reward)).nonzero()[0, 0])
    value = float(reward[lane])
    kind = "NaN" if math.isnan(value) else str(value)
    return RecloopError(
        f"the reward of lane {int(lanes[lane])} is {kind}; rewards must be finite, check the reward function "
        "and the simulator's signals"
    )


@lru_cache(maxsize=64)
def _on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """Copied there once: a GPU would wait for each copy."""
    return torch.tensor(weights, device=device)
