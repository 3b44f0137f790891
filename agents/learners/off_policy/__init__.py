"""Learners that replay what others did: value learners and actor-critics in item space."""
