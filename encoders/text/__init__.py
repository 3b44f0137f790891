"""Texts as vectors: language models, tokens, a cache on disk, and histories as text."""
