"""What fast families offer a core beyond the public contract. Internal: nobody who plugs users in needs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
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
