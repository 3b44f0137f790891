"""The recommender everyone has: what most train users consumed."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor

from recloop.agents.facts import Trains
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.serving import Serving
from recloop.envs.interaction.observation import Observation
from recloop.envs.world.world import World


class PopularityPolicy(ScoringPolicy):
    """Shows the k admissible items that the train users consumed most often; equal counts by row number.

    Args:
        counts: float32 (N,) how often each item was consumed.
    """

    name = "popularity"
    kind = "popularity"
    trains: ClassVar[Trains] = "no"
    deterministic: ClassVar[bool] = True

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Count the consumption of the train users."""
        return cls(world.catalogue.popularity)

    def scores(self, observation: Observation) -> Tensor:
        """The same counts for every lane, (B, N)."""
        history = observation["history"]
        return self.counts.to(history.device).expand(len(history), -1)

    def tensors(self) -> dict[str, Tensor]:
        """The counts."""
        return {"counts": self.counts}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `tensors`."""
        return cls(tensors["counts"])


class WorstFirstPolicy(PopularityPolicy):
    """Shows the k admissible items that the train users consumed least often: a floor that a fair ranking must find.

    Args:
        counts: float32 (N,) how often each item was consumed.
    """

    name = "worst-first"
    kind = "worst-first"

    def scores(self, observation: Observation) -> Tensor:
        """The same counts for every lane, turned round, (B, N)."""
        return -super().scores(observation)
