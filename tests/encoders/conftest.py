"""Tiny language models with their tokenizers, made on the spot: no network, no downloaded weights."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

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


@pytest.fixture
def tiny_model(tmp_path: Path) -> TinyModel:
    """`tiny_model("bert")` or `tiny_model("gpt2")` -> a folder with a model of 16 dimensions and 24 places."""

    def make(kind: str) -> Path:
        folder = tmp_path / f"tiny-{kind}"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            if kind == "bert":
                tokenizer = _tokenizer(("[UNK]", "[PAD]", "[CLS]", "[SEP]"), bert=True)
                config = BertConfig(
                    vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=32, max_position_embeddings=24, pad_token_id=1,
                )  # fmt: skip
                BertModel(config).save_pretrained(folder)
            else:
                tokenizer = _tokenizer(("<|endoftext|>",), bert=False)
                GPT2Model(
                    GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=24)
                ).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make
