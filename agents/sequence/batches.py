"""Sequences as batches: windows of like length together, and the last items that are held out."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from recloop.envs.logs.sequences import Ints, Sequences


def batches(
    sequences: Sequences, users: Ints, length: int, batch_items: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Windows of all users in a new order, of like length together, so that little is padding.

    Args:
        sequences: what is learned from.
        users: int64 (U,) of whom.
        length: longest window; longer users are cut at random places.
        batch_items: items a batch, about.
        rng: of cuts and order.

    Yields:
        int64 (B, T), empty places N at the end.
    """
    owner, first, size = windows(sequences.lengths[users], length, rng)
    order = np.lexsort((rng.random(len(size)), size))
    ends = np.cumsum(size[order]) // batch_items
    groups = np.split(order, np.flatnonzero(np.diff(ends)) + 1)
    for place in rng.permutation(len(groups)):
        group = groups[place]
        starts = sequences.offsets[users[owner[group]]] + first[group]
        steps = np.arange(int(size[group].max()))
        held = steps < size[group][:, None]
        rows = np.where(held, starts[:, None] + steps, 0)
        yield torch.from_numpy(np.where(held, sequences.items[rows], sequences.catalogue_size))


def windows(lengths: Ints, length: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Cut sequences into windows of at most `length` at random places, each item in exactly one.

    Returns int64 (W,): the owner's place in `lengths`, the first item, and the number of items.
    """
    newest = np.minimum(rng.integers(1, length + 1, len(lengths)), lengths)
    newest = np.where(lengths <= length, lengths, newest)
    more = -(-(lengths - newest) // length)  # windows before the newest one
    owner = np.repeat(np.arange(len(lengths)), more + 1)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(more + 1) - (more + 1), more + 1)  # 0 is the newest
    end = lengths[owner] - np.where(number == 0, 0, newest[owner] + (number - 1) * length)
    size = np.where(number == 0, newest[owner], np.minimum(length, end))
    return owner, end - size, size


def held_out_users(sequences: Sequences, users: Ints, share: float, rng: np.random.Generator) -> Ints:
    """Users whose last item is held out: a share of those with three items or more, rising."""
    able = users[sequences.lengths[users] >= 3]
    chosen: Ints = np.sort(rng.permutation(able)[: round(share * len(able))])
    return chosen


def last_items(sequences: Sequences, users: Ints, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The last item of each user and the newest `length` before it: histories int64 (B, length) and targets (B,)."""
    for chunk in np.array_split(users, -(-len(users) // 256)):
        ends = sequences.lengths[chunk] - 1
        history, _ = sequences.last(chunk, length, ends)
        yield history, torch.from_numpy(sequences.items[sequences.offsets[chunk] + ends])
