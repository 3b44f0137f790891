"""Recommenders by language models: two towers, a classifier of pairs, and decoders that are asked for a letter."""
