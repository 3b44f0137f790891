"""Items as bags of terms: the words of their texts and the entities and genres they carry."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

Ints = npt.NDArray[np.int64]

FEWEST_ITEMS = 5
"""A term of fewer items tells one item, not a topic."""
LARGEST_SHARE = 0.5
"""A term of more than this share of the items tells nothing."""
MOST_WORDS = 1000
"""Of the words of texts, the most frequent are kept."""
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class ItemTerms:
    """What N items say, as counts.

    Args:
        attributes: names of the A attributes (entities, genres), in order.
        words: the W words of texts, in order.
        matrix: float64 sparse (N, A + W), 1 where the item has the term.
    """

    attributes: tuple[str, ...]
    words: tuple[str, ...]
    matrix: csr_array

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All V = A + W terms, attributes first."""
        return (*self.attributes, *self.words)

    def tensors(self) -> dict[str, Tensor]:
        """The matrix for safetensors; the names are kept beside it."""
        rows = torch.from_numpy(self.matrix.indptr.astype(np.int64))
        return {"rows": rows, "terms": torch.from_numpy(self.matrix.indices.astype(np.int64))}

    @classmethod
    def of(cls, attributes: Sequence[str], words: Sequence[str], tensors: dict[str, Tensor]) -> "ItemTerms":
        """Undo `tensors`."""
        rows, terms = tensors["rows"].numpy(), tensors["terms"].numpy()
        matrix = csr_array((np.ones(len(terms)), terms, rows), shape=(len(rows) - 1, len(attributes) + len(words)))
        return cls(tuple(attributes), tuple(words), matrix)


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, without numbers and the commonest English words.

    >>> words_of("The toys of Andy's room, 1995")
    ['toys', 'andy', 'room']
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # slow to load

    return [word for word in _WORD.findall(text.lower()) if word not in ENGLISH_STOP_WORDS]


def item_terms(texts: Sequence[str], attributes: Sequence[Sequence[str]]) -> ItemTerms:
    """The terms of N items.

    An attribute or word is kept where `FEWEST_ITEMS` items or more have it and not more than `LARGEST_SHARE` of all;
    in a catalogue too small for that, where two items have it.

    Args:
        texts: of the N items.
        attributes: the names each item carries, N lists; all empty where nothing is known.
    """
    word_lists = [sorted(set(words_of(text))) for text in texts]
    fewest = min(FEWEST_ITEMS, max(2, len(texts) // 20))
    named = _frequent([sorted(set(names)) for names in attributes], fewest, len(texts), None)
    words = _frequent(word_lists, fewest, len(texts), MOST_WORDS)
    column = {("attribute", name): place for place, name in enumerate(named)}
    column |= {("word", word): place for place, word in enumerate(words, len(named))}
    rows, columns = [], []
    for row, (names, found) in enumerate(zip(attributes, word_lists, strict=True)):
        terms = [("attribute", name) for name in sorted(set(names))] + [("word", word) for word in found]
        held = [column[term] for term in terms if term in column]
        rows += [row] * len(held)
        columns += held
    matrix = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(texts), len(column)))
    matrix.sort_indices()
    return ItemTerms(tuple(named), tuple(words), matrix)


def _frequent(lists: Sequence[Sequence[str]], fewest: int, items: int, most: int | None) -> list[str]:
    counts = Counter(name for names in lists for name in names)
    kept = [name for name, count in counts.items() if fewest <= count <= LARGEST_SHARE * items]
    return sorted(sorted(kept, key=lambda name: (-counts[name], name))[:most])
