"""Runs worth repeating: comparisons, their claims and reports, and the command line.

Names are imported when asked for, so that the command line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recloop.experiments.commands.train import TrainConfig
    from recloop.experiments.comparison.claims import Claim, Level, claims_of
    from recloop.experiments.comparison.config import CompareConfig
    from recloop.experiments.comparison.evaluate import Evaluator, Rollout, evaluate
    from recloop.experiments.comparison.results import Comparison

_HOMES = {
    "Evaluator": "comparison.evaluate",
    "Claim": "comparison.claims",
    "CompareConfig": "comparison.config",
    "Comparison": "comparison.results",
    "Level": "comparison.claims",
    "Rollout": "comparison.evaluate",
    "TrainConfig": "commands.train",
    "claims_of": "comparison.claims",
    "evaluate": "comparison.evaluate",
}

__all__ = [
    "Claim",
    "CompareConfig",
    "Comparison",
    "Evaluator",
    "Level",
    "Rollout",
    "TrainConfig",
    "claims_of",
    "evaluate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
