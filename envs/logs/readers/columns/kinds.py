"""What the columns of a table of items or users hold: numbers, labels, words, codes, dates. The values decide."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.envs.logs.readers.columns.cells import NULL_WORDS, as_ids, as_numbers, is_text
from recloop.envs.logs.readers.columns.labels import (
    LISTS,
    NO_NUMBER,
    Labels,
    are_vectors,
    holds_lists,
    labels_of,
    lists_of,
    name_parts,
    noun_of,
    separator_of,
    split_labels,
    words_of,
)
from recloop.envs.logs.readers.text_table import BadRows, TextTable

Kind = Literal["empty", "numbers", "labels", "words", "codes", "dates", "vectors"]

NUMERIC_FROM = 0.75
"""Share of the filled cells that are numbers from which on a column of text is one of numbers, and the rest faults."""
MANY_VALUES = 0.5
"""A column with more different values than this share of its filled cells tells single users or items apart."""
CODES = frozenset(
    [
        "zip",
        "zipcode",
        "postal",
        "postcode",
        "plz",
        "phone",
        "id",
        "code",
        "isbn",
        "ean",
        "upc",
        "sku",
        "asin",
        "hash",
        "uuid",
        "guid",
    ]
)
"""Parts of names of columns whose numbers count nothing."""
_ATTRIBUTES = (
    *("brand", "color", "colour", "department", "producer", "maker", "manufacturer", "seller", "store", "shop"),
    *("supplier", "author", "artist", "director", "publisher", "studio", "language", "country", "material", "style"),
    *("gender", "type"),
)
ATTRIBUTES = frozenset((*LISTS, *_ATTRIBUTES))
"""What columns of one label a row are called; their whole numbers count nothing."""
_DATE = re.compile(r"(\d{4}-\d\d?-\d\d?|\d\d?[./-]\d\d?[./-]\d{2,4}|\d\d?-[A-Z][a-z]{2}-\d{4})([T ].*)?$")
_NO_WORDS = re.compile(
    r"(\w+://|www\.|[./\\])\S*$|[0-9a-fA-F-]{16,}$|\S+@\S+$|\S+\.(jpe?g|png|gif|webp|mp[34])$|(?=.*\d)[A-Z\d-]{6,}$"
)
_LETTERS = re.compile(r"[^\W\d_]{2}|[^\W\d_]$")


@dataclass(frozen=True)
class Column:
    """A column and what it holds.

    Args:
        name: as the file calls it.
        kind: what its cells are.
        words: every cell in single blanks, empty where nothing is given.
        labels: of labels, those of each cell; of words and codes, the cell as one label.
        numbers: of numbers, float64 (rows,), NaN where nothing is given.
    """

    name: str
    kind: Kind
    words: list[str]
    labels: Labels
    numbers: npt.NDArray[np.float64] | None = None

    @property
    def counts(self) -> Counter[str]:
        """How many rows have each label."""
        return Counter(label for own in self.labels for label in own)

    @property
    def filled(self) -> int:
        """How many rows say something."""
        return sum(map(bool, self.labels))


def columns_of(
    table: TextTable,
    key: str,
    bad_rows: BadRows,
    *,
    kinds: Mapping[str, str] | None = None,
    as_words: Collection[str] = (),
    mixed: Collection[str] = (),
    tokens_are_words: bool = False,
) -> tuple[TextTable, dict[str, Column]]:
    """The columns of a table less its `key`, and the table less the rows that broke a column of numbers.

    Args:
        table: one row an item or user.
        key: the column of ids.
        bad_rows: decides about cells that break a column of numbers.
        kinds: types by column as an atomic header gives them; None: nothing is said.
        as_words: columns whose numbers are words.
        mixed: columns that may hold both, and then are words.
        tokens_are_words: whether the numbers of an atomic `token` column are words.

    Raises:
        LogError: with file, line, column and cell.
    """
    kinds = kinds or {}
    names = [str(name) for name in table.frame.columns if name != key]
    numeric = []
    for name in names:
        kind = kinds.get(name, "")
        if name in as_words or kind in ("token_seq", "float_seq") or (tokens_are_words and kind == "token"):
            continue
        bad = _breaks(name, table.frame[name], strict=not kind and name not in mixed)
        if bad is not None:
            problem = "is not a finite number, where the column holds numbers"
            table = table.without(bad, name, problem, f"malformed {name}", bad_rows)
            numeric.append(name)
    return table, {name: _column(name, table.frame[name], name in numeric, kinds.get(name, "")) for name in names}


def plain_table(table: TextTable) -> TextTable:
    """The table with columns of mixed Python objects as strings, but for those of lists."""
    mixed = [str(name) for name, cells in table.frame.items() if cells.dtype == object and not holds_lists(cells)]
    strings = {name: table.frame[name].astype("str").where(table.frame[name].notna(), "") for name in mixed}
    return replace(table, frame=table.frame.assign(**strings)) if mixed else table


def is_wordy(cell: str) -> bool:
    """True for a cell that holds a word: no address, no file, no code.

    >>> [is_wordy(cell) for cell in ("brand7", "XL", "M", "1984", "http://a.b/c", "B00GXE331K", "cef3390ed299c09874")]
    [True, True, True, False, False, False, False]
    """
    return bool(_LETTERS.search(cell)) and not _NO_WORDS.match(cell)


def plain_titles(cells: pd.Series) -> list[str]:
    """Cells of any type as titles in single blanks; a film may be called "Unknown", so only what databases write for
    a missing cell is empty."""
    words = (" ".join(word.split()) for word in as_ids(cells).tolist())
    return ["" if word.lower() in NULL_WORDS else word for word in words]


def plain_words(cells: pd.Series) -> list[str]:
    """Cells of any type as words, empty where nothing is given; whole numbers have no `.0`."""
    return words_of(as_ids(cells).tolist())


def holds_numbers(name: str, cells: pd.Series) -> bool:
    """True for a column whose every cell is a number that counts something, or not given."""
    return _breaks(name, cells, strict=False) is not None


def _breaks(name: str, cells: pd.Series, strict: bool) -> npt.NDArray[np.bool_] | None:
    """Where a cell is no number in a column of numbers (rows,); None for another column.

    Args:
        name: of the column.
        cells: its cells.
        strict: whether most cells decide for all; else a single one that is no number makes all of them words.
    """
    if not (is_text(cells) or pd.api.types.is_numeric_dtype(cells.dtype)):
        return None
    words = as_ids(cells)
    missing = np.asarray(words.str.lower().isin(NO_NUMBER), dtype=bool)
    numbers = _flags_and_numbers(words)
    finite = np.isfinite(numbers)
    if missing.all() or _count_nothing(name, words[finite]):
        return None
    share = float(finite[~missing].mean())
    return ~finite & ~missing if share == 1 or (strict and share >= NUMERIC_FROM) else None


def _flags_and_numbers(words: pd.Series) -> npt.NDArray[np.float64]:
    """Numbers, and 1 and 0 for True and False, where a column holds no other words."""
    small = words.str.lower()
    flags = small.isin(("true", "false"))
    if flags.any() and (flags | small.isin(NO_NUMBER)).all():
        return np.where(flags, (small == "true").astype(float), np.nan)
    return as_numbers(words)


def _count_nothing(name: str, numbers: pd.Series) -> bool:
    """True for whole numbers that are codes: by the name of the column, or by leading zeros."""
    whole = bool(numbers.str.fullmatch(r"-?\d+(\.0*)?").all())
    named = bool(CODES.intersection(name_parts(name))) or noun_of(name) in ATTRIBUTES
    return whole and (named or bool(numbers.str.fullmatch(r"0\d+").any()))


def _column(name: str, cells: pd.Series, numeric: bool, kind: str) -> Column:
    if numeric:
        words = words_of(as_ids(cells).tolist())
        found = _flags_and_numbers(as_ids(cells))
        return Column(name, "numbers", words, [], np.where(np.isfinite(found), found, np.nan))
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        words = plain_words(cells)
        return Column(name, "dates", words, split_labels(words, None))
    lists = lists_of(cells)
    if kind == "float_seq" or (lists is not None and are_vectors(lists)):
        return Column(name, "vectors", [""] * len(cells), [])
    if lists is not None:
        labels = labels_of(lists)
        return Column(name, "labels" if any(labels) else "empty", ["|".join(own) for own in labels], labels)
    words = plain_words(cells)
    filled = [word for word in words if word]
    if not filled:
        return Column(name, "empty", words, [])
    if sum(bool(_DATE.match(word)) for word in filled) >= NUMERIC_FROM * len(filled):
        return Column(name, "dates", words, split_labels(words, None))
    separator = separator_of(name, words, at_blanks=kind == "token_seq")
    labels = split_labels(words, separator)
    if separator is not None:
        return Column(name, "labels", ["|".join(own) for own in labels], labels)
    spoken = sum(map(is_wordy, filled))
    return Column(name, "words" if spoken > 0.5 * len(filled) else "codes", words, labels)
