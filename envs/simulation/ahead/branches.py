"""Copies of a core's lanes, in which slates are tried before one of them is shown."""

import copy
from typing import Any

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.simulation.core import Core


class Branches:
    """M lanes beside a core that stand where some of its lanes stand, with the same users and another luck.

    Their luck is a function of (their seed, the lane they stand for), so that nobody sees the dice of the core, and
    slates tried for one lane meet the same luck (common random numbers).

    Args:
        core: whose lanes are copied; never stepped here.
        size: M.
        seed: of their luck; not the core's.

    Attributes:
        core: the core of the branches; step it as any other.

    Raises:
        RecloopError: for rules with a stock, which all lanes share, and for users whose states cannot be copied.
    """

    def __init__(self, core: Core, size: int, seed: int) -> None:
        if core.stock is not None:
            raise RecloopError(
                "lanes under rules with a stock cannot be copied: it is one for all lanes; drop the stock, or take an "
                "agent that does not look ahead"
            )
        if not (isinstance(core.state, Tensor) or hasattr(core.state, "rows")):
            raise RecloopError(
                f"the state of {type(core.simulator).__name__} cannot be copied: {type(core.state).__name__} has no "
                "`rows`; derive it from `recloop.envs.State`, or take an agent that does not look ahead"
            )
        self._from = core
        self.core = core.like(batch=size, seed=seed)

    @torch.no_grad()
    def stand(self, rows: Tensor) -> None:
        """Let the branches stand where the core's lanes `rows`, int64 (M,), stand now."""
        self.core.resume({name: _rows(value, rows) for name, value in self._from.snapshot().items()})
        if not isinstance(self.core.reward, WeightedReward):  # it may move with every call, as a floor's does
            self.core.reward = copy.copy(self._from.reward)


def _rows(value: Any, rows: Tensor) -> Any:
    """The lanes `rows` of tensors, structs, or states of a kind of their own; None where a core has none."""
    if value is None:
        return None
    return value.index_select(0, rows) if isinstance(value, Tensor) else value.rows(rows)
