"""The files that lie beside a log: RecBole's `.item`, `.user`, `.kg` and `.link`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.readers.item_text import is_title, is_year, texts, titles
from recloop.envs.logs.readers.text_table import BadRows, TextTable, as_ids, read_text_table, shown
from recloop.envs.logs.schema import Columns

KINDS = ("token", "token_seq", "float", "float_seq")
"""The types an atomic header may name."""

LINKED = "items are linked to the knowledge graph"
"""By this a note on a log's own links is known; it is void where another graph takes its place."""


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


def read_items(path: Path, item: str, bad_rows: BadRows, text_columns: tuple[str, ...] | None) -> pd.DataFrame:
    """The items table of a `.item` file, indexed by id, with title and text.

    Args:
        path: the file.
        item: its id column.
        bad_rows: decides about bad rows and repeated ids.
        text_columns: columns the text is made of after the title; None takes every token_seq column.
    """
    atomic = read_atomic(path, bad_rows)
    table = atomic.table.with_ids(item, bad_rows, unique=True)
    frame = table.frame.set_index(item)
    title = next((name for name in atomic.kinds if is_title(name) and name != item), None)
    year = next((name for name in atomic.kinds if is_year(name)), None)
    if text_columns is None:
        text_columns = tuple(n for n, kind in atomic.kinds.items() if kind == "token_seq" and n not in (title, item))
    table.require(*text_columns)
    words = frame.apply(as_ids)
    heads = titles(words, title, year)
    sentences = texts(words, heads, text_columns)
    frame[Columns.title], frame[Columns.text] = heads, sentences
    return frame.rename_axis(Columns.item)


def read_users(path: Path, user: str, bad_rows: BadRows) -> pd.DataFrame:
    """The users table of a `.user` file, indexed by id; float columns are numbers, the rest strings."""
    atomic = read_atomic(path, bad_rows)
    table = atomic.table.with_ids(user, bad_rows, unique=True)
    return table.frame.set_index(user).rename_axis(Columns.user)


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

    Items get their id as title and text.
    """
    new = ids[~ids.isin(table.index)].drop_duplicates()
    if new.empty:
        return table
    rows = pd.DataFrame(index=pd.Index(new.to_numpy(), dtype="str", name=table.index.name))
    for column in table.columns:
        text = pd.api.types.is_string_dtype(table[column].dtype)
        rows[column] = pd.Series("" if text else np.nan, index=rows.index, dtype=table[column].dtype)
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
    text_columns: tuple[str, ...] | None,
    bad_rows: BadRows,
) -> SideTables:
    """Read `stem.item .user .kg .link` where they exist; ids that only `interactions` name get a row too.

    `user` and `item` are what the files call their ids.
    """
    items_file, users_file, kg, link = (stem.with_name(f"{stem.name}.{end}") for end in ("item", "user", "kg", "link"))
    notes: list[str] = []
    items, users = no_items(), no_users()
    if items_file.exists():
        items = read_items(items_file, item, bad_rows, text_columns)
        extra = interactions[Columns.item][~interactions[Columns.item].isin(items.index)].nunique()
        if extra:
            notes.append(f"{extra} items have no row in {items_file.name}: their id stands for their title.")
    else:
        notes.append("The log has no texts of items: an item's id stands for its title.")
    if users_file.exists():
        users = read_users(users_file, user, bad_rows)
    items = with_missing(items, interactions[Columns.item])
    users = with_missing(users, interactions[Columns.user])
    knowledge = None
    if kg.exists() and link.exists():
        knowledge = read_knowledge(kg, bad_rows)
        items, note = with_entities(items, link, item, knowledge, bad_rows)
        notes.append(note)
    elif kg.exists():
        notes.append(f"{kg.name} is not used: no {link.name} says which entity an item is.")
    return SideTables(items, users, knowledge, tuple(notes))
