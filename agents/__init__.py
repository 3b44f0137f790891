"""Who picks slates: the contract, baselines, RL agents, and how policies are kept and served."""

from recloop.agents.observed import Observed
from recloop.agents.policy import Carry, FitOptions, Policy, ScoringPolicy
from recloop.agents.registry import POLICIES, facts_of, load_policy, make_policy, save_policy
from recloop.agents.serving import Serving

__all__ = [
    "POLICIES",
    "Carry",
    "FitOptions",
    "Observed",
    "Policy",
    "ScoringPolicy",
    "Serving",
    "facts_of",
    "load_policy",
    "make_policy",
    "save_policy",
]
