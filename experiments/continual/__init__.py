"""Recommenders over simulated days: users drift, what they do is logged, and models are updated by different rules."""
