"""Any CSV or Parquet table of interactions, with a mapping of its columns, and tables of items and users beside."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.interactions import ColumnMapping, build_interactions, guess_mapping
from recloop.envs.logs.readers.side_files import no_items, no_users, with_missing
from recloop.envs.logs.readers.side_tables import ItemsTable, UsersTable, items_of, users_of
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable, read_text_table
from recloop.envs.logs.schema import Columns, LoggedBehavior, Times

SUFFIXES = (".csv", ".tsv", ".parquet")
"""Kinds of files that are understood; `.tsv` is separated by tabs."""


def read_table_log(
    path: Path,
    *,
    columns: ColumnMapping | None = None,
    items: str | Path | None = None,
    users: str | Path | None = None,
    text_columns: tuple[str, ...] | None = None,
    item_relations: tuple[str, ...] | None = None,
    times: Times | None = None,
    exposures: bool | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a log from a CSV, TSV or Parquet file.

    In text, an empty cell is a missing value, and anything else that is no finite number is malformed; in
    Parquet, null and NaN are missing.

    Args:
        path: the interactions.
        columns: which column is what; None goes by the usual names (`readers/interactions.py`, ALIASES).
        items: a table of items; its id column has the same name as in the interactions (`readers/side_tables.py`).
        users: a table of users, likewise.
        text_columns: of the items, what the text is made of after the title; None takes every column of words.
        item_relations: of the items, the columns that become triples; None takes those of labels that items share,
            empty none.
        times: what the times mean, where you know it; None measures.
        exposures: whether rows also say what was shown and not taken; None: where the consumption has zeros.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line (row in Parquet) and column.
    """
    bad_rows = BadRows(on_bad_rows)
    table = _read(path, bad_rows)
    mapping = columns or guess_mapping(table)
    found = build_interactions(
        table,
        mapping,
        bad_rows=bad_rows,
        times=times,
        exposures=exposures,
    )
    side, people = ItemsTable(no_items()), UsersTable(no_users())
    if items is not None:
        side = items_of(
            _read(Path(items), bad_rows),
            mapping.item,
            text_columns=text_columns,
            relations=item_relations,
            bad_rows=bad_rows,
        )
    if users is not None:
        people = users_of(_read(Path(users), bad_rows), mapping.user, bad_rows=bad_rows)
    without_texts = ("The log has no texts of items: an item's id stands for its title.",)
    return LoggedBehavior(
        name=path.stem,
        interactions=found.frame,
        users=with_missing(people.frame, found.frame[Columns.user]),
        items=with_missing(side.frame, found.frame[Columns.item]),
        signals=found.signals,
        times=found.times,
        has_exposures=found.has_exposures,
        source=str(path),
        knowledge=side.knowledge,
        notes=(*found.notes, *(without_texts if items is None else ()), *side.notes, *people.notes),
        dropped=bad_rows.as_dropped(),
    )


def _read(path: Path, bad_rows: BadRows) -> TextTable:
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    if path.suffix.lower() not in SUFFIXES:
        raise LogError(f"{path} is of kind '{path.suffix}'; the known are {', '.join(SUFFIXES)}")
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    return read_text_table(path, separator=separator, quoted=True, bad_rows=bad_rows)


def _read_parquet(path: Path) -> TextTable:
    """Parquet as a table; columns that are neither numbers nor moments become strings."""
    try:
        frame = pyarrow.parquet.read_table(path).to_pandas()
    except FileNotFoundError:
        raise LogError(f"{path} is not there; check the path") from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise LogError(f"{path} is no Parquet file that can be read ({str(error).splitlines()[0]})") from None
    frame = frame.reset_index(drop=True)
    for name in frame.columns:
        kind = frame[name].dtype
        moment = isinstance(kind, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_dtype(kind)
        if not (moment or pd.api.types.is_numeric_dtype(kind)):
            frame[name] = frame[name].astype("str").where(frame[name].notna(), "")
    return TextTable(path, frame, np.arange(1, len(frame) + 1), unit="row")
