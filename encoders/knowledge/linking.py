"""Items linked to the entities of a knowledge graph by title and year, with the reason for each."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph

Shared = Literal["equal", "best", "all"]
REASONS = {
    "title and year": 1.0,
    "other title and year": 0.95,
    "title, a year apart": 0.9,
    "title, no year": 0.85,
    "near title and year": 0.8,
}
"""How an item is linked, the surest first, and its score; that of a near title is times its similarity."""
_COMPARED = 8
"""Titles that are compared letter by letter: those most alike by 3-grams."""
YEAR_RELATIONS = (
    "year", "release year", "publication date", "release date", "releaseDate", "datePublished", "P577", "date",
)  # fmt: skip
"""Relations whose tail tells an entity's year."""
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


@dataclass(frozen=True)
class Links:
    """Which entity each of N items is.

    Args:
        rows: int64 (N,) positions among the entities; -1 where an item is not linked.
        scores: float32 (N,) in [0, 1]; 0 where an item is not linked.
        reasons: (N,) how an item was linked (of `REASONS`), or why not: `ambiguous`, `missing`, `no title`, `taken`
            (another item fits that entity better).
        candidates: of ambiguous items, the entities that fit equally; of a taken one, the entity.
        shared: entities that several items were linked to, or claimed, and those items.
    """

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    reasons: tuple[str, ...]
    candidates: Mapping[int, tuple[int, ...]]
    shared: Mapping[int, tuple[int, ...]]

    @property
    def matched(self) -> tuple[int, ...]:
        """Items that are linked."""
        return tuple(np.flatnonzero(self.rows >= 0).tolist())

    def items(self, *reasons: str) -> tuple[int, ...]:
        """Items with one of these reasons."""
        return tuple(item for item, reason in enumerate(self.reasons) if reason in reasons)

    @property
    def ambiguous(self) -> tuple[int, ...]:
        """Items that several entities fit equally."""
        return self.items("ambiguous")

    @property
    def missing(self) -> tuple[int, ...]:
        """Items that no entity fits, or whose entity another item took."""
        return self.items("missing", "no title", "taken")

    def as_dict(self) -> dict[str, Any]:
        """Counts, for JSON."""
        counts = Counter(self.reasons)
        return {
            "items": len(self.rows),
            "linked": len(self.matched),
            "entities_shared": len(self.shared),
            "reasons": {reason: counts[reason] for reason in (*REASONS, *sorted(set(counts) - set(REASONS)))},
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in self.as_dict()["reasons"].items() if count)
        return f"{len(self.matched):,} of {len(self.rows):,} items are linked ({counts})"


def link_items(
    titles: Sequence[str | None],
    entity_names: Sequence[str],
    years: Sequence[object] | None = None,
    entity_years: Mapping[int, int] | None = None,
    *,
    shared: Shared = "equal",
    year_tolerance: int = 1,
    least_similarity: float = 0.85,
    least_margin: float = 0.1,
) -> Links:
    """Link N items to entities, each by the surest of `REASONS` that gives it any.

    Titles are compared less case, accents, punctuation, brackets, roman digits and the place of the article; names in
    brackets ("Postino, Il (The Postman)", "(a.k.a. ...)") are titles of their own. Where the entities that share title
    and year with an item are of one kind (`film:`), entities of other kinds count for nothing. Near titles are those
    of one year whose character 3-grams are similar (cosine of tf-idf), judged by the share of letters they have in
    common and in order (`difflib`); numbers in them must be equal.

    Args:
        titles: (N,) with the year behind in brackets, or without.
        entity_names: (E,) names, with a kind before them (`film:Heat (1995)`) or without.
        years: (N,) numbers or text; None, or what is no year, leaves it to the title.
        entity_years: years of entities by row, where their names do not tell.
        shared: what becomes of items that claim one entity: `equal` links those that fit it best and as well as each
            other (a film listed twice), `best` the first of them alone, `all` every one.
        year_tolerance: how far years may lie apart where the titles are the same.
        least_similarity: of near titles, in (0, 1].
        least_margin: by which the nearest title must lead the second.

    Raises:
        EncoderError: for `years` of another length, an unknown `shared`, or a similarity out of its range.
    """
    if years is not None and len(years) != len(titles):
        raise EncoderError(f"{len(titles)} titles and {len(years)} years; give as many years, None where unknown")
    if shared not in ("equal", "best", "all"):
        raise EncoderError(f"shared='{shared}' is unknown; use 'equal', 'best' or 'all'")
    if not 0 < least_similarity <= 1:
        raise EncoderError(f"least_similarity={least_similarity} must lie above 0 and at most at 1")
    known = [_title(text, None if years is None else years[i]) for i, text in enumerate(titles)]
    dates = entity_years or {}
    index = _Index([title_of(name, dates.get(row)) for row, name in enumerate(entity_names)], known)
    found = [_Found(reason="no title") if title is None else index.find(title, year_tolerance) for title in known]
    _find_near(found, known, index, least_similarity, least_margin)
    return _links(found, shared)


def years_of(graph: KnowledgeGraph, relations: Iterable[str] = YEAR_RELATIONS) -> dict[int, int]:
    """The year of every entity that a relation tells it of, by row; the earliest of several."""
    rows = [row for row, name in enumerate(graph.relations) if name in set(relations)]
    years: dict[int, int] = {}
    for head, _, tail in graph.triples[np.isin(graph.triples[:, 1], rows)].tolist():
        year = year_of(graph.entities[tail])
        if year is not None:
            years[head] = min(year, years.get(head, year))
    return years


@dataclass
class _Found:
    """What an item was found to be: entities that fit equally, how, and how well."""

    entities: tuple[int, ...] = ()
    reason: str = "missing"
    score: float = 0.0


