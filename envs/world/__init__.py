"""A world: everything learned from one log, in memory and on disk."""
