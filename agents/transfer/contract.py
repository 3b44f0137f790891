"""What a policy must do to be taken to another world."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from recloop.agents.policy import FitOptions
from recloop.envs.world.world import World


class TextAlone(ABC):
    """A policy that may know its items by what a language model says of their texts, and by nothing else.

    Such a policy reads which items a person consumed, never how they were rated: the signals of two worlds may differ.
    """

    @abstractmethod
    def moved(self, world: World, device: str = "cpu") -> Self:
        """The same weights over the items of another world; nothing of its users is read.

        Raises:
            PolicyError: what it knows of its items is more than their texts, or another language model read them.
        """

    @abstractmethod
    def tuned(self, world: World, options: FitOptions) -> Self:
        """Moved, then fitted on the train users of that world, as `fit` does; `options.settings` over its own.

        Raises:
            PolicyError: as `moved`, or for settings that its weights do not fit.
        """

    @abstractmethod
    def afresh(self, seed: int) -> Self:
        """The same model with its starting weights: moved or tuned, it shows what having learned is worth."""
