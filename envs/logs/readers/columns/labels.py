"""Cells of attribute columns: what is not given, lists of labels in whatever form they are written."""

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recloop.envs.logs.readers.columns.cells import NULL_WORDS

NOT_GIVEN = frozenset(("", *NULL_WORDS, "n/a", "unknown", "undefined", "not available", "(no genres listed)"))
"""Cells, in small letters, that say that nothing is known."""
NO_NUMBER = NOT_GIVEN | {"na", "-", "--", "?", ".", "missing"}
"""The same in a column of numbers, where a few more cannot be mistaken for a word."""
LISTS = ("genre", "category", "class", "tag", "keyword", "topic", "subject", "theme", "label")
"""What columns of labels are called, in the singular; an item may have several."""
MOST_WORDS = 4
"""Mean number of words up to which the parts of a cell are labels; above, they are parts of a sentence."""
LONG = 12
"""Mean number of words from which on a column is running text."""

Labels = list[tuple[str, ...]]
LIST = re.compile(r"^(\[.*\]|\(.*\))$", re.DOTALL)
_NUMPY_LIST = re.compile(r"""['"]\s+['"]""")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")


def name_parts(column: str) -> list[str]:
    """The words of a column's name, in small letters.

    >>> name_parts("movieTitle"), name_parts("Book-Author"), name_parts("category_names")
    (['movie', 'title'], ['book', 'author'], ['category', 'names'])
    """
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column).lower())


def noun_of(column: str) -> str:
    """What a column holds one or several of, in the singular.

    >>> noun_of("sub_categories"), noun_of("brand_name"), noun_of("class")
    ('category', 'brand', 'class')
    """
    parts = name_parts(column) or [column]
    if len(parts) > 1 and parts[-1] in ("name", "names", "id", "ids"):
        parts.pop()
    word = parts[-1]
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def words_of(cells: Iterable[str]) -> list[str]:
    """Cells with single blanks; empty where nothing is given (`NOT_GIVEN`)."""
    plain = (" ".join(cell.split()) for cell in cells)
    return [cell if is_given(cell) else "" for cell in plain]


def is_given(cell: str) -> bool:
    """False for a cell that says that nothing is known. "none" in small letters is an answer, "None" is Python's gap.

    >>> [is_given(cell) for cell in ("none", "None", "unknown", "\\\\N", "")]
    [True, False, False, False, False]
    """
    return cell == "none" or cell.lower() not in NOT_GIVEN


def lists_of(cells: pd.Series) -> list[list[Any]] | None:
    """The elements of each cell where most cells are lists, as Python's or as text; else None.

    Text is understood as Python, JSON and NumPy write it. Another cell is a list of itself, an empty one has none.

    >>> lists_of(pd.Series(["['War', 'Drama']", '["War"]', "Drama", "", "[]"]))
    [['War', 'Drama'], ['War'], ['Drama'], [], []]
    """
    if holds_lists(cells):
        return [_elements(cell) for cell in cells]
    if isinstance(cells.dtype, pd.StringDtype):
        text = [str(cell).strip() for cell in cells]
        filled = [cell for cell in text if cell.lower() not in NOT_GIVEN]
        if not filled or sum(bool(LIST.match(cell)) for cell in filled) < 0.75 * len(filled):
            return None
        read = [listed(cell) for cell in text]
        return [([cell] if cell else []) if own is None else own for own, cell in zip(read, text, strict=True)]
    return None


def holds_lists(cells: pd.Series) -> bool:
    """True for a column of Python's lists."""
    return cells.dtype == object and any(isinstance(cell, (list, tuple, set, np.ndarray)) for cell in cells)


def labels_of(lists: Iterable[Iterable[object]]) -> Labels:
    """The labels of each list, each once and in order; what is not given is left out.

    Of a record, its name counts: `{"id": 18, "name": "Drama"}` is "Drama".
    """
    return [tuple(dict.fromkeys(filter(None, words_of(_label(part) for part in own)))) for own in lists]


def are_vectors(lists: Sequence[Sequence[object]]) -> bool:
    """True where the elements are numbers and not all of them whole."""
    parts = [part for own in lists for part in own]
    numbers = [part for part in parts if isinstance(part, (int, float, np.number)) and not isinstance(part, bool)]
    return bool(parts) and len(numbers) == len(parts) and any(float(part) % 1 for part in numbers)


def separator_of(column: str, words: Sequence[str], at_blanks: bool = False) -> str | None:
    """What the labels of a cell are separated by; None where a cell is one label, or no label at all.

    A bar, a semicolon or a comma separates labels where the parts are short. A comma must also stand in a column
    called a list (`genres`), or its parts must come back in other company: "Clothing, Shoes & Jewelry" is one label.

    Args:
        column: its name.
        words: its cells.
        at_blanks: whether blanks may separate labels, where nothing else does.
    """
    several = noun_of(column) in LISTS
    plural = name_parts(column)[-1:] != [noun_of(column)] or noun_of(column) == "class"
    different = sorted(set(filter(None, words)))
    for separator in ("|", ";", ","):
        parts = {cell: _parts(cell, separator) for cell in different}
        many = {cell: own for cell, own in parts.items() if len(own) > 1}
        inside = [part for own in many.values() for part in own]
        if not inside or sum(len(part.split()) for part in inside) > MOST_WORDS * len(inside):
            continue
        if several and (plural or separator != ","):
            return separator
        if len(many) < 0.2 * len(different) or (separator == "," and not (several or plural)):
            continue
        company = Counter(part for own in parts.values() for part in own)
        if separator == "|" or sum(company[part] > 1 for part in set(inside)) >= 0.5 * len(set(inside)):
            return separator
    if at_blanks and different:
        tokens = [token for cell in words for token in cell.split()]
        short = len(tokens) < LONG * sum(map(bool, words))
        if several or (short and len(set(tokens)) <= 0.5 * len(tokens)):
            return " "
    return None


def split_labels(words: Iterable[str], separator: str | None) -> Labels:
    """The labels of each cell: its parts, or itself where there is no separator."""
    return labels_of(_parts(cell, separator) for cell in words)


def _parts(cell: str, separator: str | None) -> list[str]:
    return [part for part in map(str.strip, cell.split(separator) if separator else [cell]) if part]


def listed(cell: str) -> list[Any] | None:
    """A list as Python, JSON or NumPy write it; None where it is none.

    >>> listed("['a', 'b']"), listed('["a"]'), listed("['a b' 'c']"), listed("[1 2]"), listed("x")
    (['a', 'b'], ['a'], ['a b', 'c'], ['1', '2'], None)
    """
    cell = cell.strip()
    if not LIST.match(cell):
        return None
    if _NUMPY_LIST.search(cell):
        return [first or second for first, second in _QUOTED.findall(cell)]
    for parse in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd escapes in what is read as Python
                return _elements(parse(cell))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return [part for part in re.split(r"[\s,'\"]+", cell[1:-1]) if part]


def _elements(cell: object) -> list[Any]:
    if isinstance(cell, set):
        return sorted(cell, key=str)
    if isinstance(cell, (list, tuple, np.ndarray)):
        return list(cell)
    return [] if cell is None or cell is pd.NA or cell != cell else [cell]


def _label(part: object) -> str:
    if isinstance(part, dict):
        named = {str(key).lower(): value for key, value in part.items()}
        part = next((named[key] for key in ("name", "title", "label") if key in named), "")
    if part is None or part is pd.NA or part != part:
        return ""
    return str(int(part)) if isinstance(part, (float, np.floating)) and float(part).is_integer() else str(part)
