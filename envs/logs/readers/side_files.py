"""The files that lie beside a log: RecBole's `.item`, `.user`, `.kg` and `.link`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.readers.side_tables import LINKED, ItemsTable, UsersTable, items_of, users_of
from recloop.envs.logs.readers.text_table import BadRows, TextTable, read_text_table, shown
from recloop.envs.logs.reading import ColumnUse
from recloop.envs.logs.schema import Columns

KINDS = ("token", "token_seq", "float", "float_seq")
"""The types an atomic header may name."""


@dataclass(frozen=True)
class AtomicTable:
    """A RecBole atomic file: float columns are numbers, the rest strings; and each column's kind (of `KINDS`)."""

    table: TextTable
    kinds: dict[str, str]


def read_atomic(path: Path, bad_rows: BadRows) -> AtomicTable:
    """Read an atomic file: tab separated, UTF-8, header `name:type`.

    Raises:
        LogError: a header cell without a known type, and whatever `read_text_table` refuses; cells that are
            not of their type as `bad_rows` decides.
    """
    table = read_text_table(path, bad_rows=bad_rows)
    kinds: dict[str, str] = {}
    for cell in table.frame.columns:
        name, _, kind = str(cell).rpartition(":")
        if kind not in KINDS or not name:
            raise LogError(
                f"{path}, line 1: column {shown(cell)} is not name:type, type one of {', '.join(KINDS)}; "
                "write for example item_id:token"
            )
        if name in kinds:
            raise LogError(f"{path}, line 1: column {shown(name)} stands there twice; name each column once")
        kinds[name] = kind
    table = TextTable(path, table.frame.set_axis(list(kinds), axis=1), table.lines)
    for name, kind in kinds.items():
        if kind == "float":
            table = table.with_numbers(name, bad_rows)
        elif kind == "float_seq":
            bad = np.array([not _is_floats(cell) for cell in table.frame[name]], dtype=bool)
            table = table.without(bad, name, "is not a list of numbers", f"malformed {name}", bad_rows)
    return AtomicTable(table, kinds)


def _is_floats(cell: str) -> bool:
    try:
        return bool(np.isfinite([float(part) for part in cell.split()]).all())
    except ValueError:
        return False


def read_items(
    path: Path,
    item: str,
    bad_rows: BadRows,
    *,
    text_columns: Sequence[str] | None = None,
    title: str | None = None,
    relations: Sequence[str] | None = None,
) -> ItemsTable:
    """The items of a `.item` file, whose id column is `item`; see `items_of`."""
    atomic = read_atomic(path, bad_rows)
    return items_of(
        atomic.table,
        item,
        text_columns=text_columns,
        title=title,
        relations=relations,
        kinds=atomic.kinds,
        bad_rows=bad_rows,
    )


def read_users(path: Path, user: str, bad_rows: BadRows) -> UsersTable:
    """The users of a `.user` file, whose id column is `user`; see `users_of`."""
    atomic = read_atomic(path, bad_rows)
    return users_of(atomic.table, user, kinds=atomic.kinds, bad_rows=bad_rows)


def read_knowledge(path: Path, bad_rows: BadRows) -> KnowledgeGraph:
    """The triples of a `.kg` file (`head_id relation_id tail_id`), each once."""
    table = read_atomic(path, bad_rows).table
    names = ("head_id", "relation_id", "tail_id")
    for name in names:
        table = table.with_ids(name, bad_rows)
    triples = table.frame[list(names)].drop_duplicates()
    heads, relations, tails = (triples[name].tolist() for name in names)
    return KnowledgeGraph.from_names(heads, relations, tails)


def with_entities(
    items: pd.DataFrame, path: Path, item: str, knowledge: KnowledgeGraph, bad_rows: BadRows
) -> tuple[pd.DataFrame, str]:
    """The items table with the entity of a `.link` file (missing where there is none), and a note about it.

    An item that is in no table is an unknown id, and `bad_rows` decides about it. An entity without a triple
    is not: it stays, has no neighbours, and is counted in the note.
    """
    table = read_atomic(path, bad_rows).table.with_ids(item, bad_rows, unique=True).with_ids("entity_id", bad_rows)
    unknown = ~np.asarray(table.frame[item].isin(items.index), dtype=bool)
    table = table.without(unknown, item, "is no item of this log", f"unknown {item}", bad_rows)
    entity = table.frame.set_index(item)["entity_id"].reindex(items.index)
    bare = int((knowledge.entity_rows(table.frame["entity_id"].tolist()) < 0).sum())
    note = f"{len(table.frame)} of {len(items)} {LINKED}, {bare} without a triple."
    return items.assign(**{Columns.entity: entity}), note


