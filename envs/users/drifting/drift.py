"""What changes with the days: how far tastes walk, how items rise and fade, who and what arrives when."""

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.randomness import Draw

GONE = -20.0
"""Log-odds below which nobody takes an item any more: a certain yes has become one in 500 million."""


@dataclass(frozen=True)
class Drift:
    """A course of days. Everything is said in log-odds of a user's yes to an item; all zeros change nothing.

    Args:
        tastes: spread, over users, of what a day adds to one user's taste for an average item: a random walk in the
            space of item vectors, so that t days add up to `tastes` x sqrt(t), and items that are alike move alike.
        shared: the same, of a walk that all users go together.
        jump: spread of what a sudden shared change adds besides, every `jump_every` days.
        jump_every: days between sudden changes.
        height: an item begins at -height on the day of its release, stands at +height `rise` days later, and comes
            back to -height as it ages.
        rise: days from an item's release to its best day, times 0.5 to 1.5 by the item.
        new_items: share of the catalogue that is released only after day 0, evenly over `days`.
        new_users: share of the users who are there only after day 0, evenly over `days`.
        days: length of the schedule; afterwards everything is released and everybody there.
        seed: of the walks and of the schedules.

    Raises:
        RecloopError: a value out of its range.
    """

    tastes: float = 0.1
    shared: float = 0.15
    jump: float = 1.0
    jump_every: int = 20
    height: float = 0.5
    rise: float = 10.0
    new_items: float = 0.3
    new_users: float = 0.2
    days: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tastes", "shared", "jump", "height"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RecloopError(f"drift {name}={getattr(self, name)}; it must be finite and at least 0")
        for name in ("new_items", "new_users"):
            if not 0 <= getattr(self, name) < 1:
                raise RecloopError(
                    f"drift {name}={getattr(self, name)} leaves nothing on day 0; give a share in [0, 1)"
                )
        for name in ("jump_every", "days"):
            if getattr(self, name) < 1:
                raise RecloopError(f"drift {name}={getattr(self, name)}; give 1 or more days")
        if not 0 < self.rise < math.inf:
            raise RecloopError(f"drift rise={self.rise}; give a number of days above 0")

    @classmethod
    def none(cls) -> "Drift":
        """No drift at all."""
        return cls().scaled(0.0)

    def scaled(self, strength: float) -> "Drift":
        """All movements times `strength`; the schedules stay, but 0 switches them off too."""
        if not 0 <= strength < math.inf:
            raise RecloopError(f"drift strength={strength}; it must be finite and at least 0")
        moved = {name: getattr(self, name) * strength for name in ("tastes", "shared", "jump", "height")}
        return replace(self, **moved) if strength else replace(self, **moved, new_items=0.0, new_users=0.0)

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self) if one.name in _MOVES)

    @property
    def jumps(self) -> tuple[int, ...]:
        """The days of the schedule with a sudden change."""
        return tuple(range(self.jump_every, self.days + 1, self.jump_every)) if self.jump else ()

    def released(self, items: int) -> Tensor:
        """int64 (N,) day on which each item is released; those there on day 0 came up to 3 x `rise` days before."""
        order, count = torch.randperm(items, generator=self._generator(1)), round(self.new_items * items)
        ages = torch.rand(items, generator=self._generator(2)) * 3 * self.rise
        day = -ages.to(torch.int64)
        day[order[:count]] = _spread(count, self.days)
        return day

    def joined(self, users: int) -> Tensor:
        """int64 (U,) day from which each user is there; 0 from the start."""
        order, count = torch.randperm(users, generator=self._generator(3)), round(self.new_users * users)
        day = torch.zeros(users, dtype=torch.int64)
        day[order[:count]] = _spread(count, self.days)
        return day

    def lift(self, day: int, items: int) -> Tensor:
        """float32 (N,) log-odds of each item on a day; -inf where it is not released.

        Raises:
            RecloopError: nothing is left that anybody could take.
        """
        age = (day - self.released(items)).to(torch.float32)
        share = age / (self.rise * (0.5 + torch.rand(items, generator=self._generator(4))))
        lift = self.height * (2 * share * torch.exp(1 - share) - 1)
        lift = lift.masked_fill(age < 0, -torch.inf)
        if not bool((lift > GONE).any()):
            raise RecloopError(
                f"on day {day} the drift leaves none of {items} items to take: {int((age >= 0).sum())} are released, "
                f"the best at {float(lift.max()):g} log-odds (limit {GONE:g}); lower height={self.height:g} or "
                f"new_items={self.new_items:g}"
            )
        return lift

    def step(self, day: int, users: int, dim: int) -> tuple[Tensor, Tensor]:
        """What a day adds to the walks: float32 (U, d) of each user's own, and (d,) of the shared one."""
        rows, axes = torch.arange(users), torch.arange(dim)
        mine = Draw.at(self.seed, rows, torch.full_like(rows, day), torch.zeros_like(rows))
        ours = Draw.at(self.seed, rows[:1], rows[:1] + day, rows[:1])
        own = self.tastes * mine.normal("own taste", axes.expand(users, -1))
        shared = self.shared * ours.normal("shared taste", axes.unsqueeze(0))[0]
        if day in self.jumps:
            shared = shared + self.jump * ours.normal("jump", axes.unsqueeze(0))[0]
        return own, shared

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + purpose)


_MOVES = ("tastes", "shared", "jump", "height", "new_items", "new_users")


def directions(item_vectors: Tensor) -> Tensor:
    """What walks are along: item vectors (N+1, d) around their mean, of mean square length 1; row N, zero, stays.

    So a standard normal direction gives an average item a standard normal shift.
    """
    centred = item_vectors[:-1] - item_vectors[:-1].mean(0)
    scale = centred.square().sum(1).mean().sqrt().clamp_min(1e-12)
    return F.pad(centred / scale, (0, 0, 0, 1))


def _spread(count: int, days: int) -> Tensor:
    """int64 (count,) days 1 to `days`, rising, evenly."""
    return 1 + torch.arange(count) * days // max(count, 1)
