"""EASE: the linear model of an item from all others, in closed form."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.collaborative.history import HistoryPolicy, checked, consumption_matrix, with_empty_place
from recloop.agents.policy import FitOptions
from recloop.agents.settings import with_settings
from recloop.encoders.base.errors import PolicyError
from recloop.envs.world.world import World


@dataclass(frozen=True)
class EASEConfig:
    """How it is fitted.

    Args:
        ridge: L2 penalty of the weights, in consumptions.
        most_items: catalogue above which it refuses: the weights are a dense N x N matrix.
    """

    ridge: float = 250.0
    most_items: int = 20_000

    def __post_init__(self) -> None:
        checked(self, ("ridge", "most_items"), of="ease")


class EASEPolicy(HistoryPolicy):
    """Shows the k items that a linear model without hidden layer expects beside those of the history (Steck 2019).

    B = argmin |X - X B|^2 + ridge |B|^2 with a zero diagonal, which is -P / diag(P) off the diagonal for P the inverse
    of X'X + ridge I; the score is the history as a row of X, times B. As in the paper; in double precision.

    Args:
        tables: `weights` float32 (N+1, N), row N zero, and `counts`.
        settings: how.
    """

    name = "ease"
    kind = "ease"
    deterministic: ClassVar[bool] = True
    paper: ClassVar[str] = "Steck 2019"
    config_class: ClassVar[type[EASEConfig]] = EASEConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Solve for the weights, on `options.device`."""
        config = with_settings(EASEConfig(), options.settings, cls.name)
        n = len(world.catalogue)
        if n > config.most_items:
            raise PolicyError(
                f"ease keeps {n} x {n} weights ({n * n * 8 / 1e9:.0f} GB while it is fitted), the limit is "
                f"{config.most_items} items; take item-knn or als, or --set ease.most_items={n} where there is room"
            )
        matrix = consumption_matrix(world)
        gram = torch.from_numpy((matrix.T @ matrix).toarray()).to(options.device, torch.float64)
        gram.diagonal().add_(config.ridge)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights = inverse / -inverse.diagonal()
        weights.fill_diagonal_(0)
        return cls({"weights": with_empty_place(weights.float().cpu()), "counts": world.catalogue.popularity}, config)

    def _scores(self, items: Tensor) -> Tensor:
        return F.embedding_bag(items, self.tables["weights"], mode="sum")
