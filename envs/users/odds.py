"""Other odds for a user's yes: what layers over any simulator share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fitted.heads import CONSUME

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData

_PROBED = 16
"""Users who are asked whether other odds change their answers."""


def other_odds(users: UserSimulator, draw: Draw, shift: Tensor) -> Draw:
    """Draws under which users take the items of a slate with `shift` (B, K) more log-odds than they would."""
    return draw.shifted(shift, CONSUME, users.signals[0].name)


def with_odds(chance: Tensor, shift: Tensor) -> Tensor:
    """sigmoid(logit(chance) + shift); the chance itself, bit for bit, where the shift is 0."""
    moved = torch.sigmoid(torch.logit(chance) + shift)
    return torch.where(shift == 0, chance, torch.where(shift == -torch.inf, torch.zeros_like(chance), moved))


def expected_with_odds(found: Expected | None, shift: Tensor) -> Expected | None:
    """What is expected of slates with consumption shifted by (B, K); exact where items are drawn apart.

    Whether users leave is no longer known: it follows from what they take.
    """
    if found is None:
        return None
    first = with_odds(found.mean[..., :1], shift.unsqueeze(2))
    return replace(found, mean=torch.cat([first, found.mean[..., 1:]], dim=2), leave=None)


def utility_with_odds(users: UserSimulator, found: Tensor | None, shift: Tensor) -> Tensor | None:
    """The utility (B, C) that users told, shifted: log-odds where they tell `chances` besides, else chances; None where
    it is neither."""
    if found is None:
        return None
    if hasattr(users, "chances"):
        return found + shift
    return with_odds(found, shift) if bool(((found >= 0) & (found <= 1)).all()) else None


@torch.no_grad()
def check_draws_by_item(users: UserSimulator, world: WorldData, device: torch.device, cannot: str) -> None:
    """Raise `UserSimulatorError` for prepared users who take as much at odds of nothing as at odds of everything.

    Args:
        users: prepared for the world.
        world: whose first users are asked about its items.
        device: of the users.
        cannot: what they cannot do then, for the message: "drift".
    """
    table, rows = world.users, torch.arange(min(_PROBED, len(world.users.part)), device=device)
    zeros = torch.zeros_like(rows)
    draw = Draw.at(0, rows, zeros, zeros)
    here = [one.to(device)[rows] for one in (table.history, table.feedback, table.shown, table.answers)]
    past = Past(here[0], here[1], here[2], here[3], zeros, zeros.to(torch.float32))
    state = users.arrive(rows, draw)
    who = type(users).__name__
    if not isinstance(state, Tensor | TensorStruct):
        raise UserSimulatorError(
            f"{who} cannot {cannot}: its state is a {type(state).__name__}; derive it from State, fields of tensors"
        )
    items = torch.arange(len(world.item_vectors) - 1, device=device)
    slate = items[(rows.unsqueeze(1) * 7 + torch.arange(world.slate_size, device=device)) % len(items)]
    taken = []
    for odds in (-torch.inf, 1e4):
        other = other_odds(users, draw, torch.full(slate.shape, odds, device=device))
        taken.append(float(users.respond(state, past, slate, other)[1].signals[..., 0].sum()))
    if taken[0] > 0 or taken[1] <= 0:
        raise UserSimulatorError(
            f"{who} cannot {cannot}: of {slate.numel()} items {taken[0]:g} are taken at odds of nothing and "
            f"{taken[1]:g} at odds of everything, so it does not draw by item; draw its yes as "
            f"draw.uniform('{users.signals[0].name}', slate) < chance"
        )
