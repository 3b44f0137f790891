"""Recurrent users: hidden states that every step moves, one of the user and one of each group of items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recloop.envs.interaction.randomness import purpose_code
from recloop.envs.logs.schema import Signal
from recloop.envs.users.fast import NativeForm
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.distributions import thresholds_of
from recloop.envs.users.fitted.heads import CONSUME, SUMS, centred
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.slate_context import Reading
from recloop.envs.users.fitted.layers import gru_cell, linear, moved
from recloop.envs.users.fitted.memory import FittedState, Memory, Sizes, session_clock
from recloop.envs.users.fitted.neural import NeuralUsers

GROUP_UNITS = 16
"""Units of a group's state."""
_READ = 8
"""Numbers that are read of an item in a log with exposures."""
_WORTH = 2
"""Numbers a shown item adds to its group's input."""


@dataclass(frozen=True)
class RecurrentState(FittedState):
    """State of recurrent users.

    Args:
        hidden: float32 (B, dh).
        profile: float32 (B, p), as they arrived.
        groups: float32 (B, C, dg) of every group of items, or None in logs without exposures.
    """

    hidden: Tensor
    profile: Tensor
    groups: Tensor | None = None


class RecurrentMemory(Memory):
    """A GRU cell (Cho et al. 2014) advanced once a step, as in GRU4Rec (Hidasi et al. 2016).

    Differences: an order-free input over several items a step, their answers beside them; the profile enters at the
    start and at the end. In logs with exposures the cell reads a few learned numbers an item, never its whole
    vector, and a second, smaller cell runs for every group of items with weights that all groups share: its input is
    how many items of the group were shown and consumed. So fatigue that was seen in one group is known for every
    other. What a group has of its own is its starting state.
    """

    def __init__(self, signals: tuple[Signal, ...], sizes: Sizes, groups: Groups) -> None:
        super().__init__()
        self.signals, self.sizes, self.items_groups = signals, sizes, groups
        s, row = len(signals), sizes.item_dim + sizes.residual
        if sizes.exposures:
            self.reader = linear(row, _READ)
            self.worth = linear(row, _WORTH, bias=False)
            self.width = 2 * (_READ + s) + 2
            self.group_inputs = s + 1 + _WORTH
            self.cell = gru_cell(self.width + 2, sizes.hidden)
            self.group_cell = gru_cell(self.group_inputs + len(groups.sizes) + 4, GROUP_UNITS)
            self.origin = nn.Parameter(torch.zeros(groups.count, GROUP_UNITS))
            self.group_width = GROUP_UNITS
        else:
            self.width = row + s
            self.cell = gru_cell(self.width, sizes.hidden)
        self.start = nn.Parameter(torch.zeros(sizes.hidden, sizes.profile_dim))
        self.user_dim = sizes.hidden + sizes.profile_dim + (2 if sizes.exposures else 0)

    def blank(self, profile: Tensor) -> RecurrentState:
        """A hidden state from the profile (B, p) alone."""
        hidden = torch.tanh(profile @ self.start.T)
        groups = torch.tanh(self.origin).expand(len(profile), -1, -1) if self.sizes.exposures else None
        zeros = hidden.new_zeros(len(profile))
        return RecurrentState(zeros, hidden.new_zeros(len(profile), SUMS), hidden, profile, groups)

    def columns(self, table: Tensor) -> Tensor:
        """What the cell reads of an item, and what it is worth to its groups; without exposures all of it."""
        return torch.cat([self.reader(table), self.worth(table)], dim=1) if self.sizes.exposures else table

    def inputs(self, rows: Tensor, items: Tensor, signals: Tensor, shown: bool) -> Tensor:
        """(..., 1 + width): whether anything happened; what was consumed; with exposures, what was shown, by group."""
        held = items < self.sizes.catalogue_size
        consumed = held & (signals[..., 0] > 0.5) if shown else held
        weight = consumed.to(rows.dtype).unsqueeze(-1)  # (..., K, 1)
        count = weight.sum(-2)  # (..., 1)
        answers = centred(self.signals, signals)
        if not self.sizes.exposures:
            read = torch.cat([rows, answers], dim=-1)  # (..., K, d + residual + S)
            return torch.cat([(count > 0).to(rows.dtype), (read * weight).sum(-2) / count.clamp_min(1).sqrt()], -1)
        seen = held.to(rows.dtype).unsqueeze(-1) * float(shown)
        size = seen.sum(-2)
        read = torch.cat([rows[..., :_READ], answers], dim=-1)
        by_group = [seen, weight, answers[..., 1:] * weight, rows[..., _READ:] * seen]
        groups = self.items_groups.sums(items, torch.cat(by_group, dim=-1))  # (..., C, S+1+worth)
        parts = [
            ((count > 0) | (size > 0)).to(rows.dtype),
            (read * weight).sum(-2) / count.clamp_min(1).sqrt(),
            (read * seen).sum(-2) / size.clamp_min(1),
            torch.log1p(count),
            torch.log1p(size),
            groups.flatten(-2),
        ]
        return torch.cat(parts, dim=-1)

    def advance(self, state: RecurrentState, step: Tensor) -> RecurrentState:
        """One step of the cells where anything happened."""
        happened, read = step[:, :1] > 0, step[:, 1 : 1 + self.width]
        if state.groups is None:
            return replace(state, hidden=torch.where(happened, moved(self.cell, read, state.hidden), state.hidden))
        clock = session_clock(state.steps)
        hidden = moved(self.cell, torch.cat([read, clock], dim=1), state.hidden)
        b, c, units = state.groups.shape
        mine = step[:, 1 + self.width :].view(b, c, self.group_inputs)
        common = torch.cat([clock, read[:, -2:]], dim=1).unsqueeze(1).expand(-1, c, -1)
        kind = self.items_groups.kind.expand(b, -1, -1)
        rows = torch.cat([mine, common, kind], dim=2).flatten(0, 1)
        groups = moved(self.group_cell, rows, state.groups.reshape(b * c, units)).view(b, c, units)
        return replace(
            state,
            hidden=torch.where(happened, hidden, state.hidden),
            groups=torch.where(happened.unsqueeze(2), groups, state.groups),
        )

    def read(self, state: RecurrentState) -> Reading:
        """Hidden state beside the profile and, with exposures, how far the session is; and the groups' states."""
        parts = [state.hidden, state.profile]
        if self.sizes.exposures:
            parts.append(session_clock(state.steps))
        return Reading(torch.cat(parts, dim=-1), groups=state.groups)


