"""Users of any simulator whose tastes move from day to day, among items that come, rise and fade."""

from recloop.envs.users.drifting.drift import Drift
from recloop.envs.users.drifting.users import DriftingState, DriftingUsers

__all__ = ["Drift", "DriftingState", "DriftingUsers"]
