"""Prompts with lettered candidates as tokens, and a decoder that says how likely each letter is to follow."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recloop.agents.language.tokens import HistoryTokens, Tokens, joined
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.text.models import token_limit
from recloop.envs.users.language.answers import LETTERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SLOT = "<<<here>>>"
_UNSAID = "N/A"


class PromptTokens:
    """Prompts about histories and candidates, put together from titles that are tokenised once.

    A solved example (a shot) reads as a prompt does, and ends with its letter. Where a prompt is longer than
    `max_tokens` or the model's context, the oldest items of its history go, and `history` counts them.

    Args:
        tokenizer: the model's own.
        model: whose context holds.
        titles: of all items, (N,).
        window, candidates, title_tokens, max_tokens: see `VerbaliserConfig`.
        words: before the history, before the candidates, after them.
        shots: int64 (k, W + C + 1) newest items, candidates and the place of the right one.
        chat: whether the tokenizer's chat template is used, where it has one.

    Attributes:
        letters: of each candidate's letter the tokens that spell it, (C, ...).

    Raises:
        PolicyError: the tokenizer cannot tell letters apart, or a prompt leaves no room for a history.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: Any,
        titles: Sequence[str],
        window: int,
        candidates: int,
        title_tokens: int,
        max_tokens: int,
        words: tuple[str, str, str],
        shots: Tensor,
        chat: bool,
    ) -> None:
        self.pad = int(tokenizer.pad_token_id or 0)
        self.letters = _letter_tokens(tokenizer, LETTERS[:candidates])
        intro, question, answer = words
        templated = chat and getattr(tokenizer, "chat_template", None)
        before, after = _chat(tokenizer) if templated else ("", "")
        begins = [] if templated or tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        last = "" if templated else " Answer:"

        def said(text: str) -> Tokens:
            return Tokens.of(tokenizer, [text], max_tokens)

        self.titles = Tokens.of(tokenizer, [*(f" {' '.join(t.split())}" for t in titles), f" {_UNSAID}"], title_tokens)
        self._names = [said(f"\n{letter}.") for letter in LETTERS[:candidates]]
        self._intro, self._question, self._asked = said(intro), said(f"\n{question}"), said(f"\n{answer}")
        room = token_limit(max_tokens, model, tokenizer)
        row = torch.tensor([begins], dtype=torch.int64).view(1, -1)
        start = [Tokens(row, torch.ones_like(row, dtype=torch.bool)), said(before)]
        self.tail = joined([self._asked, said(f"{last}{after}")], self.pad)
        widest = int(self.titles.counts.max()) * candidates + sum(int(name.counts) for name in self._names)
        fixed = widest + sum(int(t.counts) for t in (self._intro, self._question, self.tail, *start))
        self.history = HistoryTokens(tokenizer, titles, window, title_tokens, title_tokens * window)  # of the shots
        solved = [self._solved(shot, candidates, said) for shot in shots]
        self.head = joined([*start, *solved], self.pad)
        fixed += sum(int(shot.counts) for shot in solved)
        self.history = HistoryTokens(tokenizer, titles, window, title_tokens, room - fixed)

    def rest(self, newest: Tensor, rows: Tensor) -> Tokens:
        """What follows `head` in the prompts about histories (B, W) and candidates (B, C), padded in front."""
        return joined([*self._told(newest, rows), self.tail.to(rows.device).expanded(len(rows))], self.pad, left=True)

    def whole(self, newest: Tensor, rows: Tensor) -> Tokens:
        """The prompts, padded in front."""
        return joined([self.head.to(rows.device).expanded(len(rows)), self.rest(newest, rows)], self.pad, left=True)

    def _told(self, newest: Tensor, rows: Tensor) -> list[Tokens]:
        device, count = rows.device, len(rows)
        titles = self.titles.to(device)
        parts = [self._intro.to(device).expanded(count), self.history.tokens(newest)]
        parts.append(self._question.to(device).expanded(count))
        for place, name in enumerate(self._names):
            parts += [name.to(device).expanded(count), titles[rows[:, place]]]
        return parts

    def _solved(self, shot: Tensor, candidates: int, said: Any) -> Tokens:
        window = len(shot) - candidates - 1
        told = self._told(shot[None, :window], shot[None, window:-1])
        return joined([*told, self._asked, said(f" {LETTERS[int(shot[-1])]}\n\n")], self.pad)


class LetterModel(nn.Module):
    """Log-probabilities of the letters after prompts.

    Args:
        language: a causal language model, its weights open as they are to be trained.
        letters: the tokens of each letter, (C, ...).
        plain: whether its keys and values of a beginning may be shared; not with adapters that have their own.
    """

    def __init__(self, language: Any, letters: Sequence[Sequence[int]], plain: bool) -> None:
        super().__init__()
        self.language, self.plain = language, plain
        self.letters = [torch.tensor(tokens) for tokens in letters]
        self._shared: Any = None

    def forward(self, prompts: Tokens, shared: Any = None, shared_length: int = 0) -> Tensor:
        """Whole prompts, or what follows a shared beginning of some tokens -> float32 (B, C)."""
        ids, held = prompts.ids, prompts.held.long()
        positions = (held.cumsum(1) - 1).clamp_min(0) + shared_length
        mask = torch.cat([held.new_ones(len(held), shared_length), held], dim=1)
        more = {} if shared is None else {"past_key_values": shared}
        out = self.language(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1,
            use_cache=shared is not None, **more,
        )  # fmt: skip
        log = torch.log_softmax(out.logits[:, -1].float(), dim=-1)
        return torch.stack([log[:, tokens.to(log.device)].logsumexp(1) for tokens in self.letters], dim=1)

    @torch.no_grad()
    def ordered(self, prompts: PromptTokens, newest: Tensor, rows: Tensor, batch: int) -> Tensor:
        """`forward` of many prompts, their common beginning read once: float32 (B, C)."""
        parts = []
        for own, candidates in zip(torch.split(newest, batch), torch.split(rows, batch), strict=True):
            if self.plain and int(prompts.head.counts):
                shared = copy.deepcopy(self._beginning(prompts, rows.device))
                shared.batch_repeat_interleave(len(own))
                parts.append(self(prompts.rest(own, candidates), shared, int(prompts.head.counts)))
            else:
                parts.append(self(prompts.whole(own, candidates)))
        return torch.cat(parts)

    def _beginning(self, prompts: PromptTokens, device: torch.device) -> Any:
        """Keys and values of what all prompts begin with."""
        if self._shared is None:
            head = prompts.head.ids.to(device)
            self._shared = self.language(input_ids=head, use_cache=True, logits_to_keep=1).past_key_values
        return self._shared


def _chat(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What the chat template puts before and after what a person says."""
    turn = [{"role": "user", "content": _SLOT}]
    text = str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
    before, _, after = text.partition(_SLOT)
    return before, after


def _letter_tokens(tokenizer: PreTrainedTokenizerBase, letters: str) -> list[list[int]]:
    found = []
    for letter in letters:
        coded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (letter, f" {letter}")]
        found.append(sorted({ids[0] for ids in coded if len(ids) == 1} - {tokenizer.unk_token_id}))
    every = [token for tokens in found for token in tokens]
    if not all(found) or len(set(every)) < len(every):
        raise PolicyError(
            f"the tokenizer cannot tell the letters {letters[0]} to {letters[-1]} apart by one token; take another "
            "model"
        )
    return found
