"""Tiny language models with their tokenizers, made on the spot: no network, no downloaded weights."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5Model,
)

WORDS = ("red", "blue", "green", "shoe", "hat", "coat", "a", "the", "warm", "old")

TinyModel = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other over tiny tensors take most of the time otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _tokenizer(specials: tuple[str, ...], bert: bool) -> PreTrainedTokenizerFast:
    vocabulary = {word: row for row, word in enumerate((*specials, *WORDS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=specials[0]))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if not bert:
        return PreTrainedTokenizerFast(tokenizer_object=core, unk_token=specials[0], eos_token=specials[0])
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def _model(kind: str, words: int) -> PreTrainedModel:
    if kind == "bert":
        return BertModel(
            BertConfig(
                vocab_size=words, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=32, max_position_embeddings=24, pad_token_id=1,
            )
        )  # fmt: skip
    if kind == "gpt2":
        return GPT2Model(GPT2Config(vocab_size=words, n_embd=16, n_layer=2, n_head=2, n_positions=24))
    if kind == "t5":
        return T5Model(T5Config(vocab_size=words, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))
    config, model = {
        "qwen2": (Qwen2Config, Qwen2Model), "qwen3": (Qwen3Config, Qwen3Model), "llama": (LlamaConfig, LlamaModel),
    }[kind]  # fmt: skip
    return model(
        config(
            vocab_size=words, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            head_dim=8, intermediate_size=32, max_position_embeddings=24,
        )
    )  # fmt: skip


@pytest.fixture
def tiny_model(tmp_path: Path) -> TinyModel:
    """`tiny_model("bert")`, `"gpt2"`, `"t5"`, `"qwen2"`, `"qwen3"`, `"llama"` -> a folder with a model of 16
    dimensions, 2 layers and 24 places; of these bert alone has special tokens and one to pad with.
    """

    def make(kind: str) -> Path:
        folder = tmp_path / f"tiny-{kind}"
        bert = kind == "bert"
        tokenizer = _tokenizer(("[UNK]", "[PAD]", "[CLS]", "[SEP]") if bert else ("<|endoftext|>",), bert)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _model(kind, len(tokenizer)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make
