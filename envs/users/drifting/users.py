"""`DriftingUsers`: the users of any simulator, as they are on one day of a drift."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.interaction.rules import Rules
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.drifting.drift import Drift, directions
from recloop.envs.users.odds import check_draws_by_item, expected_with_odds, other_odds, utility_with_odds

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData


@dataclass(frozen=True)
class DriftingState(State):
    """Who a user is, and what the simulator below knows of them.

    Args:
        user: int64 (B,) row of the users table; U, whose own taste has not moved, where nobody knows.
        own: the state of the users below.
    """

    user: Tensor
    own: Any


class DriftingUsers(UserSimulator):
    """The users of a simulator on one day: they say yes to an item with log-odds that the drift has shifted.

    shift(user, item) = <own walk of the user + shared walk, direction of the item> + lift of the item; see `Drift`.
    Whatever model the chance comes from, places and context included, it is shifted as a whole, by `Draw.shifted`. An
    item that is not released is taken by nobody; `rules` names such items, so that nobody shows them. The day stands
    still within an episode. Without any drift every answer is what it was, bit for bit.

    What is expected is exact where items are drawn apart, given the users below are; whether users leave is not known,
    since it follows from what they took. In a world where users read on depending on their answers (`cascade`), what is
    expected of later places is approximate.

    Args:
        users: the users below, who draw by item: `uniform` or `gumbel` of the purpose `consume`, or of the name of the
            first signal.
        drift: what changes.
        day: 0 or later.

    Raises:
        UserSimulatorError: a day before 0; in `prepare`, users who do not draw by item.
    """

    def __init__(self, users: UserSimulator, drift: Drift, day: int = 0) -> None:
        if day < 0:
            raise UserSimulatorError(f"day={day}; a drift begins on day 0")
        self.users, self.drift, self.day = users, drift, day
        self.signals = users.signals
        self._walked: tuple[int, Tensor, Tensor] | None = None

    def at_day(self, day: int) -> DriftingUsers:
        """The same users on another day: a new object, to be prepared; the users below are shared."""
        other = DriftingUsers(self.users, self.drift, day)
        if self._walked is not None and self._walked[0] <= day:
            other._walked = self._walked  # the walk goes on from here, to the same bits
        return other

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Prepare the users below, walk to the day, and see that other odds change answers."""
        self.users.prepare(world, device)
        self.device = torch.device(device)
        self._directions = directions(world.item_vectors).to(self.device)  # (N+1, d)
        count, dim = len(world.users.part), self._directions.shape[1]
        if self._walked is None or self._walked[1].shape != (count, dim):
            self._walked = (0, torch.zeros(count, dim), torch.zeros(dim))
        day, own, shared = self._walked
        for number in range(day + 1, self.day + 1):
            moved = self.drift.step(number, count, dim)
            own, shared = own + moved[0], shared + moved[1]
        self._walked = (self.day, own, shared)
        self._walks = torch.cat([own + shared, shared.unsqueeze(0)]).to(self.device)  # (U+1, d)
        lift = self.drift.lift(self.day, len(self._directions) - 1)
        self._lift = torch.cat([lift, lift.new_zeros(1)]).to(self.device)  # (N+1,)
        if self.drift:
            check_draws_by_item(self.users, world, self.device, "drift")

    def rules(self, world: WorldData) -> Rules:
        """The world's rules, and that no item is shown before its release."""
        late = (self.drift.released(len(world.catalogue)) > self.day).nonzero()[:, 0].tolist()
        return replace(world.rules, never=(*world.rules.never, *(world.catalogue.ids[row] for row in late)))

    def present(self, world: WorldData) -> Tensor:
        """Rows of the users who are there on this day, int64 rising."""
        return (self.drift.joined(len(world.users)) <= self.day).nonzero()[:, 0]

    def shift(self, users: Tensor, items: Tensor) -> Tensor:
        """Log-odds added to the yes of users (B,) to items (B, C) or (C,): float32 (B, C), 0 at empty places."""
        walks, along = self._walks[users], self._directions[items]
        moved = walks @ along.T if items.dim() == 1 else (walks.unsqueeze(1) * along).sum(-1)
        return moved + self._lift[items]

    def arrive(self, users: Tensor, draw: Draw) -> DriftingState:
        """Users as they arrive below."""
        return DriftingState(users, self.users.arrive(users, draw))

    def respond(self, state: DriftingState, past: Past, slate: Tensor, draw: Draw) -> tuple[DriftingState, Response]:
        """The answers of the users below, drawn with other odds."""
        draw = other_odds(self.users, draw, self.shift(state.user, slate))
        own, response = self.users.respond(state.own, past, slate, draw)
        return DriftingState(state.user, own), response

    def resume(self, state: DriftingState, days_away: Tensor, draw: Draw) -> DriftingState:
        """Their next session, still on this day."""
        return DriftingState(state.user, self.users.resume(state.own, days_away, draw))

    def infer(self, past: Past, profile: Tensor) -> DriftingState:
        """A guess at people whose own walk nobody knows: the shared one alone has moved them."""
        own = self.users.infer(past, profile)
        return DriftingState(torch.full_like(past.step, len(self._walks) - 1), own)

    def expected(self, state: DriftingState, past: Past, slate: Tensor) -> Expected | None:
        """Those of the users below, with the chance of consumption shifted."""
        found = self.users.expected(state.own, past, slate)
        return expected_with_odds(found, self.shift(state.user, slate)) if self.drift else found

    def utility(self, state: DriftingState, past: Past, items: Tensor) -> Tensor | None:
        """That of the users below, shifted; see `utility_with_odds`."""
        found = self.users.utility(state.own, past, items)
        return utility_with_odds(self.users, found, self.shift(state.user, items)) if self.drift else found
