"""What a language model and a person read of an item: a text and a title, from any set of columns."""

import re
from collections.abc import Mapping, Sequence

from recloop.envs.logs.readers.columns.labels import LONG, name_parts, noun_of

_YEAR = re.compile(r"\((\d{4})\)\s*$")
_YEAR_CELL = re.compile(r"(1\d{3}|20\d{2})(\.0*|-\d\d.*)?$")
_ARTICLE = re.compile(r"^(.+), (The|A|An)(?=$| \()")
_GENRES = ("class", "genre")
_TITLED = ("category", "tag", "keyword")


def titles(ids: Sequence[str], names: Sequence[str], years: Sequence[str]) -> list[str]:
    """What a person reads, one an item: title (year); the item's id where it has no title.

    >>> titles(["7", "8", "9"], ["Matrix, The", "", "Heat"], ["1999", "", ""])
    ['The Matrix (1999)', '8', 'Heat']
    """
    heads = [article_first(name) for name in names]
    return [
        f"{name} ({when})" if name and when and not _YEAR.search(name) else name or own
        for name, when, own in zip(heads, years, ids, strict=True)
    ]


def article_first(title: str) -> str:
    """An English title with its article in front.

    >>> article_first("Matrix, The (1999)"), article_first("Heat (1995)")
    ('The Matrix (1999)', 'Heat (1995)')
    """
    return _ARTICLE.sub(r"\2 \1", title)


def year_of(cell: str) -> str:
    """The year in a cell of a column of years; empty where there is none.

    >>> year_of("1990"), year_of("1990.0"), year_of("1990-03-17"), year_of("0"), year_of("90s")
    ('1990', '1990', '1990', '', '')
    """
    found = _YEAR_CELL.match(cell)
    return found[1] if found else ""


def texts(heads: Sequence[str], columns: Mapping[str, Sequence[str | tuple[str, ...]]]) -> list[str]:
    """What the language model reads, one an item: the title, then every column as a sentence.

    Labels become "Genres: Animation, Comedy."; short cells "Brand: Acme."; running text stands as it is. What is
    empty leaves nothing behind.

    >>> texts(["Glory (1989)"], {"class": [("Drama", "War")], "brand_name": ["Acme"], "overview": [""]})
    ['Glory (1989). Genres: Drama, War. Brand: Acme.']
    """
    parts = [[_sentence(head) for head in heads]]
    for column, cells in columns.items():
        words = [", ".join(cell) if isinstance(cell, tuple) else cell for cell in cells]
        filled = [cell for cell in words if cell]
        running = sum(len(cell.split()) for cell in filled) >= LONG * max(len(filled), 1)
        lists = any(isinstance(cell, tuple) for cell in cells)
        name = "" if running and not lists else f"{spoken(column)}: "
        parts.append([_sentence(f"{name}{cell}") if cell else "" for cell in words])
    return [" ".join(filter(None, own)) for own in zip(*parts, strict=True)]


def spoken(column: str) -> str:
    """How a text calls a column.

    >>> spoken("movie_genres"), spoken("brand_name"), spoken("video_type"), spoken("tags")
    ('Genres', 'Brand', 'Video type', 'Tags')
    """
    noun, parts = noun_of(column), name_parts(column) or [column]
    if noun in _GENRES:
        return "Genres"
    if noun in _TITLED and parts[-1] not in ("name", "id"):
        return parts[-1].capitalize()
    return " ".join(parts[:-1] if len(parts) > 1 and parts[-1] == "name" else parts).capitalize()


def _sentence(words: str) -> str:
    return words if not words or words[-1] in ".!?…\"'" else f"{words}."
