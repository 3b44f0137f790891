"""Readers of logs: RecBole atomic files, sequence text, MovieLens as published, any CSV or Parquet."""

from recloop.envs.logs.readers.any import read_log
from recloop.envs.logs.readers.atomic import read_atomic_log
from recloop.envs.logs.readers.interactions import ColumnMapping
from recloop.envs.logs.readers.movielens import read_movielens_log
from recloop.envs.logs.readers.sequence_text import read_sequence_log
from recloop.envs.logs.readers.tables import read_table_log

__all__ = [
    "ColumnMapping",
    "read_atomic_log",
    "read_log",
    "read_movielens_log",
    "read_sequence_log",
    "read_table_log",
]
