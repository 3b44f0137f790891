"""Fitted users whose answers are models of what users felt: boosted trees, or small networks."""
