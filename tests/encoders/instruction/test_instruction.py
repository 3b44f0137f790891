"""Instructions as vectors: what is known of items, how it is asked for, and what the fitted head retrieves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.instruction.encoder import LONGEST, InstructionEncoder, InstructionWarning, other_language
from recloop.encoders.instruction.facts import ItemFacts, consumed_together, item_facts
from recloop.encoders.instruction.fit import InstructionConfig, fit_instruction_encoder
from recloop.encoders.instruction.pairs import draw_instructions
from recloop.encoders.instruction.phrases import PLAIN, TRAINING
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.text.encoder import HashedText, TextEncoder

GENRES = ("Comedy", "Horror", "Western")
ITEMS = 30
TITLES = tuple(f"Tale {row} ({1975 + 10 * (row % 3)})" for row in range(ITEMS))
"""Item i has genre i % 3, its decade with it, and director i % 5."""


def _facts() -> ItemFacts:
    heads = [f"film:{title}" for title in TITLES]
    graph = KnowledgeGraph.from_names(
        [*heads, *heads],
        ["genre"] * ITEMS + ["director"] * ITEMS,
        [f"genre:{GENRES[row % 3]}" for row in range(ITEMS)] + [f"person:Ann{row % 5} Lee" for row in range(ITEMS)],
    )
    return item_facts(TITLES, [""] * ITEMS, graph, heads)


@pytest.fixture(scope="module")
def encoder() -> InstructionEncoder:
    config = InstructionConfig(dim=32, pairs=600, epochs=25, batch_size=64, learning_rate=0.01)
    return fit_instruction_encoder(HashedText(128), _facts(), TITLES, config, seed=0)


def test_facts_know_their_items() -> None:
    facts = _facts()
    assert facts.noun == "film"
    assert facts.kinds == ("decade", "director", "genre", "year")
    assert facts.fitting([("genre", "Horror"), ("director", "Ann4 Lee")]).tolist() == [4, 19]
    assert facts.fitting([("decade", "1990s")]).tolist() == list(range(2, ITEMS, 3))
    assert ("title", "Tale 7") in facts.of_item[7]


def test_telling_words_are_shared_by_few_and_not_in_the_title() -> None:
    texts = ["the robot walks through marsh and desert", "robot marsh desert again", "dragons", "dragons"]
    facts = item_facts(["Robot", "Other", "Third", "Fourth"], texts)
    assert [kind for kind, _ in facts.of_item[0]] == ["title"]  # "robot" is its title: two words are left
    assert ("words", "desert, marsh, robot") in facts.of_item[1]


def test_columns_of_unlike_length_are_refused() -> None:
    with pytest.raises(EncoderError, match="2 entities for 3 titles"):
        item_facts(["a", "b", "c"], ["", "", ""], entities=["x", None])


def test_items_consumed_together_by_hand() -> None:
    items = np.array([0, 1, 0, 1, 0, 2, 3, 3])  # users: {0, 1}, {0, 1}, {0, 2}, {3, 3}
    near = consumed_together(items, np.array([0, 2, 4, 6, 8]), 4, most=2, fewest=1)
    assert near.tolist() == [[1, 2], [0, -1], [0, -1], [-1, -1]]
    assert consumed_together(items, np.array([0, 2, 4, 6, 8]), 4, most=1, fewest=2).tolist() == [[1], [0], [-1], [-1]]


def test_instructions_fit_the_item_that_they_are_made_from() -> None:
    facts = _facts()
    drawn = draw_instructions(facts, TRAINING, np.arange(10, 20), 300, np.random.default_rng(0))
    assert {pair.item for pair in drawn} == set(range(10, 20))
    assert all(pair.item in pair.fitting for pair in drawn)
    assert {"genre", "director", "decade + genre", "title"} <= {pair.kind for pair in drawn}
    assert not any("decade" in pair.kind and "year" in pair.kind for pair in drawn)


def test_what_an_item_is_like_leaves_the_item_out() -> None:
    facts = item_facts(["One", "Two", "Three"], ["", "", ""], neighbours=np.array([[1, 2], [0, -1], [-1, -1]]))
    drawn = draw_instructions(facts, PLAIN, np.arange(3), 100, np.random.default_rng(0))
    likeness = {pair.item: pair for pair in drawn if pair.kind == "alike"}
    assert likeness[0].fitting.tolist() == [1, 2]
    assert likeness[0].named == 0
    assert likeness[0].text == "something like One"
    assert set(likeness) == {0, 1}


def test_nothing_known_is_said() -> None:
    facts = ItemFacts(("", ""), "", {})
    with pytest.raises(EncoderError, match="nothing is known of 2 items"):
        draw_instructions(facts, TRAINING, np.arange(2), 5, np.random.default_rng(0))


def test_it_retrieves_what_is_meant(encoder: InstructionEncoder) -> None:
    best = (
        encoder.scores(["a horror film", "a film directed by Ann2 Lee", "a funny film from the seventies"])
        .topk(6)
        .indices
    )
    assert (best[0] % 3 == 1).all()
    assert (best[1] % 5 == 2).all()
    assert (best[2] % 3 == 0).all()


def test_items_held_out_of_the_pairs_are_retrieved() -> None:
    config = InstructionConfig(dim=64, pairs=600, epochs=10, batch_size=64, learning_rate=0.003)
    encoder = fit_instruction_encoder(HashedText(256), _facts(), [""] * ITEMS, config, items=np.arange(21))
    western = torch.arange(21, ITEMS) % 3 == 2
    for words in ("show me a western movie", "recommend a cowboy film"):
        scores = encoder.scores([words])[0, 21:]
        assert scores[western].mean() > scores[~western].mean() + 0.05


def test_equal_seeds_give_equal_bits() -> None:
    config = InstructionConfig(dim=8, pairs=60, epochs=2)
    one, two, other = (fit_instruction_encoder(HashedText(32), _facts(), TITLES, config, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.table, two.table)
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.table, other.table)


def test_a_blank_instruction_is_no_wish(encoder: InstructionEncoder) -> None:
    vectors = encoder.encode(["", "  \n", "a western"])
    assert not vectors[:2].any()
    assert vectors[2].norm().item() == pytest.approx(1, abs=1e-5)
    assert not encoder.scores([""]).any()
    assert not encoder.table[-1].any()


def test_long_text_is_cut_and_counted(encoder: InstructionEncoder) -> None:
    before = encoder.truncated
    long = " ".join(["western"] * LONGEST)
    with pytest.warns(InstructionWarning, match=f"longer than {LONGEST} words"):
        cut = encoder.encode([long + " horror"])
    assert encoder.truncated == before + 1
    assert torch.equal(cut, encoder.encode([long]))


@pytest.mark.parametrize(
    "text",
    [
        "ein lustiger Film aus den Neunzigern",
        "je veux voir un film drôle des années quatre-vingt-dix",
        "quiero ver una película de los años noventa",
        "смешной фильм девяностых",
        "九十年代的喜剧片",
    ],
)
def test_another_language_is_answered_with_a_warning(encoder: InstructionEncoder, text: str) -> None:
    with pytest.warns(InstructionWarning, match="does not seem to be English"):
        assert torch.isfinite(encoder.encode([text])).all()


@pytest.mark.parametrize("text", ["a horror film without horror", "anything but a comedy", "a film except a western"])
def test_what_is_not_wanted_is_answered_with_a_warning(encoder: InstructionEncoder, text: str) -> None:
    with pytest.warns(InstructionWarning, match=r"says what is not wanted .* say what is wanted"):
        assert torch.isfinite(encoder.encode([text])).all()


@pytest.mark.parametrize(
    "text",
    [
        "a funny film from the nineties",
        "a film starring Al Pacino",
        "Amélie",
        "something like La vita è bella",
        "a film by Pedro Almodóvar",
        "film noir",
        "Das Boot",
        "The Umbrellas of Cherbourg (Parapluies de Cherbourg, Les)",
        "1995",
        "",
    ],
)
def test_english_and_names_pass(text: str) -> None:
    assert other_language(text) is None


class _Broken(HashedText):
    def encode(self, texts: object, progress: bool = False, keep: bool = True) -> torch.Tensor:
        return torch.full((len(texts), self.dim), torch.nan)  # type: ignore[arg-type]


def test_nan_is_refused(encoder: InstructionEncoder) -> None:
    broken = InstructionEncoder(_Broken(128), encoder.weight, encoder.bias, encoder.table)
    with pytest.raises(EncoderError, match="NaN"):
        broken.encode(["a western"])
    with pytest.raises(EncoderError, match="NaN"):
        fit_instruction_encoder(_Broken(16), _facts(), TITLES, InstructionConfig(pairs=10, epochs=1))
    with pytest.raises(EncoderError, match="NaN"):
        InstructionEncoder(HashedText(128), encoder.weight * torch.nan, encoder.bias, encoder.table)


def test_another_language_model_is_refused(encoder: InstructionEncoder) -> None:
    with pytest.raises(EncoderError, match="have 64 numbers, the instruction head was fitted on 128"):
        InstructionEncoder(HashedText(64), encoder.weight, encoder.bias, encoder.table)


def test_it_opens_without_its_language_model(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("bert")
    text = TextEncoder(model, use_cache=False)
    made = InstructionEncoder(text, torch.eye(text.dim), torch.zeros(text.dim), torch.eye(3, text.dim))
    made.save(tmp_path / "saved")
    model.rename(tmp_path / "elsewhere")
    again = InstructionEncoder.load(tmp_path / "saved")
    assert torch.equal(again.table, made.table)
    assert not again.encode([""]).any()
    with pytest.raises(EncoderError, match=f"instructions cannot be read: .*{model.name}"):
        again.encode(["a red hat"])
    with pytest.raises(EncoderError, match=f"instructions cannot be saved: .*{model.name}"):
        again.save(tmp_path / "copy")