class RecurrentUsers(NeuralUsers):
    """Fitted users whose state is recurrent; see `RecurrentMemory` and `Heads`."""

    kind = "recurrent"

    def _memory(self, groups: Groups) -> Memory:
        return RecurrentMemory(self.signals, self.sizes, groups)


def recurrent_form(members: Sequence[FittedUsers], arrivals: Any, slate_size: int) -> NativeForm | None:
    """How members of an ensemble answer slates of K places, each in its lanes.

    None where they have no such form: other families, users who feel what is shown, learned leaving, continuous
    answers, slates longer than the table of positions.

    Args:
        members: prepared, of one size.
        arrivals: their states at arrival behind one another, each with its number as `member`.
    """
    found = [member for member in members if type(member) is RecurrentUsers and _known(member, slate_size)]
    if len(found) < len(members):
        return None
    from recloop.envs.simulation.native import kernels

    def bind(start: Callable[[str], int]) -> tuple[Callable[..., None], list[Any]]:
        places = {name: start(f"own.{name}") for name in ("hidden", "steps")}
        tables = [
            kernels.RecurrentTables(number=number, member=start("member"), **places, **_tables(member))
            for number, member in enumerate(found)
        ]
        return kernels.recurrent_answers, tables

    shapes = tuple(shape for member in found for shape in member.heads.shapes)

    def copied() -> tuple[Any, ...]:
        return (*[member.scoring.table for member in found], *shapes)

    return NativeForm(arrivals, len(members), bind, copied)


def _known(users: RecurrentUsers, slate_size: int) -> bool:
    """Whether the loop knows all that these users do."""
    sizes, binary = users.sizes, users.signals[0].kind == "binary" and users.signals[0].given_on is None
    plain = binary and all(signal.kind != "continuous" for signal in users.signals)
    learned = sizes.exposures or sizes.days or users.leaving is None or bool(users.heads.one_at_most)
    return plain and not learned and slate_size <= len(users.scoring.positions)


def _tables(users: RecurrentUsers) -> dict[str, Any]:
    """Weights and tables of one member, sharing memory with it where they are its own."""
    heads, cell, signals = users.heads, users.memory.cell, users.signals
    assert users.leaving is not None
    satisfied, unsatisfied = users.leaving.chances
    most = max(len(signal.levels) for signal in signals) or 2
    thresholds = torch.full((len(signals), max(most, 2) - 1), torch.inf)
    levels = torch.ones(len(signals), max(most, 2))
    levels[:, 0] = 0.0
    for s, signal in enumerate(signals):
        if signal.kind == "binary":
            thresholds[s, 0] = 0.0
        else:
            thresholds[s, : len(signal.levels) - 1] = thresholds_of(heads.shapes[s])
            levels[s, : len(signal.levels)] = torch.tensor(signal.levels)
    purposes = [CONSUME, *(signal.name for signal in signals[1:]), "leave"]
    parents = dict(heads.order)
    tensors: dict[str, Tensor] = {
        "rows": users.scoring.table,
        "of_users": heads.of_users.weight,
        "of_users_bias": heads.of_users.bias,
        "user_bias": heads.user_bias.weight,
        "user_bias_bias": heads.user_bias.bias,
        "positions": users.scoring.positions,
        "scale": heads.scale,
        "shift": heads.shift,
        "thresholds": thresholds,
        "levels": levels,
        "low": torch.tensor([signal.bounds[0] for signal in signals]),
        "high": torch.tensor([signal.bounds[1] for signal in signals]),
        **{name: getattr(cell, name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    }
    return {
        **{name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in tensors.items()},
        "order": np.array(list(parents), np.int64),
        "parents": np.array([-1 if parents[s] is None else parents[s] for s in range(len(signals))], np.int64),
        "purposes": np.array([purpose_code(purpose) for purpose in purposes], np.uint64),
        "satisfied": np.float32(satisfied),
        "unsatisfied": np.float32(unsatisfied),
        "columns": sum(users.scoring.widths[:4]),
    }
