"""What fast families offer a core beyond the public contract. Internal: nobody who plugs users in needs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.users.contract import UserSimulator

Respond = Callable[[Any, Past, Tensor, Draw], tuple[Any, Response]]
"""`UserSimulator.respond`, or what stands for it."""


class SpreadFreeUsers(UserSimulator):
    """Users that are cheaper to step where nobody reads how unsure they are (`Expected.spread`)."""

    @abstractmethod
    def without_spread(self) -> UserSimulator:
        """Users with the same answers that leave undone what serves the spread alone. Called before `prepare`."""


class CompiledUsers(UserSimulator):
    """Users that bring generated code of their own instead of being compiled as a part of the step."""

    @abstractmethod
    def compiled(self) -> Respond | None:
        """`respond` as generated code, prepared before; None where it may be compiled as a part of the step."""

    @abstractmethod
    def answering(self, state: Any) -> Respond:
        """Who answers in this state of one lane, as a function that stays the same."""


@dataclass(frozen=True)
class NativeForm:
    """How users answer in loops over rows, lane after lane; see `recloop.envs.simulation.native`.

    Args:
        arrivals: the states of all U users as they arrive, those of each of M members behind one another: (M U, ...)
            tensors, float32 or int64.
        members: M; a lane's member is drawn as `member`.
        bind: given the first columns of the state's tensors by name, the loop that answers and the tables of each
            member. It takes rows (B, F) and (B, I), slates (B, K), the signals (B, K, S), given (B, K, S) and left
            (B,) to be filled, where all else lies in the rows, and tables; it moves the state of their lanes in place.
        sources: what was copied into the loop's tables, as it is now: tensors and other objects.
    """

    arrivals: Any
    members: int
    bind: Callable[[Callable[[str], int]], tuple[Callable[..., None], list[Any]]]
    sources: Callable[[], tuple[Any, ...]]


class NativeUsers(UserSimulator):
    """Users who can be stepped on the CPU without torch."""

    @abstractmethod
    def native(self, slate_size: int) -> NativeForm | None:
        """How they answer slates of K places, prepared before; None where there is no such way.

        Raises:
            ImportError: numba is not installed.
        """
