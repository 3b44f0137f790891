"""Contextual bandits: Bayesian linear regression of what an item earns, and how far that is trusted."""
