"""What a reader made of each column of a log, of its items and of its users: plain data for a report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

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


@dataclass(frozen=True)
class IdsMet:
    """How many ids of the log have a row in a table beside it.

    Args:
        table: which table.
        file: where it was read from.
        in_log: different ids that the log's rows name.
        met: those of them that the table has.
        in_table: rows of the table.
    """

    table: Table
    file: str
    in_log: int
    met: int
    in_table: int

    @property
    def sentence(self) -> str:
        """For the card."""
        unseen = self.in_table - self.met
        more = f"; {unseen:,} more of its rows stand nowhere in the log" if unseen else ""
        return f"{self.met:,} of {self.in_log:,} {self.table} of the log are in {self.file}{more}."


@dataclass(frozen=True)
class LogReading:
    """What a reader decided, for people to look at.

    Args:
        columns: what became of every column of every file.
        ids: how many ids met the tables beside the log.
        command: the flags that say by name what was found, so that a reading can be asked for again.
        warnings: what may be wrong, and the flag that says otherwise.
    """

    columns: tuple[ColumnUse, ...] = ()
    ids: tuple[IdsMet, ...] = ()
    command: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def unused(self) -> tuple[ColumnUse, ...]:
        """Columns that were left out."""
        return tuple(column for column in self.columns if column.role == "not used")

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `LogReading.of` undoes it."""
        return {
            "columns": [asdict(column) for column in self.columns],
            "ids": [asdict(met) for met in self.ids],
            "command": list(self.command),
            "warnings": list(self.warnings),
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Undo `as_dict`."""
        return cls(
            tuple(ColumnUse(**column) for column in facts["columns"]),
            tuple(IdsMet(**met) for met in facts["ids"]),
            tuple(facts["command"]),
            tuple(facts["warnings"]),
        )
