"""Fitted users whose answers are boosted trees on what users felt."""
