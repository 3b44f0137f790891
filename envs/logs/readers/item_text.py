"""What a language model and a person read of an item: a text and a title, from any set of columns."""

import re
from collections.abc import Sequence

import pandas as pd

LABELS = ("class", "genre", "genres", "category", "categories", "tags", "keywords")
"""Column names, less any prefix up to a dot or underscore, that hold labels rather than running words."""
LONG = 12
"""Mean number of words from which on a column is running text and goes without its name."""
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_ARTICLE = re.compile(r"^(.+), (The|A|An)(?=$| \()")


def is_title(column: str) -> bool:
    """True for a column that names the item."""
    return column.lower().endswith(("title", "name"))


def is_year(column: str) -> bool:
    """True for a column that holds the year the item appeared in."""
    return column.lower() in ("year", "release_year", "movie_year")


def titles(table: pd.DataFrame, title: str | None, year: str | None) -> pd.Series:
    """What a person reads, one an item: title (year); the item's id where it has no title.

    >>> table = pd.DataFrame({"t": ["Matrix, The", ""], "y": ["1999", ""]}, index=["7", "8"])
    >>> titles(table, "t", "y").tolist()
    ['The Matrix (1999)', '8']
    """
    ids = [str(name) for name in table.index]
    names = [""] * len(ids) if title is None else [article_first(" ".join(name.split())) for name in table[title]]
    years = [""] * len(ids) if year is None else [value.strip() for value in table[year]]
    full = [
        f"{name} ({when})" if name and re.fullmatch(r"\d{4}", when) and not _YEAR.search(name) else name or own
        for name, when, own in zip(names, years, ids, strict=True)
    ]
    return pd.Series(full, index=table.index, dtype="str")


def article_first(title: str) -> str:
    """An English title with its article in front.

    >>> article_first("Matrix, The (1999)"), article_first("Heat (1995)")
    ('The Matrix (1999)', 'Heat (1995)')
    """
    return _ARTICLE.sub(r"\2 \1", title)


def texts(table: pd.DataFrame, heads: pd.Series, columns: Sequence[str], separator: str = " ") -> pd.Series:
    """What the language model reads, one an item: the title, then every column of `columns` as a sentence.

    Columns of labels (`LABELS`) become "Genres: Animation, Comedy."; short columns "Brand: Acme."; running
    text stands as it is. Empty cells leave nothing behind.

    >>> table = pd.DataFrame({"class": ["Drama War"], "overview": [""]}, index=["1"])
    >>> texts(table, pd.Series(["Glory (1989)"]), ["class", "overview"]).tolist()
    ['Glory (1989). Genres: Drama, War.']
    """
    parts = [[_sentence(head) for head in heads]]
    for column in columns:
        cells = [" ".join(cell.split()) for cell in table[column]]
        parts.append(_column_sentences(column, cells, separator))
    return pd.Series([" ".join(filter(None, own)) for own in zip(*parts, strict=True)], index=table.index, dtype="str")


def _column_sentences(column: str, cells: list[str], separator: str) -> list[str]:
    label = re.split(r"[._]", column.lower())[-1]
    if label in LABELS:
        name = "Genres" if label in ("class", "genre", "genres") else label.capitalize()
        lists = [", ".join(filter(None, cell.split(separator))) for cell in cells]
        return [_sentence(f"{name}: {words}") if words else "" for words in lists]
    filled = [cell for cell in cells if cell]
    running = bool(filled) and sum(len(cell.split()) for cell in filled) / len(filled) >= LONG
    if running:
        return [_sentence(cell) for cell in cells]
    name = column.replace("_", " ").capitalize()
    return [_sentence(f"{name}: {cell}") if cell else "" for cell in cells]


def _sentence(words: str) -> str:
    return words if not words or words[-1] in ".!?…\"'" else f"{words}."