def with_missing(table: pd.DataFrame, ids: pd.Series) -> pd.DataFrame:
    """The table with a row more for each id that it lacks, in order of first appearance; its cells are empty.

    Items get their id as title and text, and no category and no entity.
    """
    new = ids[~ids.isin(table.index)].drop_duplicates()
    if new.empty:
        return table
    rows = pd.DataFrame(index=pd.Index(new.to_numpy(), dtype="str", name=table.index.name))
    for column in table.columns:
        gap = pd.api.types.is_string_dtype(table[column].dtype) and column not in (Columns.category, Columns.entity)
        rows[column] = pd.Series("" if gap else None, index=rows.index, dtype=table[column].dtype)
    for column in {Columns.title, Columns.text} & set(table.columns):
        rows[column] = rows.index.to_series()
    return pd.concat([table, rows])


@dataclass(frozen=True)
class SideTables:
    """What lay beside the interactions."""

    items: pd.DataFrame
    users: pd.DataFrame
    knowledge: KnowledgeGraph | None
    notes: tuple[str, ...]
    columns: tuple[ColumnUse, ...] = ()


def no_items() -> pd.DataFrame:
    """An items table without rows."""
    columns = pd.DataFrame({Columns.title: [], Columns.text: []}, dtype="str")
    return columns.set_axis(pd.Index([], dtype="str", name=Columns.item))


def no_users() -> pd.DataFrame:
    """A users table without rows."""
    return pd.DataFrame(index=pd.Index([], dtype="str", name=Columns.user))


def read_side_tables(
    stem: Path,
    interactions: pd.DataFrame,
    user: str,
    item: str,
    bad_rows: BadRows,
    *,
    text_columns: Sequence[str] | None = None,
    title: str | None = None,
    relations: Sequence[str] | None = None,
) -> SideTables:
    """Read `stem.item .user .kg .link` where they exist; ids that only `interactions` name get a row too.

    `user` and `item` are what the files call their ids; for the rest see `items_of`. The graph of a `.kg` file stands
    in place of triples made of the items' columns.
    """
    items_file, users_file, kg, link = (stem.with_name(f"{stem.name}.{end}") for end in ("item", "user", "kg", "link"))
    notes: list[str] = []
    items, users = ItemsTable(no_items()), UsersTable(no_users())
    graph = kg.exists() and link.exists()
    if graph and relations:
        raise LogError(
            f"{', '.join(relations)} cannot become triples: {kg} is the knowledge graph of this log; take the file "
            "away, or name no relations of items"
        )
    if items_file.exists():
        items = read_items(
            items_file,
            item,
            bad_rows,
            text_columns=text_columns,
            title=title,
            relations=() if graph else relations,
        )
        extra = interactions[Columns.item][~interactions[Columns.item].isin(items.frame.index)].nunique()
        if extra:
            notes.append(f"{extra} items have no row in {items_file.name}: their id stands for their title.")
    else:
        notes.append("The log has no texts of items: an item's id stands for its title.")
    if users_file.exists():
        users = read_users(users_file, user, bad_rows)
    notes += (*items.notes, *users.notes)
    frame, knowledge = with_missing(items.frame, interactions[Columns.item]), items.knowledge
    if graph:
        knowledge = read_knowledge(kg, bad_rows)
        frame, note = with_entities(frame, link, item, knowledge, bad_rows)
        notes.append(note)
    elif kg.exists():
        notes.append(f"{kg.name} is not used: no {link.name} says which entity an item is.")
    people = with_missing(users.frame, interactions[Columns.user])
    return SideTables(frame, people, knowledge, tuple(notes), (*items.columns, *users.columns))
