"""Clicks: stable tastes, position bias, and a small hazard of leaving. The simplest truth there is."""

from dataclasses import dataclass

from torch import Tensor

from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, State
from recloop.envs.truth.tastes import TasteUsers, shares


@dataclass(frozen=True)
class ClickRules:
    """The laws of the world.

    Args:
        examine: a place is looked at with probability `examine ** position`, position from 0.
        leave: probability to leave after a slate with a click.
        leave_empty: probability to leave after a slate without one.
    """

    examine: float = 0.8
    leave: float = 0.02
    leave_empty: float = 0.08

    def __post_init__(self) -> None:
        shares(self, "examine", "leave", "leave_empty")


@dataclass(frozen=True)
class TasteState(State):
    """What users like.

    Args:
        preference: float32 (B, T) for each topic, in (0, 1].
    """

    preference: Tensor


class ClickUsers(TasteUsers):
    """Users whose tastes never change: the position-based click model (Craswell et al. 2008).

    An item of topic t appeals with a = preference[t] x quality. At position k it is clicked with probability
    examine^k x a, whatever else is in the slate. The user leaves with probability `leave` after a slate with a
    click, `leave_empty` after one without. What is shown changes nobody: showing the most appealing items first is
    optimal.
    """

    kind = "clicks"
    rules_class = ClickRules
    rules: ClickRules

    def arrive(self, users: Tensor, draw: Draw) -> TasteState:
        """A gather."""
        return TasteState(self.preference[users])

    def observe(self, state: TasteState, slate: Tensor, signals: Tensor) -> TasteState:
        """Nothing changes."""
        return state

    def expected(self, state: TasteState, past: Past, slate: Tensor) -> Expected:
        """Exact."""
        click = self.utility(state, past, slate) * self.examined(slate.shape[1])
        return Expected(mean=click.unsqueeze(2), leave=self._expected_leaving(click))

    def utility(self, state: TasteState, past: Past | None, items: Tensor) -> Tensor:
        """Appeal."""
        items = items.expand(len(state.preference), -1)
        return self.liking(state.preference, items) * self.trait("quality", items)

    def _answer(self, state: TasteState, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        click = self.drawn("click", self.utility(state, None, slate) * self.examined(slate.shape[1]), slate, draw)
        return click.unsqueeze(2), (slate < self.items).unsqueeze(2)
