"""RecBole atomic files: `.inter` and, beside it, `.user .item .kg .link`.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html. Differences: ids stay strings; `session_id`,
`session_end`, `slate`, `position` and `propensity` are understood as columns of the log (`Columns`).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from recloop.envs.logs.readers.columns.cells import as_ids
from recloop.envs.logs.readers.interactions import ReadingOptions, build_interactions
from recloop.envs.logs.readers.roles import ColumnMapping
from recloop.envs.logs.readers.side_files import read_atomic, read_side_tables
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable
from recloop.envs.logs.reading import ColumnUse, LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior

MOVIELENS_ENTRY = "this is MovieLens, where people rate films they saw long ago"
"""Why MovieLens's times are times of entry, whatever is measured."""


def read_atomic_log(
    path: Path,
    *,
    columns: ColumnMapping | None = None,
    options: ReadingOptions | None = None,
    text_columns: tuple[str, ...] | None = None,
    item_relations: tuple[str, ...] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a RecBole log.

    Args:
        path: the `.inter` file; files of the same stem beside it are read too.
        columns: which column is what, where they have not RecBole's names (`user_id item_id timestamp`); its
            `user` and `item` are also looked for in the files beside. Columns of type token_seq and float_seq hold
            what came before, and are not used.
        options: what else is known of the log.
        text_columns: of the `.item` file, what the text is made of after the title; None takes every column of words.
        item_relations: of the `.item` file, the columns that become triples where there is no `.kg` file; None takes
            those of labels that items share, empty none.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column.
    """
    bad_rows = BadRows(on_bad_rows)
    atomic = read_atomic(path, bad_rows)
    lists = [name for name, kind in atomic.kinds.items() if kind.endswith("_seq")]
    given = columns or ColumnMapping()
    usual = {what: f"{what}_id" for what in (Columns.user, Columns.item) if getattr(given, what) is None}
    given = replace(given, **{what: name for what, name in usual.items() if name in atomic.kinds})  # type: ignore[arg-type]
    kept = [name for name in atomic.kinds if name not in lists or name in given.named.values()]
    table = replace(atomic.table, frame=atomic.table.frame[kept])
    because = MOVIELENS_ENTRY if is_movielens_table(path.stem, table) else ""
    found = build_interactions(table, given, options, bad_rows=bad_rows, entry_because=because)
    side = read_side_tables(
        path.with_suffix(""),
        found.frame,
        str(found.mapping.user),
        str(found.mapping.item),
        bad_rows,
        text_columns=text_columns,
        title=found.mapping.title,
        relations=item_relations,
    )
    unused = [ColumnUse("log", name, "not used", f"a column of type {atomic.kinds[name]}") for name in lists]
    return LoggedBehavior(
        name=path.stem,
        interactions=found.frame,
        users=side.users,
        items=side.items,
        signals=found.signals,
        times=found.times,
        has_exposures=found.has_exposures,
        knowledge=side.knowledge,
        source=str(path),
        notes=(*found.notes, *side.notes),
        dropped=bad_rows.as_dropped(),
        reading=LogReading((*found.uses, *unused, *side.columns), (), found.flags, found.warnings),
    )


def is_movielens_table(name: str, table: TextTable) -> bool:
    """True for MovieLens's ratings: called so, whole numbers for ids, and stars from 0.5 to 5 in every row."""
    wanted = ("user_id", "item_id", "rating", "timestamp")
    if not name.lower().startswith(("ml-", "movielens")) or not set(wanted) <= set(table.frame.columns):
        return False
    ids = [as_ids(table.frame[column]) for column in wanted[:2]]
    stars = table.numbers("rating")
    whole = all(bool(own.str.fullmatch(r"\d+").all()) for own in ids)
    return whole and bool(np.isin(stars, np.arange(1, 11) / 2).all())
