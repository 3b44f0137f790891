"""Tables of items and of users beside a log: which column is what, decided by the values it holds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.readers.columns.cells import is_text
from recloop.envs.logs.readers.columns.item_text import texts, titles, year_of
from recloop.envs.logs.readers.columns.kinds import (
    ATTRIBUTES,
    MANY_VALUES,
    Column,
    columns_of,
    is_wordy,
    plain_table,
    plain_titles,
)
from recloop.envs.logs.readers.columns.labels import LONG, MOST_WORDS, name_parts, noun_of
from recloop.envs.logs.readers.text_table import BadRows, TextTable, shown
from recloop.envs.logs.reading import ColumnUse
from recloop.envs.logs.schema import Columns

LINKED = "items are linked to the knowledge graph"
"""By this a note on a log's own links is known; it is void where another graph takes its place."""
LEAST_DIFFERENT = (0.1, 0.5, 0.5, 0.9)
"""Share of a title's cells that must differ from each other: in a column called `title` or `name`; in one called after
items (`product_name`); in another `..._name`; in one that nothing but its values speaks for."""
_FEWEST_BY_VALUES = 5
"""Items from which on values alone may speak for a title."""
_NOUNS = frozenset(
    [
        "product",
        "item",
        "movie",
        "film",
        "video",
        "song",
        "track",
        "book",
        "game",
        "app",
        "news",
        "article",
        "course",
        "recipe",
        "anime",
        "food",
        "show",
        "place",
    ]
)
_OTHERS = ATTRIBUTES | frozenset(["user", "customer", "first", "last", "file", "host", "chain", "group", "parent"])
_CATEGORIES = ("category", "department")


