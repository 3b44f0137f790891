"""Readers of logs: RecBole atomic files, sequence text."""

from recloop.envs.logs.readers.any import read_log
from recloop.envs.logs.readers.atomic import AtomicFields, read_atomic_log
from recloop.envs.logs.readers.sequence_text import read_sequence_log

__all__ = ["AtomicFields", "read_atomic_log", "read_log", "read_sequence_log"]
