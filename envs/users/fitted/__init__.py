"""Users fitted on logs: three neural families that share the heads, and boosted trees on what users felt."""

from recloop.envs.users.fitted.attentive import AttentiveState, AttentiveUsers
from recloop.envs.users.fitted.config import AssumedLeaving, Family, FitConfig, FitReport
from recloop.envs.users.fitted.ensemble import EnsembleState, EnsembleUsers
from recloop.envs.users.fitted.factor import FactorState, FactorUsers
from recloop.envs.users.fitted.felt.users import NetworkUsers, TreeUsers
from recloop.envs.users.fitted.fitting.fit import fit_users
from recloop.envs.users.fitted.fitting.prepared import REPEATS
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
    "NetworkUsers",
    "OwnMemberState",
    "OwnMemberUsers",
    "RecurrentState",
    "RecurrentUsers",
    "TreeUsers",
    "fit_ensemble",
    "fit_users",
]
