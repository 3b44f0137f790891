"""Pairs of a history and an item, with whether the user took it: from what was shown, or else from the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloop.agents.language.examples import NextItems
from recloop.encoders.base.errors import PolicyError
from recloop.envs.logs.sequences import Ints, rows_of
from recloop.envs.world.world import World


@dataclass(frozen=True)
class LabelledPairs:
    """B pairs.

    Args:
        history: int64 (B, W) newest items, newest last, N empty.
        items: int64 (B,) rows.
        taken: float32 (B,) 1 or 0.
    """

    history: Tensor
    items: Tensor
    taken: Tensor


class DrawnPairs:
    """Where the log has none of what was shown: each next item, and others as likely as they are popular.

    What is learned of such pairs is how much likelier the user takes an item than users at large; see `prior`.

    Args:
        moments: of the train users.
        negatives: others for each next item.
    """

    def __init__(self, moments: NextItems, negatives: int) -> None:
        self.moments, self.negatives = moments, negatives
        shares = (moments.counts / moments.counts.sum()).double().numpy()
        self._shares = shares / shares.sum()

    @property
    def prior(self) -> bool:
        """Whether an item's log-popularity is to be added to what is learned."""
        return True

    def batches(self, count: int, size: int) -> Iterator[LabelledPairs]:
        """`count` batches of about `size` pairs of train users."""
        each = max(1, size // (1 + self.negatives))
        return (self._around(moment.history, moment.target) for moment in self.moments.batches(count, each))

    def held(self, most: int) -> LabelledPairs | None:
        """Pairs of the last items of held-out users."""
        moment = self.moments.last(most)
        return self._around(moment.history, moment.target) if len(moment.users) else None

    def _around(self, history: Tensor, target: Tensor) -> LabelledPairs:
        shape = (len(target), self.negatives)
        others = torch.from_numpy(self.moments.rng.choice(len(self._shares), size=shape, p=self._shares))
        items = torch.cat([target.unsqueeze(1), others], dim=1)
        known = (items.unsqueeze(2) == history.unsqueeze(1)).any(2) | (items == target.unsqueeze(1))
        known[:, 0] = False  # others that the user has consumed are no negatives
        taken = torch.zeros(items.shape)
        taken[:, 0] = 1
        told = history.unsqueeze(1).expand(-1, items.shape[1], -1)[~known]
        return LabelledPairs(told, items[~known], taken[~known])


class ShownPairs:
    """What train users were shown, half of it taken and half not.

    Args:
        world: whose log has exposures.
        moments: which train users are held out, and the generator.

    Raises:
        PolicyError: all or nothing of it was taken.
    """

    def __init__(self, world: World, moments: NextItems) -> None:
        slates = world.sequences.slates
        assert slates is not None
        self.moments = moments
        self._items, self._before = slates.items, slates.consumed_before
        self._owner = np.repeat(np.arange(world.sequences.users), np.diff(slates.offsets))
        shown = (slates.items < world.sequences.catalogue_size) & slates.given[..., 0]
        self._taken = shown & (slates.answers[..., 0] > 0.5)
        self._left = shown & ~self._taken
        self._train = rows_of(slates.offsets, moments.train)
        self._held = rows_of(slates.offsets, moments.held)
        self._unlabelled = rows_of(slates.offsets, moments.unlabelled)
        self._named: tuple[Ints, Ints] | None = None
        taken, left = int(self._taken[self._train].sum()), int(self._left[self._train].sum())
        if not taken or not left:
            what = "taken" if left else "left"
            raise PolicyError(
                f"of {taken + left} items that the train users of world '{world.name}' were shown, none was {what}: "
                "one class alone cannot be told apart; take lm-ranker, or negatives_from=catalogue"
            )

    @property
    def prior(self) -> bool:
        """What is learned is the chance itself."""
        return False

    def batches(self, count: int, size: int) -> Iterator[LabelledPairs]:
        """`count` batches of `size` pairs of train users."""
        taken, left = self._places(self._train)
        if self._named is not None:
            taken, left = (np.concatenate(both) for both in zip((taken, left), self._named, strict=True))
        for _ in range(count):
            yield self._drawn(taken, left, size)

    def held(self, most: int) -> LabelledPairs | None:
        """Pairs of held-out users, as many of either kind."""
        taken, left = self._places(self._held)
        return self._drawn(taken, left, most) if len(taken) and len(left) else None

    def learn_from_unlabelled(
        self, chances: Callable[[LabelledPairs], Tensor], sure: float, most: int = 2048, size: int = 64
    ) -> tuple[int, int]:
        """Take up what users without labels were shown, where it is foretold with certainty.

        Args:
            chances: of pairs being taken, (n,).
            sure: chance from which on a pair counts as taken, and below one minus it as left.
            most: pairs that are asked for.
            size: of them at once.

        Returns:
            How many were named taken and left.
        """
        shown = np.concatenate(self._places(self._unlabelled))  # which of the two it was is not looked at below
        asked = shown[self.moments.rng.permutation(len(shown))[:most]]
        parts = [asked[first : first + size] for first in range(0, len(asked), size)]
        told = [chances(self._pairs(part, torch.zeros(len(part)))).numpy() for part in parts]
        found = np.concatenate([np.zeros(0), *told])
        self._named = asked[found >= sure], asked[found <= 1 - sure]
        return len(self._named[0]), len(self._named[1])

    def _places(self, rows: Ints) -> tuple[Ints, Ints]:
        """(slate, place) of what was taken and what was left, each (n, 2)."""
        pairs = [np.argwhere(kind[rows]) for kind in (self._taken, self._left)]
        for found in pairs:
            found[:, 0] = rows[found[:, 0]]
        return pairs[0], pairs[1]

    def _drawn(self, taken: Ints, left: Ints, size: int) -> LabelledPairs:
        rng = self.moments.rng
        chosen = np.concatenate([kind[rng.integers(len(kind), size=max(1, size // 2))] for kind in (taken, left)])
        return self._pairs(chosen, torch.arange(len(chosen)).lt(len(chosen) // 2).float())

    def _pairs(self, chosen: Ints, taken: Tensor) -> LabelledPairs:
        """Pairs at (slate, place), (n, 2)."""
        slate, place = chosen[:, 0], chosen[:, 1]
        history, _ = self.moments.sequences.last(self._owner[slate], self.moments.window, self._before[slate])
        return LabelledPairs(history, torch.from_numpy(self._items[slate, place]), taken)
