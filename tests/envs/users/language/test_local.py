"""A local model: probabilities pinned to a plain loop, shared beginnings, options, the store, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertLMHeadModel

from recloop.encoders.base.errors import BudgetError, EncoderError, LanguageModelError
from recloop.envs.users.language import AnswerStore, LocalConfig, LocalModel, Prompt

Tiny = Callable[[str], Path]
OPENING = "answer as this person would who uses an app that recommends things"
PROMPTS = [
    Prompt(OPENING + " shown now", " number 1 rated 4 answer yes or no"),
    Prompt(OPENING + " shown now", " number 2"),
    Prompt(OPENING + " not taken taken shown now you would", " number 2 taken"),
    Prompt("yes", " no 3"),
]
PLAIN = LocalConfig(cache_shared=False, dtype="float32")
SHARED = LocalConfig(dtype="float32")


def plain(folder: Path, prompt: Prompt, options: tuple[str, ...]) -> torch.Tensor:
    """One question, no padding, no cache."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(prompt.text)["input_ids"]])).logits[0, -1]
    chances = torch.softmax(logits, 0)[[tokenizer.convert_tokens_to_ids(option) for option in options]]
    return chances / chances.sum()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "sliding"])
@pytest.mark.parametrize("options", [("no", "yes"), ("1", "2", "3", "4", "5")])
def test_batches_and_caches_give_what_a_plain_loop_gives(tiny: Tiny, kind: str, options: tuple[str, ...]) -> None:
    folder = tiny(kind)
    want = torch.stack([plain(folder, prompt, options) for prompt in PROMPTS])
    for config in (PLAIN, SHARED, LocalConfig(batch=2, dtype="float32"), LocalConfig(batch=1, dtype="float32")):
        found = LocalModel(str(folder), config).probabilities(PROMPTS, options)
        torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)
    three = LocalModel(str(folder), SHARED).probabilities(PROMPTS[:3], options)  # all with a beginning worth a cache
    torch.testing.assert_close(three, want[:3], atol=1e-5, rtol=1e-4)


def test_a_shared_beginning_is_read_once_where_the_cache_is_plain(tiny: Tiny) -> None:
    for kind, read in (("gpt2", True), ("llama", True), ("sliding", False)):
        model = LocalModel(str(tiny(kind)), SHARED)
        starts, owner = model._common_starts(PROMPTS[:3], [model._tokens(prompt.text) for prompt in PROMPTS[:3]])
        assert [bool(start) for start in starts] == [read, read]
        assert owner == [0, 0, 1]


def test_equal_questions_are_answered_once_and_kept(tiny: Tiny, tmp_path: Path) -> None:
    first = LocalModel(str(tiny("gpt2")), SHARED, AnswerStore(tmp_path / "answers.sqlite"))
    found = first.probabilities([*PROMPTS, *PROMPTS], ("no", "yes"))
    assert torch.equal(found[:4], found[4:])
    assert first.store.spent.calls == 4
    assert first.store.spent.seconds > 0
    again = LocalModel(str(tiny("gpt2")), SHARED, AnswerStore(tmp_path / "answers.sqlite"))
    again._answer = None  # type: ignore[assignment,method-assign]
    assert torch.equal(again.probabilities(PROMPTS, ("no", "yes")), found[:4])
    other = LocalModel(str(tiny("llama")), SHARED, AnswerStore(tmp_path / "answers.sqlite"))
    assert not torch.allclose(other.probabilities(PROMPTS, ("no", "yes")), found[:4])


def test_a_spent_budget_stops_with_what_was_answered_kept(tiny: Tiny) -> None:
    model = LocalModel(str(tiny("gpt2")), LocalConfig(batch=2, max_calls=3, dtype="float32"))
    with pytest.raises(BudgetError, match="2 of 3 questions are answered and the next batch has 2"):
        model.probabilities(PROMPTS, ("no", "yes"))
    assert len(model.store) == 2


def test_answers_outside_the_options_are_none(tiny: Tiny) -> None:
    model = LocalModel(str(tiny("gpt2")), LocalConfig(least_mass=0.999))
    assert bool(model.probabilities(PROMPTS, ("no", "yes")).isnan().all())


def test_what_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    model = LocalModel(str(tiny("gpt2")))
    with pytest.raises(LanguageModelError, match="cannot tell purple, orange apart"):
        model.probabilities(PROMPTS, ("purple", "orange"))
    with pytest.raises(LanguageModelError, match="cannot be told apart"):
        model.probabilities(PROMPTS, ("yes", "Yes"))
    with pytest.raises(LanguageModelError, match=r"700 tokens does not fit .*, which reads 1 to 512; tell less"):
        model.probabilities([Prompt("", "yes " * 700)], ("no", "yes"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="holds no"):
        LocalModel(str(tmp_path / "empty")).probabilities(PROMPTS, ("no", "yes"))


def test_an_encoder_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("gpt2"))
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, initializer_range=1.0)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertLMHeadModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(LanguageModelError, match="holds an encoder, which reads ahead"):
        LocalModel(str(tmp_path / "bert")).probabilities(PROMPTS, ("no", "yes"))
