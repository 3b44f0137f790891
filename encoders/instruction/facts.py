"""What can be said of items when one asks for them: attributes, years, titles, telling words, likeness."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph

Ints = npt.NDArray[np.int64]
Fact = tuple[str, str]
"""A kind and a value: ("director", "Ridley Scott"), ("decade", "1990s"). Further kinds are the graph's relations."""

CATEGORY, DECADE, YEAR, TITLE, WORDS, ALIKE = "category", "decade", "year", "title", "words", "alike"
WHOLE = (TITLE, WORDS, ALIKE)
"""Kinds that ask for one item, or for what is like it, and go with no other fact."""
_COMMON = 0.8
"""A fact that more items than this share is no wish: it tells nothing apart."""
_TELLING = 3
_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_WORD = re.compile(r"[a-z][a-z'-]{3,}")


@dataclass(frozen=True)
class ItemFacts:
    """What is known of N items, each fact with the items that it holds for.

    Args:
        titles: what a person reads, (N,).
        noun: what an item is called ("film"); empty where nobody knows.
        holders: fact -> int64 rising rows of its items, one or more.
    """

    titles: tuple[str, ...]
    noun: str
    holders: Mapping[Fact, Ints]

    def fitting(self, facts: Iterable[Fact]) -> Ints:
        """Rising rows of the items for which all of the facts hold."""
        rows = np.arange(len(self.titles), dtype=np.int64)
        for fact in facts:
            rows = np.intersect1d(rows, self.holders[fact], assume_unique=True)
        return rows

    @cached_property
    def of_item(self) -> tuple[tuple[Fact, ...], ...]:
        """The facts to ask for each item by, (N,): its attributes, title and words.

        What it is like is not among them: see `alike`.
        """
        found: list[list[Fact]] = [[] for _ in self.titles]
        for fact, rows in self.holders.items():
            if fact[0] == ALIKE or len(rows) > _COMMON * len(self.titles):
                continue
            for row in rows.tolist():
                found[row].append(fact)
        return tuple(tuple(sorted(facts)) for facts in found)

    def alike(self, row: int) -> Fact | None:
        """The fact "something like item `row`", or None where nothing is known to be."""
        fact = (ALIKE, plain_title(self.titles[row]))
        return fact if fact in self.holders else None

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of attributes there are: what describes an item beside its texts."""
        return tuple(sorted({kind for kind, _ in self.holders} - set(WHOLE)))


def item_facts(
    titles: Sequence[str],
    texts: Sequence[str],
    knowledge: KnowledgeGraph | None = None,
    entities: Sequence[str | None] | None = None,
    categories: Sequence[str | None] | None = None,
    neighbours: Ints | None = None,
) -> ItemFacts:
    """Collect what can be said of N items.

    Args:
        titles: with the year in brackets at the end where there is one: "Alien (1979)".
        texts: what the language model reads; the words that tell an item apart come from here.
        knowledge: triples; every relation of which a linked item is the head becomes a kind.
        entities: each item's entity, or None.
        categories: each item's category, or None.
        neighbours: int64 (N, A) items alike, -1 is empty; see `consumed_together`.

    Raises:
        EncoderError: where the columns differ in length.
    """
    for name, column in (("texts", texts), ("entities", entities), ("categories", categories)):
        if column is not None and len(column) != len(titles):
            raise EncoderError(f"{len(column)} {name} for {len(titles)} titles; give one an item")
    held: dict[Fact, set[int]] = defaultdict(set)
    for row, title in enumerate(titles):
        held[TITLE, plain_title(title)].add(row)
        year = _YEAR.search(title)
        if year:
            held[YEAR, year[1]].add(row)
            held[DECADE, f"{year[1][:3]}0s"].add(row)
    for row, category in enumerate(categories or ()):
        if category:
            held[CATEGORY, category].add(row)
    for row, words in enumerate(_telling_words(titles, texts)):
        if words:
            held[WORDS, ", ".join(words)].add(row)
    noun = ""
    if knowledge is not None and entities is not None:
        noun = _kind_of(entities)
        rows_of: dict[int, list[int]] = defaultdict(list)
        for row, entity in enumerate(knowledge.entity_rows(list(entities)).tolist()):
            if entity >= 0:
                rows_of[entity].append(row)
        for head, relation, tail in knowledge.triples.tolist():
            for row in rows_of.get(head, ()):
                held[knowledge.relations[relation], entity_name(knowledge.entities[tail])].add(row)
    for row, others in enumerate(neighbours.tolist() if neighbours is not None else ()):
        held[ALIKE, plain_title(titles[row])].update(other for other in others if other >= 0)
    holders = {fact: np.array(sorted(rows), dtype=np.int64) for fact, rows in sorted(held.items()) if rows}
    return ItemFacts(tuple(titles), noun, holders)


def consumed_together(items: Ints, offsets: Ints, catalogue_size: int, most: int = 10, fewest: int = 5) -> Ints:
    """Items that the same users consumed, by cosine of their users' lists.

    Args:
        items, offsets: users' consumption one after the other; user u's is `items[offsets[u]:offsets[u + 1]]`.
        catalogue_size: N.
        most: A, neighbours kept.
        fewest: users that two items must share.

    Returns:
        int64 (N, A) rows, the nearest first, -1 where there are no more.
    """
    from scipy.sparse import csr_array

    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ones = np.ones(len(items), dtype=np.float32)
    table = csr_array((ones, (items, users)), shape=(catalogue_size, len(offsets) - 1))
    table.data[:] = 1  # an item consumed twice counts once
    size = np.sqrt(np.maximum(table.sum(1), 1))
    found = np.full((catalogue_size, most), -1, dtype=np.int64)
    for start in range(0, catalogue_size, 1024):
        shared = (table[start : start + 1024] @ table.T).toarray()
        cosine = np.where(shared >= fewest, shared / (size[start : start + 1024, None] * size), 0.0)
        cosine[np.arange(len(cosine)), np.arange(start, start + len(cosine))] = 0.0
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :most]
        kept = np.take_along_axis(cosine, order, axis=1) > 0
        found[start : start + len(cosine), : order.shape[1]] = np.where(kept, order, -1)
    return found


def plain_title(title: str) -> str:
    """A title without its year.

    >>> plain_title("Alien (1979)"), plain_title("Heat")
    ('Alien', 'Heat')
    """
    return _YEAR.sub("", title)


def entity_name(entity: str) -> str:
    """What a person calls an entity.

    >>> entity_name("person:Ridley Scott"), entity_name("http://dbpedia.org/resource/Ridley_Scott")
    ('Ridley Scott', 'Ridley Scott')
    """
    local = entity.rsplit("/", 1)[-1] if "://" in entity else entity.split(":", 1)[-1]
    return local.replace("_", " ").strip() or entity


def _kind_of(entities: Sequence[str | None]) -> str:
    """The prefix most items' entities share: "film" of "film:Alien (1979)"."""
    prefixes = Counter(name.split(":", 1)[0] for name in entities if name and ":" in name and "://" not in name)
    return prefixes.most_common(1)[0][0] if prefixes else ""


def _telling_words(titles: Sequence[str], texts: Sequence[str]) -> list[list[str]]:
    """Of each text the words that few other texts hold, the rarest shared ones; none from the title."""
    words = [set(_WORD.findall(text.lower())) for text in texts]
    counts = Counter(word for own in words for word in own)
    found = []
    for title, own in zip(titles, words, strict=True):
        named = set(_WORD.findall(title.lower()))
        # A word of one text alone is mostly a name or a slip; one of many tells nothing.
        known = [word for word in own - named if 2 <= counts[word] <= max(2, 0.02 * len(texts))]
        found.append(sorted(known, key=lambda word: (-_weight(counts[word], word), word))[:_TELLING])
    return [own if len(own) == _TELLING else [] for own in found]


def _weight(count: int, word: str) -> float:
    """Rare and long words tell most."""
    return len(word) / math.log2(2 + count)
