"""Comparisons: rollouts, results on disk, intervals and claims."""