def _title(text: object, year: object) -> Title | None:
    if not isinstance(text, str) or not text.strip():
        return None
    title = title_of(text, year)
    return title if title.full else None


class _Index:
    """Entities by key and year."""

    def __init__(self, entities: list[Title], items: list[Title | None]) -> None:
        self.entities = entities
        self.full: dict[tuple[str, int | None], list[int]] = defaultdict(list)
        for row, title in enumerate(entities):
            if title.full:
                self.full[title.full, title.year].append(row)
        self._keep_kinds(items)
        self.any: dict[tuple[str, int | None], list[int]] = defaultdict(list)
        self.by_year: dict[int | None, list[int]] = defaultdict(list)
        self.undated: dict[str, list[int]] = defaultdict(list)
        for rows in self.full.values():
            for row in rows:
                title = entities[row]
                self.by_year[title.year].append(row)
                for key in title.keys:
                    self.any[key, title.year].append(row)
                    self.undated[key].append(row)

    def _keep_kinds(self, items: list[Title | None]) -> None:
        """Leave out entities of kinds that are not those of the items, as told by title and year.

        Where no kind tells people from films, an entity without a year counts only if none has one.
        """
        dated = [(title.full, title.year) for title in items if title is not None and title.year is not None]
        kinds = Counter(self.entities[row].kind for key in dated for row in self.full.get(key, ()))
        kept = {kind for kind, count in kinds.items() if count * 20 >= kinds.total()}
        if not kept:
            return
        for (key, year), rows in list(self.full.items()):
            self.full[key, year] = [
                row for row in rows if (kind := self.entities[row].kind) in kept and (kind or year is not None)
            ]

    def find(self, title: Title, year_tolerance: int) -> _Found:
        """The entities that fit by the surest reason that gives any."""
        ways: list[tuple[str, Iterable[int]]]
        if title.year is not None:
            ways = [
                ("title and year", self.full.get((title.full, title.year), ())),
                ("other title and year", self._rows(title.keys, title.year)),
            ]
            for apart in range(1, year_tolerance + 1):
                near = [title.year - apart, title.year + apart]
                ways.append(("title, a year apart", [row for y in near for row in self.full.get((title.full, y), ())]))
            ways.append(("title, no year", self._rows(title.keys, None)))
        else:
            ways = [
                ("title, no year", self.undated.get(title.full, ())),
                ("title, no year", [row for key in title.others for row in self.undated.get(key, ())]),
            ]
        for reason, rows in ways:
            fitting = tuple(dict.fromkeys(rows))
            if fitting:
                return _Found(fitting, reason if len(fitting) == 1 else "ambiguous", REASONS[reason])
        return _Found()

    def _rows(self, keys: Iterable[str], year: int | None) -> list[int]:
        return [row for key in keys for row in self.any.get((key, year), ())]


def _find_near(found: list[_Found], items: list[Title | None], index: _Index, least: float, margin: float) -> None:
    """Give items that nothing fits the near title of their year, in place."""
    waiting: dict[int, list[tuple[int, Title]]] = defaultdict(list)
    for item, title in enumerate(items):
        if title is not None and title.year in index.by_year and title.year is not None and not found[item].entities:
            waiting[title.year].append((item, title))
    if not waiting:
        return
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to load

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), lowercase=False)
    grams.fit([index.entities[row].full for rows in index.by_year.values() for row in rows])
    for year, mine in waiting.items():
        keys = [(row, key) for row in index.by_year[year] for key in index.entities[row].keys]
        own = [(item, key) for item, title in mine for key in title.keys]
        alike = (grams.transform([key for _, key in keys]) @ grams.transform([key for _, key in own]).T).toarray()
        near: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for column, (item, written) in enumerate(own):
            judge = SequenceMatcher(b=written, autojunk=False)
            for place in np.argsort(-alike[:, column], kind="stable")[:_COMPARED].tolist():
                row, key = keys[place]
                if alike[place, column] > 0 and digits(key) == digits(written):
                    judge.set_seq1(key)
                    near[item][row] = max(judge.ratio(), near[item][row])
        for item, similar in near.items():
            found[item] = _nearest(similar, least, margin)


def _nearest(similar: Mapping[int, float], least: float, margin: float) -> _Found:
    """The entity (by row: its similarity) that leads the others by the margin."""
    top = max(similar.values(), default=0.0)
    if top < least:
        return _Found()
    close = tuple(row for row, value in similar.items() if value > top - margin)
    reason = "near title and year"
    return _Found(close, reason if len(close) == 1 else "ambiguous", REASONS[reason] * top)


def _links(found: list[_Found], shared: Shared) -> Links:
    """Settle what several items claim."""
    claims: dict[int, list[int]] = defaultdict(list)
    for item, one in enumerate(found):
        if one.reason in REASONS:
            claims[one.entities[0]].append(item)
    reasons = [one.reason for one in found]
    for items in claims.values():
        best = max(found[item].score for item in items)
        winners = [item for item in items if shared == "all" or found[item].score == best]
        for item in set(items) - set(winners[:1] if shared == "best" else winners):
            reasons[item] = "taken"
    linked = [reason in REASONS for reason in reasons]
    return Links(
        rows=np.array([one.entities[0] if ok else -1 for one, ok in zip(found, linked, strict=True)], dtype=np.int64),
        scores=np.array([one.score if ok else 0.0 for one, ok in zip(found, linked, strict=True)], dtype=np.float32),
        reasons=tuple(reasons),
        candidates={i: found[i].entities for i, reason in enumerate(reasons) if reason in ("ambiguous", "taken")},
        shared={entity: tuple(items) for entity, items in claims.items() if len(items) > 1},
    )


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
