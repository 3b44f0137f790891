"""What recommenders of histories share: the matrix they learn from, the history they read, and what cold users get."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recloop.agents.facts import Group, Trains
from recloop.agents.policy import ScoringPolicy
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.logs.sequences import rows_of
from recloop.envs.world.world import World


class HistoryPolicy(ScoringPolicy):
    """Scores items by which items the history holds, each once, in no order; `observation["history"]` is all it reads.

    Who consumed nothing that any train user consumed gets what is popular. An item that no train user consumed is never
    preferred to one that has a positive score, but can be shown.

    Args:
        tables: all it learned, by name; `counts` float32 (N,) is how often each item was consumed.
        settings: of its `config_class`.
    """

    trains: ClassVar[Trains] = "log"
    group: ClassVar[Group] = "supervised"

    def __init__(self, tables: Mapping[str, Tensor], settings: Any) -> None:
        self.tables, self.settings = dict(tables), settings

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Scores of the distinct items of the history, (B, N); counts for cold users."""
        history = observation["history"]
        if self.tables["counts"].device != history.device:
            self.tables = {name: table.to(history.device) for name, table in self.tables.items()}
        counts = self.tables["counts"]
        known = torch.cat([counts > 0, counts.new_zeros(1, dtype=torch.bool)])[history].any(1, keepdim=True)  # (B, 1)
        return torch.where(known, self._scores(distinct(history, len(counts))), counts)

    @abstractmethod
    def _scores(self, items: Tensor) -> Tensor:
        """Scores (B, N) from the distinct items int64 (B, H) of histories, N in empty places; tables lie with them."""

    def config(self) -> dict[str, Any]:
        """Its settings."""
        return asdict(self.settings)

    def tensors(self) -> dict[str, Tensor]:
        """All it learned."""
        return dict(self.tables)

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`."""
        if cls.config_class is None:
            return cls(tensors, None)
        return cls(tensors, cls.config_class(**config))


def distinct(history: Tensor, catalogue_size: int) -> Tensor:
    """The items of each history, each once, int64 (B, H), N in the other places.

    >>> distinct(torch.tensor([[4, 2, 0, 2]]), 4).tolist()
    [[0, 2, 4, 4]]
    """
    ordered = history.sort(dim=1).values
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ordered.masked_fill(again, catalogue_size)


def consumption_matrix(world: World) -> csr_matrix:
    """Which train user consumed which item: ones, float32 (U, N).

    Raises:
        PolicyError: where they consumed nothing.
    """
    sequences, users = world.sequences, world.users.rows("train").numpy()
    items = sequences.items[rows_of(sequences.offsets, users)]
    if not len(items):
        raise PolicyError(f"the train users of world '{world.name}' consumed nothing; give a log with consumptions")
    owner = np.repeat(np.arange(len(users)), sequences.lengths[users])
    ones, shape = np.ones(len(items), dtype=np.float32), (len(users), len(world.catalogue))
    matrix = csr_matrix((ones, (owner, items)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def sparse(places: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse matrix for products, from places int64 (2, M) in the order of rows and columns, none twice."""
    return torch.sparse_coo_tensor(places, values, shape, is_coalesced=True, check_invariants=False)


def with_empty_place(table: Tensor) -> Tensor:
    """A table by item (N, d) with the zero row N."""
    return torch.cat([table, table.new_zeros(1, table.shape[1])])


def checked(config: Any, above_zero: tuple[str, ...], not_below_zero: tuple[str, ...] = (), of: str = "") -> None:
    """Raise `PolicyError` for a setting of a recommender that is out of its range."""
    for name in above_zero:
        if not 0 < getattr(config, name) < float("inf"):
            raise PolicyError(f"{name}={getattr(config, name)} of {of} must be finite and above 0")
    for name in not_below_zero:
        if not 0 <= getattr(config, name) < float("inf"):
            raise PolicyError(f"{name}={getattr(config, name)} of {of} must be finite and at least 0")
