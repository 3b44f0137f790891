"""Users fitted on logs, in three families that share the heads and nothing of how they remember."""

from recloop.envs.users.fitted.attentive import AttentiveState, AttentiveUsers
from recloop.envs.users.fitted.config import AssumedLeaving, Family, FitConfig, FitReport
from recloop.envs.users.fitted.ensemble import EnsembleState, EnsembleUsers
from recloop.envs.users.fitted.factor import FactorState, FactorUsers
from recloop.envs.users.fitted.fitting.fit import REPEATS, fit_users
from recloop.envs.users.fitted.members import fit_ensemble
from recloop.envs.users.fitted.own_member import OwnMemberState, OwnMemberUsers
from recloop.envs.users.fitted.recurrent import RecurrentState, RecurrentUsers

__all__ = [
    "REPEATS",
    "AssumedLeaving",
    "AttentiveState",
    "AttentiveUsers",
    "EnsembleState",
    "EnsembleUsers",
    "FactorState",
    "FactorUsers",
    "Family",
    "FitConfig",
    "FitReport",
    "OwnMemberState",
    "OwnMemberUsers",
    "RecurrentState",
    "RecurrentUsers",
    "fit_ensemble",
    "fit_users",
]
