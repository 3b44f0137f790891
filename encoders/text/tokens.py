"""Texts as tokens: an instruction in front of each, cut to a limit from either end, padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recloop.encoders.base.errors import EncoderError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Truncate = Literal["end", "start"]
_CHARACTERS_PER_TOKEN = 64
"""More of a text is never looked at than this many times the limit."""


class TextTokens:
    """Cuts texts to `limit` tokens; what the model puts around a text, and the prefix, always stay.

    Args:
        tokenizer: the model's own.
        limit: tokens of a text, the prefix and the model's special tokens included.
        prefix: in front of every text.
        truncate: which side of a text is cut away.

    Raises:
        EncoderError: where the prefix leaves no room.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limit: int, prefix: str, truncate: Truncate) -> None:
        self.tokenizer, self.limit, self.prefix, self.truncate = tokenizer, limit, prefix, truncate
        pad = tokenizer.pad_token_id
        self.pad = int(pad) if pad is not None else 0
        special = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        inner = [place for place, own in enumerate(special) if not own] or [len(special)]
        self.tail = len(special) - 1 - inner[-1] if 0 in special else 0
        # The space that ends a prefix belongs to the text's first token, or to none.
        told = tokenizer(prefix.rstrip(), add_special_tokens=False)["input_ids"] if prefix else []
        self.head = inner[0] + len(told)
        if self.head + self.tail >= limit:
            raise EncoderError(
                f"prefix {prefix[:40]!r} takes {len(told)} of max_length={limit} tokens and leaves no room for a text; "
                "shorten it or raise max_length"
            )

    def read(self, texts: Sequence[str]) -> tuple[list[list[int]], Tensor]:
        """The tokens of each text, and which were cut, bool (n,)."""
        reach = self.limit * _CHARACTERS_PER_TOKEN
        near = [text[:reach] if self.truncate == "end" else text[-reach:] for text in texts]
        whole = self.tokenizer([self.prefix + text for text in near], verbose=False)["input_ids"]
        cut = [
            len(row) > self.limit or len(part) < len(text) for row, part, text in zip(whole, near, texts, strict=True)
        ]
        return [self._cut(row) for row in whole], torch.tensor(cut, dtype=torch.bool)

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Tokens int64 (n, T) padded at the end, and the mask (n, T) with 1 on tokens."""
        filled = [torch.tensor(row or [self.pad]) for row in rows]  # a tokenizer may make nothing of a text
        return (
            pad_sequence(filled, batch_first=True, padding_value=self.pad),
            pad_sequence([torch.ones_like(row) for row in filled], batch_first=True),
        )

    def _cut(self, row: list[int]) -> list[int]:
        excess = len(row) - self.limit
        if excess <= 0:
            return row
        first = self.head if self.truncate == "start" else len(row) - self.tail - excess
        return row[:first] + row[first + excess :]
