"""Names for groups: what a group has more of than the others, not what everybody has."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TELLING = 1.96
"""Standard errors above the rest that a feature must lie to be told."""
_PRIOR = 0.01
"""Weight of the prior, as a share of all that was counted."""
_KIND = re.compile(r"^\w+:(?!//)\s*")
"""What stands before the name in an entity such as `genre:Comedy`."""


@dataclass(frozen=True)
class Portrait:
    """What sets one group apart, the most telling first; empty where nothing does.

    Args:
        attributes: entities, genres or words.
        items: titles.
    """

    attributes: tuple[str, ...] = ()
    items: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Two attributes and two items, for tables and legends.

        >>> Portrait(("Children's", "Comedy"), ("Aladdin (1992)",)).name
        "Children's, Comedy; Aladdin (1992)"
        """
        parts = (", ".join(self.attributes[:2]), ", ".join(self.items[:2]))
        return "; ".join(part for part in parts if part) or "nothing sets it apart"

    def as_dict(self) -> dict[str, list[str]]:
        """For JSON; `Portrait.of` undoes it."""
        return {"attributes": list(self.attributes), "items": list(self.items)}

    @classmethod
    def of(cls, facts: Mapping[str, Sequence[str]]) -> "Portrait":
        """Undo `as_dict`."""
        return cls(tuple(facts["attributes"]), tuple(facts["items"]))


def portraits(
    items: Floats, titles: Sequence[str], attributes: Floats, names: Sequence[str], top: int = 5
) -> tuple[Portrait, ...]:
    """One portrait a group.

    Args:
        items: (G, N) how often each group consumed each item; may be fractions, as of a mixed membership.
        titles: of the N items.
        attributes: (G, A) how often each attribute was met by each group.
        names: of the A attributes; a kind before the name (`genre:Comedy`) is left out.
        top: most of either.
    """
    chosen = _most(telling(attributes), [_KIND.sub("", name) or name for name in names], top)
    return tuple(Portrait(*pair) for pair in zip(chosen, _most(telling(items), titles, top), strict=True))


def telling(counts: Floats) -> Floats:
    """Standard errors by which each group's use of each feature lies above that of all other groups, (G, F).

    Weighted log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008), the prior being the
    features' shares over all groups. So neither what everybody has is told, nor what was seen once. Difference: the
    prior weighs 1 % of the counts, and one count a feature at least.

    Args:
        counts: (G, F), not negative.
    """
    total = counts.sum(0)  # (F,)
    grand = total.sum()
    if grand == 0 or counts.shape[1] == 0:
        return np.zeros_like(counts)
    prior = max(_PRIOR, counts.shape[1] / grand) * total
    here, there = counts + prior, total - counts + prior
    all_here, all_there = here.sum(1, keepdims=True), there.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.log(here / (all_here - here)) - np.log(there / (all_there - there))
        z = difference / np.sqrt(1 / here + 1 / there)
    return np.asarray(np.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0), dtype=np.float64)


def _most(z: Floats, names: Sequence[str], top: int) -> list[tuple[str, ...]]:
    order = np.argsort(-z, axis=1, kind="stable")[:, :top]
    return [tuple(names[f] for f in row if z[g, f] > _TELLING) for g, row in enumerate(order)]
