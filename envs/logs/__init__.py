"""Logged behaviour: the schema, readers, cleaning, splits, and behaviour as arrays and as text."""
