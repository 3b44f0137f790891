"""Titles as keys: what two catalogues that write one title in two ways have in common."""

import math
import re
import unicodedata
from dataclasses import dataclass

_YEAR_IN_BRACKETS = re.compile(r"\(((?:1[89]|20)\d{2})(?: [a-z ]+)?\)$", re.IGNORECASE)
_MEDIUM = re.compile(r"\s*\((?:V|TV|VG|film|movie|TV series|video)\)$", re.IGNORECASE)
_BRACKETS = re.compile(r"\(([^()]*)\)")
_ALSO_KNOWN = re.compile(r"^(?:a\.?\s?k\.?\s?a\.?|aka|also known as)\s+", re.IGNORECASE)
_KIND = re.compile(r"^([a-z_]{2,}):(?=\S)")
_ARTICLES = "the a an il lo la le les l i gli un une uno una das der die ein eine el los las het de den det os o as"
_LAST_ARTICLE = re.compile(rf"^(.+), ({'|'.join(_ARTICLES.split())}|l')$", re.IGNORECASE)
_FIRST_ARTICLE = re.compile(r"^(?:the|an?) (?=.)")
_ROMANS = ("ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii")
_ROMAN = {name: str(number) for number, name in enumerate(_ROMANS, start=2)}
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "&": " and ", "_": " "})


@dataclass(frozen=True)
class Title:
    """A title as keys, the surest first.

    Args:
        kind: what stood before it, as in `film:Heat (1995)`; empty where nothing did.
        year: of appearance, or None.
        full: the title as a key, article included.
        others: further keys: less its article, and each name in brackets, with and less its article.
    """

    kind: str
    year: int | None
    full: str
    others: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """All of them."""
        return (self.full, *self.others)


def title_of(text: str, year: object = None) -> Title:
    """The keys of a title; `year` overrules the one in its brackets.

    >>> title_of("film:Postino, Il (The Postman) (1994)")
    Title(kind='film', year=1994, full='il postino', others=('the postman', 'postman'))
    >>> title_of("Shawshank Redemption, The", 1994).full == title_of("The Shawshank Redemption (1994)").full
    True
    """
    kind = _KIND.match(text)
    words = " ".join(text[kind.end() if kind else 0 :].replace("_", " ").split())
    words = _MEDIUM.sub("", words)
    dated = _YEAR_IN_BRACKETS.search(words)
    own = int(dated[1]) if dated else None
    words = words[: dated.start()].strip() if dated else words
    full = title_key(_BRACKETS.sub(" ", words)) or title_key(words)
    names = [full, *(title_key(_ALSO_KNOWN.sub("", name.strip())) for name in _BRACKETS.findall(words))]
    keys = dict.fromkeys(form for name in names for form in (name, _FIRST_ARTICLE.sub("", name)) if form)
    keys.pop(full, None)
    given = year_of(year)
    return Title(kind[1] if kind else "", own if given is None else given, full, tuple(keys))


def title_key(text: str) -> str:
    """A title less case, accents, punctuation, roman digits and the place of its article.

    >>> title_key("Misérables, Les"), title_key("Rocky III"), title_key("Truth About Cats & Dogs, The")
    ('les miserables', 'rocky 3', 'the truth about cats and dogs')
    """
    words = _LAST_ARTICLE.sub(r"\2 \1", " ".join(text.split()).strip(" .,;:"))
    plain = unicodedata.normalize("NFKD", words.casefold().translate(_LETTERS))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    parts = re.sub(r"[^\w\s]", " ", re.sub(r"['’`´.]", "", plain)).split()
    return " ".join([*parts[:1], *(_ROMAN.get(part, part) for part in parts[1:])])


def year_of(value: object) -> int | None:
    """A year as a number; None for what is none, such as NaN, an empty cell or `unknown`.

    >>> year_of("1995"), year_of(1995.0), year_of("1995-12-15"), year_of(float("nan")), year_of("V")
    (1995, 1995, 1995, None, None)
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    found = re.match(r"\s*(\d{4})(?!\d)", str(value))
    return int(found[1]) if found else None


def digits(key: str) -> tuple[str, ...]:
    """The numbers in a key: two parts of a series differ in nothing else."""
    return tuple(re.findall(r"\d+", key))
