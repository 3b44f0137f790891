"""A tiny encoder and a tiny decoder made on the spot, and a world whose titles tell its items apart. No network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world
from recloop.envs.world.world import World

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EOS]")
_WORDS = "nothing yet ; : . , which would this person choose next liked oldest first answer before choices"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def world() -> World:
    """60 users who are written down and 24 items, whose titles say what they are."""
    made = boredom_world(
        BoredomWorldConfig(users=60, topics=2, items=24, slate_size=3, max_steps=5, dim=8, state_epochs=1,
                         user_epochs=1)
    )  # fmt: skip
    letters = [chr(97 + row) for row in range(24)]
    titles = tuple(f"{'red' if row % 2 else 'blue'} thing {a}{a}" for row, a in enumerate(letters))
    return replace(made, catalogue=replace(made.catalogue, titles=titles, texts=titles))


@pytest.fixture(scope="session")
def tiny(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny("encoder")` or `tiny("decoder", seed=1, pad=False)` -> a folder with a model of 32 dimensions."""

    def make(kind: str, seed: int = 0, pad: bool = True, positions: int = 256) -> Path:
        folder = tmp_path_factory.mktemp("models") / f"{kind}-{seed}"
        tokenizer = _tokenizer(world, kind, pad)
        sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                     vocab_size=len(tokenizer), max_position_embeddings=positions)  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model: Any
            if kind == "encoder":
                model = BertModel(BertConfig(**sizes))
            else:
                model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2))
            for weight in model.parameters():  # so that texts differ, as a trained model's do
                if weight.dim() > 1:
                    weight.data.mul_(5)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def _tokenizer(world: World, kind: str, pad: bool) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [_WORDS, " ".join("abcdefghijklmnopqrstuvwxyz"), *world.catalogue.titles]
    words = {word for text in texts for word, _ in core.pre_tokenizer.pre_tokenize_str(text.lower())}
    vocabulary = {word: row for row, word in enumerate([*_SPECIAL, *sorted(words)])}
    core.model = models.WordLevel(vocabulary, unk_token="[UNK]")
    if kind == "encoder":
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
        )  # fmt: skip
    own = {"pad_token": "[PAD]"} if pad else {}
    if kind == "encoder":
        own["mask_token"] = "[MASK]"
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="[EOS]",
                                   cls_token="[CLS]", sep_token="[SEP]", model_max_length=512, **own)  # fmt: skip
