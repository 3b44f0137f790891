"""How far a step lies from anything logged, and what that leaves open about a value."""

from recloop.envs.evidence.support.bracket import Bracket, BracketRules, bracket_of
from recloop.envs.evidence.support.model import SupportConfig, SupportModel

__all__ = ["Bracket", "BracketRules", "SupportConfig", "SupportModel", "bracket_of"]
