"""Instructions with the items that they mean, generated from what is known of the items."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.instruction.facts import ALIKE, DECADE, WHOLE, YEAR, Fact, Ints, ItemFacts
from recloop.encoders.instruction.phrases import PhraseBook

_TOGETHER = 0.4
"""Share of the attribute instructions that ask for two facts at once."""


@dataclass(frozen=True)
class Instruction:
    """A text and what it means.

    Args:
        text: what the user says.
        facts: what must hold of an item.
        item: row of the item that it was made from.
        fitting: int64 rising rows of all items that satisfy it.
        named: row of an item that it names without meaning it ("something like ..."), or -1.
    """

    text: str
    facts: tuple[Fact, ...]
    item: int
    fitting: Ints
    named: int = -1

    @property
    def kind(self) -> str:
        """The kinds of its facts: "genre", "decade + genre"."""
        return " + ".join(sorted(kind for kind, _ in self.facts))


def draw_instructions(
    facts: ItemFacts, book: PhraseBook, items: Ints, count: int, rng: np.random.Generator
) -> list[Instruction]:
    """Draw `count` instructions, each about one of `items` (rows), every kind of fact as often as the others.

    Items are drawn evenly, then a kind among those the item has, then a fact of that kind; of the attributes, two
    in five come together with one of another kind.

    Raises:
        EncoderError: where nothing is known that one could ask for.
    """
    known = [item for item in items.tolist() if facts.of_item[item]]
    if not known:
        raise EncoderError(
            f"nothing is known of {len(items)} items that one could ask for: no attributes, years or telling words; "
            "build without an instruction encoder"
        )
    found: list[Instruction] = []
    while len(found) < count:
        item = known[int(rng.integers(len(known)))]
        own = _by_kind(facts, item)
        kinds = sorted(own)
        kind = kinds[int(rng.integers(len(kinds)))]
        chosen = [own[kind][int(rng.integers(len(own[kind])))]]
        apart = (*WHOLE, kind, *({DECADE, YEAR} if kind in (DECADE, YEAR) else ()))
        others = [name for name in kinds if name not in apart]
        if kind not in WHOLE and others and rng.random() < _TOGETHER:
            more = own[others[int(rng.integers(len(others)))]]
            chosen.append(more[int(rng.integers(len(more)))])
        text = book.phrase(chosen, facts.noun, rng)
        named = item if kind == ALIKE else -1
        found.append(Instruction(text, tuple(chosen), item, facts.fitting(chosen), named))
    return found


def _by_kind(facts: ItemFacts, item: int) -> dict[str, list[Fact]]:
    own: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts.of_item[item]:
        own[fact[0]].append(fact)
    alike = facts.alike(item)
    if alike is not None:
        own[ALIKE].append(alike)
    return own
