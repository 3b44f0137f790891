"""Any table of interactions, in a file or in memory, and tables of items and users beside it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.files import TextFormat, read_file, read_head, streamed, table_of
from recloop.envs.logs.readers.interactions import ReadingOptions, build_interactions
from recloop.envs.logs.readers.roles import ColumnMapping, roles_of, usual_columns
from recloop.envs.logs.readers.side_files import no_items, no_users, with_missing
from recloop.envs.logs.readers.side_tables import items_of, users_of
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable, shown
from recloop.envs.logs.reading import IdsMet, LogReading, Table
from recloop.envs.logs.sampling import SampledUsers, checked_sample
from recloop.envs.logs.schema import Columns, LoggedBehavior

LEAST_MET = 0.5
"""Share of the log's items, or users, that must have a row in their table."""


def read_table_log(
    source: Any,
    *,
    columns: ColumnMapping | None = None,
    options: ReadingOptions | None = None,
    text: TextFormat | None = None,
    items: Any = None,
    users: Any = None,
    text_columns: tuple[str, ...] | None = None,
    item_relations: tuple[str, ...] | None = None,
    least_met: float = LEAST_MET,
    sample_users: int | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a log from a table.

    In text, an empty cell and what programs write for one (`NULL`, `\\N`, `nan`, `None`) is a missing value, and
    anything else that is no finite number is malformed; in Parquet, null and NaN are missing.

    Args:
        source: the interactions: a file (CSV, TSV, JSON lines or Parquet, packed or not), a folder of parts of one, or
            a pandas, Polars or PyArrow table.
        columns: which column is what; what is not named goes by usual names and by values (`readers/roles.py`).
        options: what else is known of the log.
        text: how delimited text is written; None finds it.
        items: a table of items, likewise a file or a frame. Its id column is called as in the log, or as ids are.
        users: a table of users, likewise.
        text_columns: of the items, what the text is made of after the title; None takes every column of words.
        item_relations: of the items, columns that become triples of a knowledge graph; None takes those of few
            values and lists of labels, empty none.
        least_met: share in [0, 1] of the log's items that the table of items must have, and of its users likewise.
        sample_users: read the rows of so many users alone, drawn by a hash of their ids, while the file passes by;
            of Parquet and delimited text. A row that cannot be read is met where it is a row of theirs.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line (row in Parquet) and column; two readings that are both possible, with the flags that
            choose; too few ids that meet.
    """
    bad_rows = BadRows(on_bad_rows)
    sample = None
    if sample_users is not None:
        columns, sample = _sample(Path(source), columns, options, text, sample_users)
    table = _table(source, "log", bad_rows, text, sample)
    found = build_interactions(table, columns, options, bad_rows=bad_rows)
    item_ids, user_ids = found.frame[Columns.item], found.frame[Columns.user]
    uses, notes, ids = list(found.uses), [*found.notes, *([sample.sentence] if sample else [])], []
    items_table, users_table, knowledge = no_items(), no_users(), None
    if items is None:
        notes.append("The log has no texts of items: an item's id stands for its title.")
    else:
        beside = _table(items, "items", bad_rows, text)
        key = _key(beside, str(found.mapping.item), Columns.item)
        found_items = items_of(
            beside,
            key,
            text_columns=text_columns,
            title=found.mapping.title,
            relations=item_relations,
            bad_rows=bad_rows,
        )
        items_table, knowledge = found_items.frame, found_items.knowledge
        items_table, met = _met("items", beside, items_table, item_ids, least_met)
        uses += found_items.columns
        notes += [*found_items.notes, met.sentence]
        ids.append(met)
    if users is not None:
        beside = _table(users, "users", bad_rows, text)
        key = _key(beside, str(found.mapping.user), Columns.user)
        found_users = users_of(beside, key, bad_rows=bad_rows)
        users_table, met = _met("users", beside, found_users.frame, user_ids, least_met)
        uses += found_users.columns
        notes += [*found_users.notes, met.sentence]
        ids.append(met)
    return LoggedBehavior(
        name=table.path.name.split(".")[0] or "log",
        interactions=found.frame,
        users=with_missing(users_table.rename_axis(Columns.user), user_ids),
        items=with_missing(items_table.rename_axis(Columns.item), item_ids),
        signals=found.signals,
        times=found.times,
        has_exposures=found.has_exposures,
        knowledge=knowledge,
        source=str(table.path),
        notes=tuple(notes),
        dropped=bad_rows.as_dropped(),
        reading=LogReading(tuple(uses), tuple(ids), found.flags, found.warnings),
    )


def _table(
    source: Any, what: str, bad_rows: BadRows, text: TextFormat | None, sample: SampledUsers | None = None
) -> TextTable:
    if isinstance(source, str | Path):
        return read_file(Path(source), bad_rows, text, sample)
    return table_of(source, what)


def _sample(
    place: Path, columns: ColumnMapping | None, options: ReadingOptions | None, text: TextFormat | None, users: int
) -> tuple[ColumnMapping, SampledUsers]:
    """Who is read, and the columns with the one that says so named: the first rows of a file decided it."""
    columns, head = columns or ColumnMapping(), read_head(place, text)
    ignore = options.ignore if options else ()
    mapping = roles_of(head, columns, ignore=ignore, needs_user=False, find_time=False).mapping
    name = mapping.user or mapping.session
    if name is None:
        mapping = roles_of(head, columns, ignore=ignore, find_time=False).mapping  # says what is missing
    ids = (batch.column(0) for batch in streamed(place, text, [str(name)]))
    named = columns if mapping.user is None else replace(columns, user=mapping.user)
    return named, SampledUsers.of(str(name), ids, checked_sample(users))


def _key(table: TextTable, name: str, what: str) -> str:
    """The id column of a table beside the log: called as there, else as ids of its kind are, else `id`."""
    names = [str(column) for column in table.frame.columns]
    if name in names:
        return name
    usual = usual_columns(names).get(what)
    if usual is not None:
        return usual
    plain_ids = [column for column in names if column.lower() == "id"]
    if plain_ids:
        return plain_ids[0]
    raise LogError(
        f"{table.path}, {table.unit} 1: no column is called {shown(name)}, as the log calls its {what}s; the file has "
        f"{table.names}; rename its column of ids to {shown(name)}"
    )


def _met(
    what: Table, table: TextTable, frame: pd.DataFrame, ids: pd.Series, least: float
) -> tuple[pd.DataFrame, IdsMet]:
    """The table with its ids as the log writes them, and how many of the log's ids it has.

    Where ids differ by leading zeros or a `.0` alone, on both sides without a clash, they are the same ids.
    """
    wanted = pd.Index(ids.unique())
    met = int(wanted.isin(frame.index).sum())
    if met < len(wanted):
        plain_log, plain_table = _plain_ids(wanted), _plain_ids(frame.index)
        by_plain = dict(zip(plain_log, wanted, strict=True))
        better = int(plain_log.isin(plain_table).sum())
        if better > met and plain_log.is_unique and plain_table.is_unique:
            own = [by_plain.get(plain, name) for plain, name in zip(plain_table, frame.index, strict=True)]
            frame, met = frame.set_axis(pd.Index(own, dtype="str", name=frame.index.name)), better
    share = met / max(len(wanted), 1)
    if share < least:
        example = next((name for name in wanted if name not in frame.index), "")
        theirs = shown(frame.index[0]) if len(frame) else "no row"
        raise LogError(
            f"{table.path}: {met} of {len(wanted)} {what} of the log are in this table, below {least:.0%} (the log has "
            f"{shown(example)}, the table {theirs}); give the table of this log, or take it as it is: --least-met 0"
        )
    return frame, IdsMet(what, table.path.name, len(wanted), met, len(frame))


def _plain_ids(ids: pd.Index) -> pd.Index:
    """Ids without leading zeros and a trailing `.0`."""
    return pd.Index(
        pd.Series(ids, dtype="str").str.replace(r"\.0+$", "", regex=True).str.replace(r"^0+(?=\d)", "", regex=True)
    )
