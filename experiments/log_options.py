"""What `build` and `check-log` can be told of a log, and how the two read it."""

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import tyro

from recloop.encoders.base.errors import LogError, unknown_name
from recloop.envs.logs.cleaning import CleaningOptions, CleaningReport, clean
from recloop.envs.logs.readers.any import parsed_signal, read_log
from recloop.envs.logs.readers.roles import COLUMN_NAMES, ColumnMapping
from recloop.envs.logs.schema import Columns, LoggedBehavior, Times


@dataclass(frozen=True)
class LogOptions:
    """How a log is read; what is not named goes by usual names and by the values."""

    log: tyro.conf.Positional[Path]
    """File or folder of the log: CSV, TSV, JSON lines, Parquet, packed or in parts; RecBole atomic, sequences;
    MovieLens, MIND, Open Bandit, Coat, KuaiRand, KuaiRec as published."""
    columns: tuple[str, ...] = ()
    """Which column is what, such as user=uid item=sku time=ts event=action; time_unit=ms, time_format=%d/%m/%Y."""
    signals: tuple[str, ...] = ()
    """The answers, the consumption first: NAME, NAME:1,2,3 (levels), NAME:0..1 (range); @OTHER where given on it."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    missing: tuple[str, ...] = ()
    """Cells that mean "not given", such as -1, or rating=0 for one column."""
    events: tuple[str, ...] = ()
    """Values of the event column from shallow to deep, such as view click cart purchase; others are left out."""
    views: Literal["exposures", "consumption"] | None = None
    """Whether a view of an event log says that an item was shown, or that it was consumed."""
    slates: Literal["time", "row"] | None = None
    """Without a column of slates: rows of one user and time are one slate, or every row is; default measured."""
    session_gap: float = 1800.0
    """Seconds without a row after which a session begins, where no column says; 0 for no sessions."""
    times: Literal["behavioural", "entry", "none"] | None = None
    """What the log's times mean, where you know it; default measured."""
    items_table: Path | None = None
    """Table of items beside the log."""
    users_table: Path | None = None
    """Table of users beside the log."""
    item_relations: tuple[str, ...] | None = None
    """Columns of the items that become a knowledge graph; default those of few values and lists; `none` for none."""
    least_met: float = 0.5
    """Share of the log's items, or users, that must have a row in their table."""
    separator: str | None = None
    """Between the fields of text, such as ';' or tab; default found."""
    encoding: str | None = None
    """Of text, such as cp1252; default UTF-8, or UTF-16 with its mark."""
    header: tuple[str, ...] = ()
    """Names of the columns of a text file without a line of names."""
    sample_users: int | None = None
    """Read so many users alone, drawn by a hash of their ids: for logs larger than memory, in Parquet or text."""
    bad_rows: Literal["error", "drop"] = "error"
    """Rows that cannot be read: stop, or drop and count them."""
    clean: CleaningOptions = field(default_factory=CleaningOptions)
    """What cleaning does beyond what it must."""

    def read(self) -> tuple[LoggedBehavior, CleaningReport]:
        """The log, cleaned, and what cleaning found."""
        named = {f.name for f in fields(LogOptions)} - {*PATHS, "log", "columns", "signals", "bad_rows", "clean"}
        given = {f.name: getattr(self, f.name) for f in fields(LogOptions) if f.name in named}
        options: dict[str, Any] = {name: value for name, value in given.items() if value != DEFAULTS[name]}
        if self.columns or self.signals:
            options["columns"] = _mapping(self.columns, self.signals)
        if self.times is not None:
            options["times"] = Times(self.times)
        if self.item_relations == ("none",):
            options["item_relations"] = ()
        options |= {name: getattr(self, flag) for flag, name in PATHS.items() if getattr(self, flag) is not None}
        return clean(read_log(self.log, on_bad_rows=self.bad_rows, **options), self.clean)

    def command(self, log: LoggedBehavior) -> str:
        """The `build` command that says by name what was found."""
        parts = ["recloop", "build", shlex.quote(str(self.log)), *log.reading.command]
        for f in fields(LogOptions):
            value = getattr(self, f.name)
            if f.name in ("log", "columns", "signals", "clean") or value == DEFAULTS.get(f.name):
                continue
            if f.name == "missing" and "--missing" in log.reading.command:
                continue
            several = value if isinstance(value, tuple) else (value,)
            parts += [f"--{f.name.replace('_', '-')}", *(shlex.quote(str(one)) for one in several)]
        if not log.reading.command:
            parts += [*(("--columns", *self.columns) if self.columns else ())]
            parts += [*(("--signals", *self.signals) if self.signals else ())]
        if log.has_exposures:
            parts += ["--slate-size", str(most_shown(log))]
        return " ".join([*parts, "--out", shlex.quote(f"worlds/{log.name}")])


def most_shown(log: LoggedBehavior) -> int:
    """Items of the largest slate of a log with exposures."""
    if Columns.slate not in log.interactions:
        return 1
    return int(log.interactions.groupby([Columns.user, Columns.slate], sort=False).size().max())


PATHS = {"items_table": "items", "users_table": "users"}
"""Flag -> argument of the readers."""
DEFAULTS = {f.name: f.default for f in fields(LogOptions)}


def _mapping(columns: tuple[str, ...], signals: tuple[str, ...]) -> ColumnMapping:
    named: dict[str, Any] = {}
    for part in columns:
        name, equals, column = part.partition("=")
        if not equals or not column:
            raise LogError(f"--columns {part} is not understood; write WHAT=COLUMN, such as user=uid")
        if name not in COLUMN_NAMES:
            raise LogError(f"--columns {part}: {unknown_name('column', name, COLUMN_NAMES)}")
        named[name] = column
    return ColumnMapping(**named, signals=tuple(parsed_signal(s) for s in signals))
