"""What a language model learns from: moments of the train users' log, each with the item that came next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import PolicyError
from recloop.envs.logs.sequences import Ints, Sequences, rows_of
from recloop.envs.world.world import World

FEWEST = 8
"""Train users with two items or more that fine-tuning asks for."""


@dataclass(frozen=True)
class Moment:
    """B users, each before their next item.

    Args:
        users: int64 (B,) rows.
        ends: int64 (B,) how many items each had consumed.
        history: int64 (B, H) their newest items, newest last, N empty.
        target: int64 (B,) what came next.
    """

    users: Ints
    ends: Ints
    history: Tensor
    target: Tensor


class NextItems:
    """Moments of a world's train users, some of whom are held out.

    Args:
        world: with its log.
        window: newest items before a moment.
        held_out: share of the train users that are held out.
        rng: draws everything.
        labelled: share of the others whose answers are learned from.

    Raises:
        PolicyError: fewer than 8 train users with two items, or all of them consumed one and the same item.
    """

    def __init__(
        self, world: World, window: int, held_out: float, rng: np.random.Generator, labelled: float = 1.0
    ) -> None:
        self.sequences: Sequences = world.sequences
        self.window, self.rng = window, rng
        users = world.users.rows("train").numpy()
        users = users[self.sequences.lengths[users] >= 2]
        if len(users) < FEWEST:
            raise PolicyError(
                f"world '{world.name}' has {len(users)} train users with two items or more, and fine-tuning needs "
                f"{FEWEST}; take tuning.method=none, or a larger log"
            )
        users = rng.permutation(users)
        self.held = users[: int(len(users) * held_out)]
        others = users[len(self.held) :]
        self.train = others[: max(FEWEST // 2, round(len(others) * labelled))]
        self.unlabelled = others[len(self.train) :]
        self.counts = torch.from_numpy(self.sequences.popularity(self.train))
        if int((self.counts > 0).sum()) < 2:
            item = world.catalogue.titles[int(self.counts.argmax())]
            raise PolicyError(
                f"the train users of world '{world.name}' consumed one item only ('{item}'): there is nothing to tell "
                "apart; take tuning.method=none, or another log"
            )
        self._rows = rows_of(self.sequences.offsets, self.train)
        self._all_rows = rows_of(self.sequences.offsets, others)

    def draw(self, count: int, everybody: bool = False) -> Moment:
        """Moments of the train users, each consumption as likely as any other; of `everybody`: unlabelled ones too."""
        rows = self.rng.choice(self._all_rows if everybody else self._rows, size=count)
        users = np.searchsorted(self.sequences.offsets, rows, side="right") - 1
        return self.at(users, rows - self.sequences.offsets[users])

    def last(self, most: int) -> Moment:
        """The last items of the held-out users, `most` at most."""
        users = self.held[:most]
        return self.at(users, self.sequences.lengths[users] - 1)

    def at(self, users: Ints, ends: Ints) -> Moment:
        """The moments of some users after `ends` items."""
        history, _ = self.sequences.last(users, self.window, ends)
        target = torch.from_numpy(self.sequences.items[self.sequences.offsets[users] + ends])
        return Moment(users, ends, history, target)

    def batches(self, count: int, size: int) -> Iterator[Moment]:
        """`count` batches of `size` moments."""
        return (self.draw(size) for _ in range(count))


def check_texts(texts: Sequence[str], world: str) -> None:
    """`PolicyError` where the items' texts cannot tell items apart."""
    distinct = {" ".join(text.split()) for text in texts}
    if len(distinct) < 2:
        only = next(iter(distinct), "")
        raise PolicyError(
            f"the {len(texts)} items of world '{world}' have one text, '{only[:40]}', for all; a language model needs "
            "texts that differ: build the world with --items-table, or take another policy"
        )
