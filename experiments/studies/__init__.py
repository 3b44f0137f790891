"""Studies: each asks one question and keeps one table."""
