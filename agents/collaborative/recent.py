"""What was popular lately."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from recloop.agents.baselines.popularity import PopularityPolicy
from recloop.agents.collaborative.history import checked
from recloop.agents.facts import Group, Trains
from recloop.agents.policy import FitOptions
from recloop.agents.serving import Serving
from recloop.agents.settings import with_settings
from recloop.envs.logs.sequences import rows_of
from recloop.envs.world.world import World

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class RecentPopularityConfig:
    """How fast popularity fades.

    Args:
        half_life: days after which a consumption counts half.
    """

    half_life: float = 30.0

    def __post_init__(self) -> None:
        checked(self, ("half_life",), of="recent-popularity")


class RecentPopularityPolicy(PopularityPolicy):
    """Shows the k admissible items that the train users consumed most often lately: counts fade by a half-life.

    The age of a consumption is that at the train users' last one. In a world without times of consumption it says so
    in a warning, and is `popularity`.

    Args:
        counts: float32 (N,) how often each item was consumed, faded.
        settings: how.
    """

    name = "recent-popularity"
    kind = "recent-popularity"
    trains: ClassVar[Trains] = "log"
    group: ClassVar[Group] = "supervised"
    config_class: ClassVar[type[RecentPopularityConfig]] = RecentPopularityConfig

    def __init__(self, counts: Tensor, settings: RecentPopularityConfig) -> None:
        super().__init__(counts)
        self.settings = settings

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Count the consumption of the train users, the older the less."""
        config = with_settings(RecentPopularityConfig(), options.settings, cls.name)
        sequences, times = world.sequences, world.sequences.times
        if times is None:
            warnings.warn(
                f"world '{world.name}' holds no times of consumption, so recent-popularity is popularity; build it "
                "anew from a log with times",
                stacklevel=2,
            )
            return cls(world.catalogue.popularity, config)
        rows = rows_of(sequences.offsets, world.users.rows("train").numpy())
        days = (times[rows].max(initial=-np.inf) - times[rows]) / _DAY_SECONDS
        counts = np.bincount(sequences.items[rows], 0.5 ** (days / config.half_life), minlength=len(world.catalogue))
        return cls(torch.from_numpy(counts.astype(np.float32)), config)

    def config(self) -> dict[str, Any]:
        """How counts fade."""
        return asdict(self.settings)

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`."""
        return cls(tensors["counts"], RecentPopularityConfig(**config))
