"""Two towers on one language model: the text of a history and the text of an item as vectors of one space."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.language.tokens import HistoryTokens, Tokens, Words, around, joined
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.text.encoder import Pooling, pool
from recloop.encoders.text.models import token_limit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AT_ONCE = 64


class TwoTowers(nn.Module):
    """How well an item fits a history: cosine of two texts over a temperature, plus the item's bias.

    One language model reads both; a matrix each, at first the identity, lets the two differ. A dense retriever
    (Karpukhin et al. 2020) of histories. Differences: one shared model, mean pooling, a popularity bias.

    Args:
        language: the model, its weights open as they are to be trained.
        dim: d, length of its vectors.
        pooling: of its tokens.
        temperature: at first.
        own: whether what stands on top of the model is trained.
    """

    def __init__(self, language: Any, dim: int, pooling: Pooling, temperature: float, own: bool) -> None:
        super().__init__()
        self.language, self.pooling = language, pooling
        self.of_history = nn.Parameter(torch.eye(dim), requires_grad=own)
        self.of_item = nn.Parameter(torch.eye(dim), requires_grad=own)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log(), requires_grad=own)
        self.popularity_weight = nn.Parameter(torch.tensor(1.0), requires_grad=own)

    def vectors(self, tokens: Tokens) -> Tensor:
        """Texts -> what the model says of them, float32 (n, d)."""
        ids, mask = tokens.ids, tokens.held.long()
        hidden = self.language(input_ids=ids, attention_mask=mask).last_hidden_state
        return pool(hidden.float(), mask, self.pooling)

    def histories(self, tokens: Tokens) -> Tensor:
        """Texts of histories -> (n, d), divided by the temperature."""
        return F.normalize(self.vectors(tokens) @ self.of_history, dim=1) / self.log_temperature.exp()

    def items(self, tokens: Tokens) -> Tensor:
        """Texts of items -> (n, d) of length 1."""
        return F.normalize(self.vectors(tokens) @ self.of_item, dim=1)


class TowerTexts:
    """The texts of a catalogue and of histories in it, as the towers read them.

    Args:
        tokenizer: the model's own.
        model: whose limit holds.
        titles: of all items, for histories.
        texts: of all items, for items.
        window, title_tokens, max_tokens, item_tokens: see `RankerConfig`.
        history_prefix, item_prefix: in front of every text.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        model: Any,
        titles: Sequence[str],
        texts: Sequence[str],
        window: int,
        title_tokens: int,
        max_tokens: int,
        item_tokens: int,
        history_prefix: str = "",
        item_prefix: str = "",
    ) -> None:
        self.pad, self.words = int(tokenizer.pad_token_id or 0), Words.of(tokenizer)
        limit = token_limit(max_tokens, model, tokenizer)
        self.before, self.after = around(tokenizer, history_prefix)
        self.before_item, _ = around(tokenizer, item_prefix)
        room = limit - int(self.before.counts) - int(self.after.counts)
        self.history = HistoryTokens(tokenizer, titles, window, title_tokens, room)
        item_room = min(item_tokens, limit) - int(self.before_item.counts) - int(self.after.counts)
        if item_room < 1:
            raise PolicyError(
                f"item_tokens={item_tokens} leave no room for an item's text; its prefix and the model's own tokens "
                f"take {int(self.before_item.counts) + int(self.after.counts)}: raise it or shorten the prefix"
            )
        self._items = Tokens.of(tokenizer, [" ".join(text.split()) or title for text, title in
                                            zip(texts, titles, strict=True)], item_room)  # fmt: skip

    def of_histories(self, newest: Tensor) -> Tokens:
        """Histories as `HistoryTokens.newest` gives them."""
        return self._whole(self.before, self.history.tokens(newest))

    def of_items(self, rows: Tensor) -> Tokens:
        """Items by row (n,)."""
        return self._whole(self.before_item, self._items[rows.cpu()].to(rows.device))

    def _whole(self, before: Tokens, told: Tokens) -> Tokens:
        count, device = len(told.ids), told.ids.device
        return joined([before.to(device).expanded(count), told, self.after.to(device).expanded(count)], self.pad)


@torch.no_grad()
def item_table(towers: TwoTowers, texts: TowerTexts, count: int, device: torch.device) -> Tensor:
    """The vectors of all items, encoded once: float32 (N, d)."""
    order = texts.of_items(torch.arange(count)).counts.argsort(stable=True)
    rows = torch.empty(count, towers.of_item.shape[1])
    for chunk in torch.split(order, _AT_ONCE):
        rows[chunk] = towers.items(texts.of_items(chunk.to(device))).float().cpu()
    return rows


@torch.no_grad()
def history_vectors(towers: TwoTowers, texts: TowerTexts, newest: Tensor) -> Tensor:
    """What the language model says of histories (B, W), those of like length together: float32 (B, d)."""
    order = (newest < texts.history.catalogue_size).sum(1).argsort(stable=True)
    rows = torch.empty(len(newest), towers.of_history.shape[1], device=newest.device)
    for chunk in torch.split(order, _AT_ONCE):
        rows[chunk] = towers.vectors(texts.of_histories(newest[chunk]))
    return rows
