"""Readers of published data sets as their homes publish them."""
