"""Recommenders that act in the loop: random, popularity, greedy on a user model, and the planner."""
