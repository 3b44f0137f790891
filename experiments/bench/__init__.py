"""Benchmarks: every figure beside a reference of the same run."""
