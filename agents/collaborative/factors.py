"""Matrix factorisation by the library `implicit`; a user's factors are worked out from the live history."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.collaborative.history import HistoryPolicy, checked, consumption_matrix, with_empty_place
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.envs.world.world import World


@dataclass(frozen=True)
class ALSConfig:
    """How items are factorised.

    Args:
        factors: d, numbers an item.
        confidence: of a consumption, where that of an item not consumed is 1; above 1.
        regularisation: L2 penalty of all factors.
        iterations: alternations over users and items.
    """

    factors: int = 64
    confidence: float = 10.0
    regularisation: float = 10.0
    iterations: int = 15

    def __post_init__(self) -> None:
        checked(self, ("factors", "confidence", "regularisation", "iterations"), of="als")
        if self.confidence <= 1:
            raise PolicyError(f"confidence={self.confidence} of als must be above 1, that of items not consumed")


class ALSPolicy(HistoryPolicy):
    """Shows the k items of the highest inner product with the user's factors (Hu, Koren and Volinsky 2008).

    Confidence-weighted least squares, alternating (`implicit`, conjugate gradients). A live user's factors solve the
    same normal equations for the history, (Y'Y + (c - 1) sum y y' + regularisation I) x = c sum y, exactly, so nobody
    has to be known beforehand. Difference: confidence is one number, since consumption is yes or no.

    Args:
        tables: `items` float32 (N+1, d), row N zero, and `counts`.
        settings: how.
    """

    name = "als"
    kind = "als"
    paper: ClassVar[str] = "Hu et al. 2008"
    extras: ClassVar[tuple[str, ...]] = ("classics",)
    config_class: ClassVar[type[ALSConfig]] = ALSConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Factorise the train users' consumption; `options.steps` are alternations."""
        config = options.over(ALSConfig(), cls.name, "iterations")
        matrix = consumption_matrix(world)
        with _library(cls.name) as library:
            model = library.als.AlternatingLeastSquares(
                factors=config.factors,
                regularization=config.regularisation,
                alpha=config.confidence,
                iterations=config.iterations,
                num_threads=torch.get_num_threads(),
                random_state=options.seed,
            )
            model.fit(matrix, show_progress=False)
        items = with_empty_place(torch.from_numpy(model.item_factors))
        return cls({"items": items, "counts": world.catalogue.popularity}, config)

    def _scores(self, items: Tensor) -> Tensor:
        table, config = self.tables["items"], self.settings
        held = table[items]  # (B, H, d)
        normal = (config.confidence - 1) * held.transpose(1, 2) @ held + table.T @ table
        normal.diagonal(dim1=1, dim2=2).add_(config.regularisation)
        users = torch.linalg.solve(normal, config.confidence * held.sum(1))  # (B, d)
        scores: Tensor = users @ table[:-1].T
        return scores


@dataclass(frozen=True)
class BPRConfig:
    """How items are factorised.

    Args:
        factors: d, numbers an item.
        learning_rate: of stochastic gradients.
        regularisation: L2 penalty of the factors a step touches.
        iterations: passes over the consumptions.
        ridge: L2 penalty of the map from histories to users' factors.
    """

    factors: int = 64
    learning_rate: float = 0.02
    regularisation: float = 0.01
    iterations: int = 100
    ridge: float = 1.0

    def __post_init__(self) -> None:
        checked(self, ("factors", "learning_rate", "iterations", "ridge"), ("regularisation",), "bpr")


class BPRPolicy(HistoryPolicy):
    """Shows the k items that matrix factorisation puts before others (Rendle, Freudenthaler, Gantner and
    Schmidt-Thieme 2009).

    Stochastic gradients of the pairwise loss, with item biases (`implicit`, on one thread: several give other bits
    each time). A live user's factors are a ridge regression from the mean of the history's item factors, fitted on the
    train users' own factors: the paper knows its users, this does not.

    Args:
        tables: `items` float32 (N+1, d), row N zero; `biases` (N,); `fold` (d+1, d), its last row the offset; `counts`.
        settings: how.
    """

    name = "bpr"
    kind = "bpr"
    paper: ClassVar[str] = "Rendle et al. 2009"
    extras: ClassVar[tuple[str, ...]] = ("classics",)
    config_class: ClassVar[type[BPRConfig]] = BPRConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Factorise the train users' consumption; `options.steps` are passes."""
        config = options.over(BPRConfig(), cls.name, "iterations")
        matrix = consumption_matrix(world)
        with _library(cls.name) as library:
            model = library.bpr.BayesianPersonalizedRanking(
                factors=config.factors,
                learning_rate=config.learning_rate,
                regularization=config.regularisation,
                iterations=config.iterations,
                num_threads=1,
                random_state=options.seed,
            )
            model.fit(matrix, show_progress=False)
        items, users = torch.from_numpy(model.item_factors), torch.from_numpy(model.user_factors)
        items, biases, users = items[:, :-1], items[:, -1].clone(), users[:, :-1]  # implicit puts the biases last
        sums = torch.from_numpy(matrix @ items.numpy())
        counts = torch.from_numpy(matrix.getnnz(1)).unsqueeze(1)
        means = F.pad(sums / counts.clamp(min=1), (0, 1), value=1.0)[counts[:, 0] > 0].double()  # (U, d+1)
        normal = means.T @ means
        normal.diagonal()[:-1].add_(config.ridge)
        fold = torch.linalg.solve(normal, means.T @ users[counts[:, 0] > 0].double()).float()
        tables = {"items": with_empty_place(items), "biases": biases, "fold": fold}
        return cls({**tables, "counts": world.catalogue.popularity}, config)

    def _scores(self, items: Tensor) -> Tensor:
        table, fold = self.tables["items"], self.tables["fold"]
        count = (items < len(table) - 1).sum(1, keepdim=True).clamp(min=1)
        users = F.embedding_bag(items, table, mode="sum") / count @ fold[:-1] + fold[-1]
        return users @ table[:-1].T + self.tables["biases"]


@contextmanager
def _library(policy: str) -> Iterator[Any]:
    """`implicit.cpu`, with one thread of linear algebra as it asks for, and without its warning about that."""
    try:
        import implicit.cpu.als
        import implicit.cpu.bpr
    except ImportError:
        raise PolicyError(f"{policy} needs the package implicit; pip install 'recloop[classics]'") from None
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.simplefilter("ignore", RuntimeWarning)
        yield implicit.cpu