@dataclass(frozen=True)
class ItemsTable:
    """Items as a log keeps them.

    Args:
        frame: indexed by id, with `title` and `text`, `category` where a column holds one, `entity` where there is a
            graph. Columns of numbers are numbers; of labels, words with `|` between; of what is not given, empty.
        knowledge: what the columns of attributes say, as triples; None where there is none.
        columns: what became of every column.
        notes: sentences for the card.
    """

    frame: pd.DataFrame
    knowledge: KnowledgeGraph | None = None
    columns: tuple[ColumnUse, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class UsersTable:
    """Users as a log keeps them.

    Args:
        frame: indexed by id; columns of numbers are numbers, the rest words, empty where nothing is given.
        columns: what became of every column.
        notes: sentences for the card.
    """

    frame: pd.DataFrame
    columns: tuple[ColumnUse, ...] = ()
    notes: tuple[str, ...] = ()


def items_of(
    table: TextTable,
    key: str,
    *,
    text_columns: Sequence[str] | None = None,
    title: str | None = None,
    relations: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    bad_rows: BadRows,
) -> ItemsTable:
    """The items of a table.

    Args:
        table: one row an item.
        key: the column of ids.
        text_columns: what the text is made of after the title; None takes every column of words or labels.
        title: the column of titles; None finds it.
        relations: columns that become triples; None takes those of labels that items share; empty none.
        kinds: types by column as an atomic header gives them.
        bad_rows: decides about missing and repeated ids, and cells that break a column of numbers.

    Raises:
        LogError: with file, line and column.
    """
    named = (*(text_columns or ()), *(relations or ()), *((title,) if title else ()))
    table.require(*named)
    table = plain_table(table).with_ids(key, bad_rows, unique=True)
    head, why = (title, "it was named") if title else _title(table, key)
    table, columns = columns_of(
        table,
        key,
        bad_rows,
        kinds=kinds,
        as_words={*(relations or ()), head or key},
        mixed=text_columns or (),
        tokens_are_words=True,
    )
    year = next((name for name, own in columns.items() if head and name != head and _holds_years(own)), None)
    ids = table.frame[key].tolist()
    names = [""] * len(ids) if head is None else plain_titles(table.frame[head])
    years = [""] * len(ids) if year is None else [year_of(word) for word in columns[year].words]
    heads = titles(ids, names, years)
    free = {name: own for name, own in columns.items() if name not in (head, year, Columns.entity)}
    told = _told(free) if text_columns is None else [name for name in text_columns if name in columns]
    linking = _shared(free) if relations is None else [name for name in relations if name in columns]
    category = _category(free)
    index = pd.Index(ids, dtype="str", name=Columns.item)
    frame = _frame(columns, index)
    sentences = texts(heads, {name: _cells(columns[name]) for name in told})
    frame[Columns.title], frame[Columns.text] = (
        pd.Series(heads, index, dtype="str"),
        pd.Series(sentences, index, dtype="str"),
    )
    if category is not None:
        first = [own[0] if own else None for own in columns[category].labels]
        frame[Columns.category] = pd.Series(first, index, dtype="str")
    given = columns[Columns.entity].words if Columns.entity in columns else [""] * len(ids)
    graph, entities = _graph(ids, heads, given, {name: columns[name] for name in linking})
    notes: tuple[str, ...] = ()
    if any(entities):
        frame[Columns.entity] = pd.Series(entities, index, dtype="str")
    if graph is not None:
        many = sum(map(bool, entities))
        notes = (f"{many} of {len(ids)} {LINKED}, which is made of their own columns: {', '.join(linking)}.",)
    known = {key: ("id", "ids of items"), head: ("title", why), year: ("year", "stands behind the title")}
    known[Columns.entity] = ("entity", "names the item's entity in a graph from elsewhere")
    uses = []
    for name in map(str, table.frame.columns):
        role, because = known.get(name) or _role(columns[name], name in told, name in linking, name == category)
        uses.append(ColumnUse("items", name, role, because))
    return ItemsTable(frame, graph, tuple(uses), notes)


def users_of(table: TextTable, key: str, *, kinds: Mapping[str, str] | None = None, bad_rows: BadRows) -> UsersTable:
    """The users of a table.

    Args:
        table: one row a user.
        key: the column of ids.
        kinds: types by column as an atomic header gives them.
        bad_rows: decides about missing and repeated ids, and cells that break a column of numbers.

    Raises:
        LogError: with file, line and column.
    """
    table = plain_table(table).with_ids(key, bad_rows, unique=True)
    table, columns = columns_of(table, key, bad_rows, kinds=kinds)
    index = pd.Index(table.frame[key].tolist(), dtype="str", name=Columns.user)
    kept = {name: column for name, column in columns.items() if column.kind in ("numbers", "words", "codes")}
    uses = [ColumnUse("users", key, "id", "ids of users"), *map(_feature, columns.values())]
    left_out = [f"{use.name} ({use.why})" for use in uses if use.role == "not used" and use.name not in kept]
    notes = (f"Of the users, these columns are not read: {', '.join(left_out)}.",) if left_out else ()
    return UsersTable(_frame(kept, index), tuple(uses), notes)


def _frame(columns: Mapping[str, Column], index: pd.Index) -> pd.DataFrame:
    made = {
        name: pd.Series(own.words, index, dtype="str") if own.numbers is None else pd.Series(own.numbers, index)
        for name, own in columns.items()
        if own.kind not in ("empty", "vectors")
    }
    return pd.DataFrame(made, index=index)


def _title(table: TextTable, key: str) -> tuple[str | None, str]:
    """The column of titles, and why; None where no column is one."""
    found: list[tuple[int, float, str]] = []
    for name in map(str, table.frame.columns):
        cells = table.frame[name]
        if name == key or not (is_text(cells) or pd.api.types.is_numeric_dtype(cells.dtype)):
            continue
        filled = [word for word in plain_titles(cells) if word]
        different, rank = len(set(filled)), _title_rank(name)
        share = different / max(len(filled), 1)
        if share < LEAST_DIFFERENT[rank] or (different == 1 and len(filled) > 1):
            continue
        if rank < 3 or _reads_as_titles(name, filled):
            found.append((rank, -share, name))
    if not found:
        return None, ""
    rank, share, name = min(found, key=lambda one: one[:2])
    also = [shown(other) for kind, _, other in found if kind == rank and other != name]
    why = f"{-share:.0%} of its cells differ from each other" + (", and it has the name of a title" if rank < 3 else "")
    return name, f"{why}; {' or '.join(also)} could be it too: --columns title=NAME" if also else why


def _title_rank(column: str) -> int:
    """How much a column's name speaks for its being the title: 0 most, 3 not at all."""
    parts = name_parts(column) or [column.lower()]
    if parts in (["title"], ["name"]):
        return 0
    if parts[-1].endswith("name"):
        before = parts[-1].removesuffix("name") or parts[-2]
        return 1 if before in _NOUNS else 3 if before in _OTHERS else 2
    return 1 if parts[-1].endswith("title") or parts[0] == "title" else 3


def _reads_as_titles(column: str, filled: list[str]) -> bool:
    short = sum(len(cell.split()) for cell in filled) < LONG * len(filled)
    wordy = sum(map(is_wordy, filled)) > 0.5 * len(filled)
    return len(filled) >= _FEWEST_BY_VALUES and short and wordy and noun_of(column) not in ATTRIBUTES


def _holds_years(column: Column) -> bool:
    filled = [word for word in column.words if word]
    years = sum(bool(year_of(word)) for word in filled)
    return "year" in name_parts(column.name) and bool(filled) and years >= 0.5 * len(filled)


def _cells(column: Column) -> Sequence[str | tuple[str, ...]]:
    return column.labels if column.kind == "labels" else column.words


def _told(columns: Mapping[str, Column]) -> list[str]:
    """Columns that the text is made of where nobody says."""
    return [name for name, column in columns.items() if column.kind in ("words", "labels")]


def _shared(columns: Mapping[str, Column]) -> list[str]:
    """Columns that become triples where nobody says: of short labels, that items share."""
    found = []
    for name, column in columns.items():
        counts = column.counts
        short = sum(len(label.split()) for label in counts) <= MOST_WORDS * len(counts)
        least = 2 * len(counts) if noun_of(name) not in ATTRIBUTES else len(counts) + 1
        if column.kind in ("labels", "words", "codes") and len(counts) > 1 and short and counts.total() >= least:
            found.append(name)
    return found


def _category(columns: Mapping[str, Column]) -> str | None:
    """The column of the one category that an item belongs to."""
    if Columns.category in columns and columns[Columns.category].labels:
        return Columns.category
    single = [name for name in _shared(columns) if columns[name].kind != "labels" and noun_of(name) in _CATEGORIES]
    return min(single, key=lambda name: _CATEGORIES.index(noun_of(name)), default=None)


def _graph(
    ids: Sequence[str], heads: Sequence[str], given: Sequence[str], columns: Mapping[str, Column]
) -> tuple[KnowledgeGraph | None, list[str | None]]:
    """Triples (item, column, label), and the entity of each item: the one it names, else one called by its title.

    An entity's name begins with its kind, so that no two columns share one.
    """
    same = Counter(heads)
    kind = "item" if "item" not in columns else "this item"
    own = [
        entity or (f"{kind}:{title}" if same[title] == 1 else f"{kind}:{title} [{item}]")
        for item, title, entity in zip(ids, heads, given, strict=True)
    ]
    triples = [
        (own[row], name, f"{name}:{label}")
        for name, column in columns.items()
        for row, labels in enumerate(column.labels)
        for label in labels
    ]
    linked = {head for head, _, _ in triples}
    entities = [name if name in linked or entity else None for name, entity in zip(own, given, strict=True)]
    return (KnowledgeGraph.from_names(*zip(*triples, strict=True)) if triples else None), entities


def _role(column: Column, told: bool, linking: bool, category: bool) -> tuple[str, str]:
    """What a column of items is used for, and why."""
    values = f"{len(column.counts)} values over {column.filled} items"
    if linking or category:
        where = [where for where, so in (("triples", linking), ("the text", told)) if so]
        return "category" if category else "relation", f"{values}; in {' and '.join(where) or 'no text and no triples'}"
    if told:
        return "text", column.kind
    if column.kind == "numbers":
        return "number", "rewards may read it"
    reasons = {
        "empty": "every cell is empty",
        "dates": "dates",
        "vectors": "lists of numbers; item vectors are read with --encoder.modalities",
        "codes": f"codes without words, {values}",
    }
    return "not used", reasons.get(column.kind, "not among the columns that were named")


def _feature(column: Column) -> ColumnUse:
    """What a column of users is used for, and why."""
    counts = column.counts
    if column.kind == "numbers":
        return ColumnUse("users", column.name, "feature", "a number")
    if column.kind in ("words", "codes") and len(counts) <= max(MANY_VALUES * column.filled, 2):
        return ColumnUse("users", column.name, "feature", f"{len(counts)} categories")
    reasons = {
        "empty": "every cell is empty",
        "dates": "dates",
        "vectors": "lists of numbers",
        "labels": "lists of labels",
    }
    many = f"{len(counts)} different values among {column.filled} users"
    return ColumnUse("users", column.name, "not used", reasons.get(column.kind, many))
