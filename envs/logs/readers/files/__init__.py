"""Files and frames as one kind of table: delimited text, JSON lines, Parquet, folders of parts, frames in memory."""

from recloop.envs.logs.readers.files.arrow import table_of
from recloop.envs.logs.readers.files.json_lines import of_values
from recloop.envs.logs.readers.files.kinds import SUFFIXES, kind_of
from recloop.envs.logs.readers.files.reading import read_file
from recloop.envs.logs.readers.files.streaming import can_stream, read_head, streamed
from recloop.envs.logs.readers.files.text import TextFormat

__all__ = [
    "SUFFIXES",
    "TextFormat",
    "can_stream",
    "kind_of",
    "of_values",
    "read_file",
    "read_head",
    "streamed",
    "table_of",
]
