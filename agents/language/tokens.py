"""Histories, items and prompts as tokens, put together from texts that are tokenised once: no strings in a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import PolicyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOTHING = "nothing yet"
"""What a history without items says."""


@dataclass(frozen=True)
class Tokens:
    """Texts as tokens.

    Args:
        ids: int64 (R, L).
        held: bool (R, L): where there is a token.
    """

    ids: Tensor
    held: Tensor

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int, pad: int = 0) -> Tokens:
        """Texts cut to `limit` tokens, without what the model puts around a text."""
        read = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        rows = [torch.tensor(row[:limit], dtype=torch.int64) for row in read]
        width = max([len(row) for row in rows], default=0)
        ids = torch.stack([F.pad(row, (0, width - len(row)), value=pad) for row in rows])
        counts = torch.tensor([len(row) for row in rows])
        return cls(ids, torch.arange(width) < counts[:, None])

    def __getitem__(self, rows: Tensor) -> Tokens:
        """The texts of some rows (B,)."""
        return Tokens(self.ids[rows], self.held[rows])

    def to(self, device: torch.device) -> Tokens:
        """On a device."""
        return Tokens(self.ids.to(device), self.held.to(device))

    def expanded(self, count: int) -> Tokens:
        """One text, `count` times."""
        return Tokens(self.ids.expand(count, -1), self.held.expand(count, -1))

    @property
    def counts(self) -> Tensor:
        """Tokens of each text, (R,)."""
        return self.held.sum(1)


def joined(parts: Sequence[Tokens], pad: int, left: bool = False) -> Tokens:
    """Texts one after the other, without gaps; padded at the end, or in front where `left`."""
    ids, held = torch.cat([part.ids for part in parts], 1), torch.cat([part.held for part in parts], 1)
    order = torch.sort(held.long(), dim=1, descending=not left, stable=True).indices
    width = max(int(held.sum(1).max()), 1)
    order = order[:, -width:] if left else order[:, :width]
    held = held.gather(1, order)
    return Tokens(ids.gather(1, order).masked_fill(~held, pad), held)


def around(tokenizer: PreTrainedTokenizerBase, prefix: str = "") -> tuple[Tokens, Tokens]:
    """What stands before and after every text: the model's special tokens and a prefix of your own."""
    read = tokenizer("a", return_special_tokens_mask=True)
    own = [place for place, special in enumerate(read["special_tokens_mask"]) if not special] or [0]
    ids = read["input_ids"]
    told = tokenizer(prefix.rstrip(), add_special_tokens=False)["input_ids"] if prefix else []
    tail = ids[own[-1] + 1 :]
    if tail and tail[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id == tokenizer.bos_token_id:
        tail = []  # a text that has ended is followed by nothing
    return _row([*ids[: own[0]], *told]), _row(tail)


@dataclass(frozen=True)
class Words:
    """What of a tokenizer its model's own task needs.

    Args:
        size: V, of the vocabulary.
        mask: the token that stands for a hidden one; None for models that foretell the next.
        special: int64 (S,) tokens that are never asked for.
    """

    size: int
    mask: int | None
    special: Tensor

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Words:
        """Those of a tokenizer."""
        mask = tokenizer.mask_token_id
        special = torch.tensor(sorted(set(tokenizer.all_special_ids)), dtype=torch.int64)
        return cls(len(tokenizer), None if mask is None else int(mask), special)


class HistoryTokens:
    """Histories as the titles of their newest items; where they do not fit, the oldest go, and it is counted.

    Args:
        tokenizer: the model's own.
        titles: of all items, (N,).
        window: newest items that are told.
        title_tokens: of a title that are read.
        limit: tokens of a history.

    Attributes:
        read, cut: histories that were put into tokens, and how many of them lost items.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, titles: Sequence[str], window: int, title_tokens: int, limit: int
    ) -> None:
        if limit < title_tokens:
            raise PolicyError(
                f"{max(limit, 0)} tokens are left for a history, and a title takes up to title_tokens={title_tokens}; "
                "raise max_tokens, lower title_tokens (or shots, or candidates), or take a model that reads more"
            )
        told = [f" {' '.join(title.split())};" for title in titles]
        self.titles = Tokens.of(tokenizer, [*told, f" {NOTHING}"], title_tokens)
        self.catalogue_size, self.window, self.limit = len(titles), window, limit
        self.pad = int(tokenizer.pad_token_id or 0)
        self.read = self.cut = 0

    def newest(self, history: Tensor) -> Tensor:
        """The newest items of histories (B, H), newest last: int64 (B, window), what is missing N and in front."""
        held = history < self.catalogue_size
        order = torch.sort(held.long(), dim=1, stable=True).indices[:, -self.window :]
        rows = history.gather(1, order)
        return F.pad(rows, (self.window - rows.shape[1], 0), value=self.catalogue_size)

    def tokens(self, newest: Tensor, limit: int | None = None) -> Tokens:
        """What `newest` gave, as tokens."""
        limit = self.limit if limit is None else limit
        table = self.titles.to(newest.device)
        told = newest < self.catalogue_size
        told[:, -1] |= ~told.any(1)  # row N is the text of an empty history
        counts = table.counts[newest] * told
        kept = told & (counts.flip(1).cumsum(1).flip(1) <= limit)
        self.read += len(newest)
        self.cut += int((kept != told).any(1).sum())
        held = table.held[newest] & kept.unsqueeze(2)
        return joined([Tokens(table.ids[newest].flatten(1), held.flatten(1))], self.pad)


def _row(ids: Sequence[int]) -> Tokens:
    row = torch.tensor([list(ids)], dtype=torch.int64).view(1, -1)
    return Tokens(row, torch.ones_like(row, dtype=torch.bool))
