"""Readers of logs: atomic files, sequences, MovieLens, Coat, KuaiRand and KuaiRec as published, any CSV or Parquet."""

from recloop.envs.logs.readers.any import read_log
from recloop.envs.logs.readers.atomic import read_atomic_log
from recloop.envs.logs.readers.files import TextFormat
from recloop.envs.logs.readers.interactions import ReadingOptions
from recloop.envs.logs.readers.published.coat import read_coat_log
from recloop.envs.logs.readers.published.kuairand import read_kuairand_log
from recloop.envs.logs.readers.published.kuairec import WatchTable, read_kuairec_log, read_kuairec_matrix
from recloop.envs.logs.readers.published.movielens import read_movielens_log
from recloop.envs.logs.readers.roles import ColumnMapping
from recloop.envs.logs.readers.sequence_text import read_sequence_log
from recloop.envs.logs.readers.tables import read_table_log

__all__ = [
    "ColumnMapping",
    "ReadingOptions",
    "TextFormat",
    "WatchTable",
    "read_atomic_log",
    "read_coat_log",
    "read_kuairand_log",
    "read_kuairec_log",
    "read_kuairec_matrix",
    "read_log",
    "read_movielens_log",
    "read_sequence_log",
    "read_table_log",
]
