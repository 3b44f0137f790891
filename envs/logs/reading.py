"""What a reader made of each column of a log, of its items and of its users: plain data for a report."""

from dataclasses import dataclass
from typing import Literal

Table = Literal["log", "items", "users"]


@dataclass(frozen=True)
class ColumnUse:
    """What became of one column of a file.

    Args:
        table: the table it stands in.
        name: the column as the file calls it.
        role: what it is taken for: of items `title`, `year`, `text`, `category`, `relation`, `number`, of users
            `feature`; `id`; `not used`.
        why: the reason, in a short sentence.
    """

    table: Table
    name: str
    role: str
    why: str = ""
