"""Learners that read the log alone."""
