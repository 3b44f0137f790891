"""Users fitted on logs, in two families that share the heads and nothing of how they remember."""

from recloop.envs.users.fitted.config import AssumedLeaving, FitConfig, FitReport
from recloop.envs.users.fitted.factor import FactorState, FactorUsers
from recloop.envs.users.fitted.fitting import REPEATS, fit_users
from recloop.envs.users.fitted.recurrent import RecurrentState, RecurrentUsers

__all__ = [
    "REPEATS",
    "AssumedLeaving",
    "FactorState",
    "FactorUsers",
    "FitConfig",
    "FitReport",
    "RecurrentState",
    "RecurrentUsers",
    "fit_users",
]
