"""Ranking metrics on what the evaluate users of a world really took."""
