"""Recurrent users fitted on consumption as loops over tables: what a core steps on the CPU without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recloop.envs.interaction.randomness import purpose_code
from recloop.envs.users.fast import NativeForm
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.distributions import thresholds_of
from recloop.envs.users.fitted.heads import CONSUME
from recloop.envs.users.fitted.recurrent import RecurrentUsers


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

    def copied() -> tuple[Any, ...]:
        return tuple(tensor for member in found for tensor in (member.scoring.table, *member.heads.shapes))

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
