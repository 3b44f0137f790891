"""Truth worlds: users written down, the logs they write, and the policies that logged."""

from recloop.envs.truth.logs import (
    LOG_USERS,
    POLICIES,
    LoggingPolicy,
    LogKind,
    logging_policy,
    truth_log,
)
from recloop.envs.truth.worlds import TRUTHS, TruthKind, matrix_world, truth_world

__all__ = [
    "LOG_USERS",
    "POLICIES",
    "TRUTHS",
    "LogKind",
    "LoggingPolicy",
    "TruthKind",
    "logging_policy",
    "matrix_world",
    "truth_log",
    "truth_world",
]
