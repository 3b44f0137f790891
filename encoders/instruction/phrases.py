"""How people ask for items: frames, phrases by kind of fact, and synonyms, as the pairs for training use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recloop.encoders.instruction.facts import ALIKE, DECADE, TITLE, WORDS, YEAR, Fact


@dataclass(frozen=True)
class PhraseBook:
    """The ways of asking.

    An instruction is a frame around "[before] noun [after]", as in "show me | a funny | film | from the nineties".

    Args:
        frames: around the whole; `{}` is what is asked for.
        nouns: what an item may be called, by the name it has in the graph; "" is for anything else.
        before: kind -> phrases in front of the noun; `{}` is the value.
        after: kind -> phrases behind it.
        other: behind the noun, for kinds that stand in neither; fields `kind` and `value`.
        whole: kind -> phrases instead of the noun.
        synonyms: value -> other words for it, used in `before` and `after`.
    """

    frames: tuple[str, ...]
    nouns: Mapping[str, tuple[str, ...]]
    before: Mapping[str, tuple[str, ...]]
    after: Mapping[str, tuple[str, ...]]
    other: tuple[str, ...]
    whole: Mapping[str, tuple[str, ...]]
    synonyms: Mapping[str, tuple[str, ...]]

    def phrase(self, facts: Sequence[Fact], noun: str, rng: np.random.Generator) -> str:
        """One instruction that asks for all of the facts, in words drawn by `rng`.

        >>> PLAIN.phrase([("genre", "Comedy"), ("decade", "1990s")], "film", np.random.default_rng(0))
        'a comedy film from the 1990s'
        """
        front: list[str] = []
        behind: list[str] = []
        what = _pick(self.nouns.get(noun, self.nouns[""]), rng)
        for kind, value in facts:
            word = _pick(self.synonyms.get(value, (value,)), rng)
            if kind in self.whole:
                return _pick(self.frames, rng).format(_pick(self.whole[kind], rng).format(value, noun=what))
            ways = [(front, way) for way in self.before.get(kind, ())]
            ways += [(behind, way) for way in self.after.get(kind, ())]
            if not ways:
                behind.append(_pick(self.other, rng).format(kind=kind.replace("_", " "), value=word))
                continue
            side, way = ways[int(rng.integers(len(ways)))]
            side.append(way.format(word))
        asked = " ".join([*front, what, *behind])
        article = "an" if asked[0].lower() in "aeiou" else "a"
        return _pick(self.frames, rng).format(f"{article} {asked}")

    def templates(self) -> frozenset[str]:
        """All of its phrases and synonyms, for telling two books apart; frames and nouns alike."""
        groups = (self.before, self.after, self.whole, self.synonyms)
        return (
            frozenset(self.frames)
            | {way for group in groups for ways in group.values() for way in ways}
            | set(self.other)
        )


TRAINING = PhraseBook(
    frames=("{}", "show me {}", "I want to see {}", "recommend {}", "find me {}", "I like {}"),
    nouns={"film": ("film", "movie"), "": ("item", "thing")},
    before={
        "genre": ("{}",),
        "category": ("{}",),
        "language": ("{}-language", "{} speaking"),
        YEAR: ("{}",),
        DECADE: ("{}",),
    },
    after={
        "genre": ("of the genre {}",),
        "director": ("directed by {}", "by the director {}", "by {}"),
        "actor": ("with {}", "starring {}", "with the actor {}"),
        "writer": ("written by {}", "by the writer {}"),
        "country": ("from {}", "produced in {}"),
        YEAR: ("from {}", "of the year {}"),
        DECADE: ("from the {}", "of the {}"),
    },
    other=("with {kind} {value}", "whose {kind} is {value}"),
    whole={
        TITLE: ("{}", "the {noun} {}", "{} please"),
        ALIKE: ("something like {}", "more like {}", "{noun}s similar to {}"),
        WORDS: ("a {noun} about {}", "{}"),
    },
    synonyms={
        "Comedy": ("comedy", "funny", "comic", "humorous"),
        "Horror": ("horror", "scary", "frightening"),
        "Drama": ("drama", "dramatic", "serious"),
        "Action": ("action", "action-packed"),
        "Thriller": ("thriller", "suspenseful", "thrilling"),
        "Romance": ("romance", "romantic", "love"),
        "Science Fiction": ("science fiction", "sci-fi", "space and future"),
        "Family": ("family", "family-friendly", "children's"),
        "Animation": ("animated", "animation", "cartoon"),
        "Crime": ("crime", "gangster", "criminal"),
        "Adventure": ("adventure", "adventurous"),
        "Fantasy": ("fantasy", "magical", "fantastic"),
        "War": ("war", "military", "soldiers'"),
        "Western": ("western", "cowboy"),
        "Music": ("music", "musical"),
        "Mystery": ("mystery", "mysterious", "detective"),
        "History": ("history", "historical"),
        "Documentary": ("documentary", "non-fiction"),
        "Foreign": ("foreign", "international"),
        **{
            f"{decade}s": (f"{decade}s", f"{decade % 100}s", words)
            for decade, words in zip(
                range(1920, 2000, 10),
                ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"),
                strict=True,
            )
        },
    },
)
"""What pairs for training are worded by."""

PLAIN = PhraseBook(
    frames=("{}",),
    nouns={"film": ("film",), "": ("item",)},
    before={"genre": ("{}",), "category": ("{}",)},
    after={
        "director": ("directed by {}",),
        "actor": ("with {}",),
        "writer": ("written by {}",),
        "country": ("from {}",),
        YEAR: ("from {}",),
        DECADE: ("from the {}",),
    },
    other=("with {kind} {value}",),
    whole={TITLE: ("{}",), ALIKE: ("something like {}",), WORDS: ("a {noun} about {}",)},
    synonyms={"Comedy": ("comedy",)},
)
"""One way of asking for each kind of fact: what simulated users' wishes are worded by."""


def _pick(ways: Sequence[str], rng: np.random.Generator) -> str:
    return ways[int(rng.integers(len(ways)))]
