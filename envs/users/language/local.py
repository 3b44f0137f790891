"""A causal language model on this machine: next-token probabilities, batched, shared beginnings read once."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recloop.encoders.base.errors import BudgetError, LanguageModelError
from recloop.encoders.text.models import gguf_source, model_fingerprint, model_folder, number_type
from recloop.envs.users.language.answers import Prompt, as_rows, checked_options, spelled
from recloop.envs.users.language.store import AnswerStore, content_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SHORTEST_SHARED = 8
"""Tokens; a shorter common beginning is not worth a cache."""


@dataclass(frozen=True)
class LocalConfig:
    """How a local model is run.

    Args:
        batch: questions read at once.
        device: any torch device.
        dtype: `auto`, `float32` or `bfloat16`; auto is bfloat16 where that is faster.
        chat: whether questions are put into the tokenizer's chat template, where it has one.
        cache_shared: whether a beginning that several questions share is read once.
        max_calls: questions answered afresh over all runs with one store; None for no limit.
        least_mass: an answer of whose probability the options hold no more than this is none.
    """

    batch: int = 32
    device: str = "cpu"
    dtype: str = "auto"
    chat: bool = True
    cache_shared: bool = True
    max_calls: int | None = None
    least_mass: float = 0.0

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0 <= self.least_mass < 1:
            raise LanguageModelError(
                f"batch={self.batch} must be at least 1 and least_mass={self.least_mass} in [0, 1)"
            )


class LocalModel:
    """An `AnswerModel` by `transformers`: any decoder with a tokenizer and weights as safetensors.

    The model is loaded when it is first asked; no code of the folder is run. A hub name is downloaded unless the hub's
    cache holds it; `HF_HUB_OFFLINE=1` forbids it. An option's probability is that of all single tokens that
    spell it (`yes`, ` Yes`), or begin it where none does, renormalised over the options.

    Questions with a common beginning (one persona, history and slate) share its keys and values, exactly: the common
    tokens of the whole questions are read once. Where a model keeps no plain cache (sliding windows, recurrent layers)
    whole questions are read instead.

    Args:
        model: folder or hub name.
        config: how it is run.
        store: keeps answers by content; without one they live in memory.
    """

    def __init__(self, model: str, config: LocalConfig | None = None, store: AnswerStore | None = None) -> None:
        self.config = config or LocalConfig()
        self.name = model
        self.store = AnswerStore() if store is None else store

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        device = torch.device(self.config.device)
        return load_decoder(model_folder(self.name), number_type(self.config.dtype, device), device)

    @cached_property
    def _fingerprint(self) -> str:
        return model_fingerprint(model_folder(self.name), [self.config.chat, self.config.dtype, self.config.least_mass])

    def probabilities(self, prompts: Sequence[Prompt], options: Sequence[str]) -> Tensor:
        """See `AnswerModel`.

        Raises:
            EncoderError, LanguageModelError: the model cannot be had or loaded, cannot tell the options apart, or a
                question is longer than it reads.
            BudgetError: `max_calls` does not cover what is missing; the batches answered before are kept.
        """
        checked_options(options)
        keys = {prompt.text: content_key(self._fingerprint, list(options), prompt.text) for prompt in prompts}
        found = {text: self.store.get(key) for text, key in keys.items()}
        missing = list({p.text: p for p in prompts if found[p.text] is None}.values())
        begin = time.perf_counter()
        try:
            for part in _batches(missing, self.config.batch):
                self._afford(len(part))
                answers = self._answer(part, options)
                fresh = {prompt.text: [answer] for prompt, answer in zip(part, answers, strict=True)}
                self.store.put({keys[text]: answer for text, answer in fresh.items()}, calls=len(part))
                found.update(fresh)
        finally:
            if missing:
                self.store.took(time.perf_counter() - begin)
        return as_rows([found[prompt.text][0] for prompt in prompts], len(options))

    def _afford(self, calls: int) -> None:
        most, spent = self.config.max_calls, self.store.spent.calls
        if most is not None and spent + calls > most:
            raise BudgetError(
                f"{spent} of {most} questions are answered and the next batch has {calls}; the answers are kept, raise "
                "the budget and run again to go on"
            )

    @torch.no_grad()
    def _answer(self, prompts: list[Prompt], options: Sequence[str]) -> list[list[float] | None]:
        chances = self._next_token(prompts)  # (n, V)
        pools = self._option_tokens(tuple(options))
        sums = torch.stack([chances[:, tokens].sum(1) for tokens in pools], dim=1)  # (n, options)
        mass = sums.sum(1)
        if not bool(torch.isfinite(mass).all()):
            raise LanguageModelError(f"{self.name} gives NaN probabilities; run it with dtype float32")
        rows = (sums / mass.clamp_min(1e-30).unsqueeze(1)).tolist()
        return [row if m > self.config.least_mass else None for row, m in zip(rows, mass.tolist(), strict=True)]

    def _next_token(self, prompts: list[Prompt]) -> Tensor:
        """Probabilities of the token after each question, float32 (n, V) on the CPU."""
        tokens = [self._tokens(prompt.text) for prompt in prompts]
        starts, owner = self._common_starts(prompts, tokens)
        ends = [own[len(starts[o]) :] for own, o in zip(tokens, owner, strict=True)]
        model, device = self._loaded[0], torch.device(self.config.device)
        cache, start_mask = None, torch.zeros(len(prompts), 0, dtype=torch.int64, device=device)
        if any(starts):
            ids, mask = _left_padded(starts, device)
            cache = model(ids, attention_mask=mask, position_ids=_positions(mask), use_cache=True).past_key_values
            rows = torch.tensor(owner, device=device)
            cache.batch_select_indices(rows)
            start_mask = mask[rows]
        ids, mask = _left_padded(ends, device)
        whole = torch.cat([start_mask, mask], dim=1)
        options: dict[str, Any] = {"past_key_values": cache, "use_cache": cache is not None}
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            options["logits_to_keep"] = 1
        positions = _positions(whole)[:, start_mask.shape[1] :]
        logits = model(ids, attention_mask=whole, position_ids=positions, **options).logits
        return torch.softmax(logits[:, -1].float(), dim=-1).cpu()

    def _common_starts(self, prompts: list[Prompt], tokens: list[list[int]]) -> tuple[list[list[int]], list[int]]:
        """The beginnings to be read once, and which of them each question has."""
        groups: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            groups.setdefault(prompt.shared, []).append(place)
        starts, owner = [], [0] * len(prompts)
        for number, places in enumerate(groups.values()):
            common = _common([tokens[place] for place in places])
            starts.append(common)
            for place in places:
                owner[place] = number
        worth = len(starts) < len(prompts) and min(map(len, starts)) >= _SHORTEST_SHARED
        if not (worth and self.config.cache_shared and self._plain_cache):
            starts = [[] for _ in starts]
        return starts, owner

    @cached_property
    def _plain_cache(self) -> bool:
        """Whether what the model keeps of a beginning is keys and values of every token, and nothing else."""
        from transformers.cache_utils import DynamicCache, DynamicLayer

        ids = torch.zeros(1, 2, dtype=torch.int64, device=self.config.device)
        with torch.no_grad():
            cache = getattr(self._loaded[0](ids, use_cache=True), "past_key_values", None)
        return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)

    def _tokens(self, text: str) -> list[int]:
        model, tokenizer = self._loaded
        templated = self.config.chat and getattr(tokenizer, "chat_template", None)
        if templated:
            turn = [{"role": "user", "content": text}]
            text = str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
        found = [int(token) for token in tokenizer(text, add_special_tokens=not templated)["input_ids"]]
        if not templated and found and found[-1] == tokenizer.eos_token_id:
            found = found[:-1]  # the answer follows; a text that has ended is followed by nothing
        limit = int(getattr(model.config, "max_position_embeddings", None) or len(found))
        if not 0 < len(found) <= limit:
            raise LanguageModelError(
                f"a question of {len(found)} tokens does not fit {self.name}, which reads 1 to {limit}; tell less of "
                "the history (most_items), or take a model that reads more"
            )
        return found

    def _option_tokens(self, options: tuple[str, ...]) -> list[Tensor]:
        """By option, the tokens that spell it, or begin it where no single token does."""
        _, tokenizer = self._loaded
        pools: list[set[int]] = []
        for option in options:
            variants = {lead + word for lead in ("", " ") for word in (option, option.capitalize(), option.upper())}
            coded = [tokenizer(variant, add_special_tokens=False)["input_ids"] for variant in sorted(variants)]
            single = {ids[0] for ids in coded if len(ids) == 1}
            spelling = {token for token in single if spelled(str(tokenizer.decode([token]))) == spelled(option)}
            pools.append(spelling or {ids[0] for ids in coded if ids} - {tokenizer.unk_token_id})
        every = [token for pool in pools for token in pool]
        if not all(pools) or len(set(every)) < len(every):
            raise LanguageModelError(
                f"the tokenizer of {self.name} cannot tell {', '.join(options)} apart by their first token; "
                "take another model"
            )
        return [torch.tensor(sorted(pool)) for pool in pools]


def load_decoder(
    folder: Path, dtype: torch.dtype, device: torch.device, gguf_file: str | None = None, **more: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer from a folder's safetensors or its GGUF file; `more` as `load_model`.

    Raises:
        LanguageModelError: it cannot be loaded, or is an encoder.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # a folder on disk is read in a moment
    source = gguf_source(gguf_file)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **source)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=gguf_file is None,
            dtype=dtype,
            **source,
            **more,
        )
        model = (model if more else model.to(device)).eval()
    except Exception as error:  # transformers raises what it likes on a broken folder
        reason = " ".join(str(error).split())[:200]
        raise LanguageModelError(
            f"{folder} holds no causal language model that can be loaded ({reason}); it needs config.json, a tokenizer "
            "and weights as safetensors"
        ) from None
    ids = torch.tensor([[0, 1, 0], [0, 1, 1]], device=device)
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[:, 1].float()
    if not bool(torch.allclose(logits[0], logits[1], atol=1e-2, rtol=1e-2)):
        raise LanguageModelError(f"{folder} holds an encoder, which reads ahead; take a causal language model")
    return model, tokenizer


def _batches(prompts: list[Prompt], size: int) -> list[list[Prompt]]:
    """Batches in which questions with one beginning stand together."""
    together = sorted(range(len(prompts)), key=lambda place: (prompts[place].shared, place))
    return [[prompts[place] for place in together[start : start + size]] for start in range(0, len(together), size)]


def _common(tokens: list[list[int]]) -> list[int]:
    """The tokens that all begin with, leaving each at least one of its own.

    >>> _common([[1, 2, 3], [1, 2]])
    [1]
    """
    length = min(map(len, tokens)) - 1
    first = tokens[0]
    for other in tokens[1:]:
        length = next((place for place in range(length) if first[place] != other[place]), length)
    return first[:length]


def _left_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64 (n, longest): the last token of every row stands last."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, longest - len(row) :] = torch.tensor(row, dtype=torch.int64)
        mask[place, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)


def _positions(mask: Tensor) -> Tensor:
    """The place of each token among those that count, (n, T)."""
    return (mask.cumsum(1) - 1).clamp_min(0)
