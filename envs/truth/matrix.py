"""Matrix: a dense table says how much of every item every user watches, as KuaiRec's small matrix does."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.logs.schema import Signal
from recloop.envs.truth.tastes import CLICK, shares
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.data import WorldData


@dataclass(frozen=True)
class MatrixRules:
    """The laws of the world.

    Args:
        threshold: a watch ratio above it is a click.
        top: watch ratios end there (an item may be watched more than once in a row).
        noise: standard deviation of a watch ratio around the table's.
        leave: probability to leave after a slate with a click.
        leave_empty: probability to leave after a slate without one.
    """

    threshold: float = 0.7
    top: float = 2.0
    noise: float = 0.25
    leave: float = 0.02
    leave_empty: float = 0.1

    def __post_init__(self) -> None:
        shares(self, "leave", "leave_empty")
        if not 0 < self.threshold < self.top:
            raise UserSimulatorError(f"threshold={self.threshold} must lie between 0 and top={self.top}")
        if not self.noise > 0:
            raise UserSimulatorError(f"noise={self.noise} must be above 0")


@dataclass(frozen=True)
class MatrixState(State):
    """Which row of the table answers.

    Args:
        user: int64 (B,).
    """

    user: Tensor


class MatrixUsers(UserSimulator, Artifact):
    """Users whose watch ratio of every item stands in a table.

    The watch ratio of item i by user u is normal around table[u, i] with standard deviation `noise`, kept within
    [0, top]. Above `threshold` it is a click, and then the signal `watch` holds it. There is no position effect and
    no fatigue. The user leaves with probability `leave` after a slate with a click, `leave_empty` after one without.
    The items most likely to be clicked are optimal, in any order.

    Args:
        table: float32 (U, N) mean watch ratios in [0, top], by rows of the users table and the catalogue.
        rules: the laws.

    Raises:
        UserSimulatorError: a table with holes or outside [0, top].
    """

    artifact_file = "rules"
    artifact_error = UserSimulatorError
    artifact_tensors = "matrix"

    kind = "matrix"

    def __init__(self, table: Tensor, rules: MatrixRules) -> None:
        if table.dim() != 2 or not bool(torch.isfinite(table).all()):
            raise UserSimulatorError(
                f"the table has shape {tuple(table.shape)} and {int((~torch.isfinite(table)).sum())} holes; give a "
                "full (users, items) table, or fill it with MatrixUsers.from_table"
            )
        if float(table.min()) < 0 or float(table.max()) > rules.top:
            raise UserSimulatorError(
                f"the table spans {float(table.min()):g} to {float(table.max()):g}; watch ratios lie in "
                f"[0, {rules.top}], cut them or raise the top"
            )
        self.rules = rules
        self.items = table.shape[1]
        self._table = torch.nn.functional.pad(table.to(torch.float32), (0, 1))  # column N is the empty place
        self.signals = (CLICK, Signal("watch", "continuous", range=(0.0, rules.top), given_on=CLICK.name))

    @classmethod
    def from_table(cls, table: Tensor, rules: MatrixRules | None = None) -> Self:
        """From observed watch ratios (U, N): cut to [0, top], holes (NaN) filled with their item's mean.

        KuaiRec's small matrix is 99.6 % full. An item that nobody watched has the mean of the table.
        """
        rules = rules or MatrixRules()
        cut = table.to(torch.float32).clamp(0, rules.top)
        if bool(torch.isnan(cut).all()):
            raise UserSimulatorError("the table holds no watch ratio at all; pass (users, items) with some filled")
        means = cut.nanmean(0)
        means = torch.where(means.isnan(), cut.nanmean(), means)
        return cls(torch.where(cut.isnan(), means, cut), rules)

    @property
    def table(self) -> Tensor:
        """float32 (U, N) mean watch ratios."""
        return self._table[:, :-1]

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Move the table."""
        self.device = torch.device(device)
        self._table = self._table.to(self.device)

    def arrive(self, users: Tensor, draw: Draw) -> MatrixState:
        """The row is all there is."""
        return MatrixState(users)

    def observe(self, state: MatrixState, slate: Tensor, signals: Tensor) -> MatrixState:
        """Nothing changes."""
        return state

    def respond(self, state: MatrixState, past: Past, slate: Tensor, draw: Draw) -> tuple[MatrixState, Response]:
        """See the class."""
        noise = self.rules.noise * draw.normal("watch", slate)
        ratio = (self._mean(state, slate) + noise).clamp(0, self.rules.top)
        held = slate < self.items
        click = (ratio > self.rules.threshold) & held
        leave = torch.where(click.any(1), self.rules.leave, self.rules.leave_empty)
        response = Response(
            signals=torch.stack([click.to(torch.float32), ratio * click], dim=2),
            given=torch.stack([held, click], dim=2),
            left=draw.uniform("leave") < leave,
        )
        return state, response

    def expected(self, state: MatrixState, past: Past, slate: Tensor) -> Expected:
        """Exact: a normal cut at the threshold and piled up at the top."""
        click = self.utility(state, past, slate)
        leave = self.rules.leave + (self.rules.leave_empty - self.rules.leave) * (1 - click).prod(1)
        return Expected(mean=torch.stack([click, self._watched(self._mean(state, slate))], dim=2), leave=leave)

    def utility(self, state: MatrixState, past: Past | None, items: Tensor) -> Tensor:
        """Click probability."""
        items = items.expand(len(state.user), -1)
        above = _tail((self.rules.threshold - self._mean(state, items)) / self.rules.noise)
        return above * (items < self.items)

    def stored_facts(self) -> dict[str, Any]:
        """The rules."""
        return asdict(self.rules)

    def stored_tensors(self) -> dict[str, Tensor]:
        """The table."""
        return {"table": self.table}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """See `Artifact`."""
        return cls(tensors["table"], MatrixRules(**facts))

    def _mean(self, state: MatrixState, items: Tensor) -> Tensor:
        return self._table[state.user.unsqueeze(1), items]

    def _watched(self, mean: Tensor) -> Tensor:
        """Mean watch ratio of what is clicked: E[min(x, top) | x > threshold] for x normal around `mean`."""
        low = ((self.rules.threshold - mean) / self.rules.noise).double()
        high = ((self.rules.top - mean) / self.rules.noise).double()
        between = mean * (_tail(low) - _tail(high)) + self.rules.noise * (_density(low) - _density(high))
        watched = (between + self.rules.top * _tail(high)) / _tail(low).clamp_min(1e-30)
        return watched.clamp(self.rules.threshold, self.rules.top).to(torch.float32)


def matrix_table(preference: Tensor, topic: Tensor, quality: Tensor, top: float, generator: torch.Generator) -> Tensor:
    """A made-up table (U, N): taste for the topic times quality, two hidden factors that no text tells, and noise."""
    users, items = len(preference), len(topic)
    hidden = torch.randn(users, 2, generator=generator) @ torch.randn(2, items, generator=generator)
    noise = torch.randn(users, items, generator=generator)
    table = 0.1 + 1.2 * preference[:, topic] * quality + 0.08 * hidden + 0.05 * noise
    return table.clamp(0, top)


def _tail(z: Tensor) -> Tensor:
    """Chance of a standard normal above z."""
    return 0.5 * torch.erfc(z / math.sqrt(2.0))


def _density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)
