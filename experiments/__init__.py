"""Runs worth repeating: comparisons, their claims and reports, and the command line.

Names are imported when asked for, so that the command line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recloop.experiments.claims import Claim, Level, claims_of
    from recloop.experiments.compare import CompareConfig
    from recloop.experiments.comparison import Comparison
    from recloop.experiments.evaluate import Arena, Rollout, rollout
    from recloop.experiments.train import TrainConfig

_HOMES = {
    "Arena": "evaluate",
    "Claim": "claims",
    "CompareConfig": "compare",
    "Comparison": "comparison",
    "Level": "claims",
    "Rollout": "evaluate",
    "TrainConfig": "train",
    "claims_of": "claims",
    "rollout": "evaluate",
}

__all__ = ["Arena", "Claim", "CompareConfig", "Comparison", "Level", "Rollout", "TrainConfig", "claims_of", "rollout"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
