"""Instruction retrieval: nothing of the evaluation's wording is trained on, and the measures by hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.instruction.facts import ItemFacts, item_facts
from recloop.encoders.instruction.pairs import Instruction
from recloop.encoders.instruction.phrases import TRAINING
from recloop.encoders.instruction.spoken import SPOKEN
from recloop.encoders.text.encoder import TextEncoder
from recloop.encoders.text.models import DEFAULT_MODEL
from recloop.experiments.studies.instruction_retrieval import (
    COSINE,
    HEAD,
    TOLD,
    RetrievalConfig,
    _among,
    _share,
    bootstrap,
    main,
    told,
)


def test_no_phrase_of_the_evaluation_is_trained_on() -> None:
    assert not SPOKEN.templates() & TRAINING.templates()
    lower = {way.lower() for way in TRAINING.templates()}
    assert not {way.lower() for way in SPOKEN.templates()} & lower


def test_the_evaluation_says_every_genre_and_decade_in_other_words() -> None:
    assert SPOKEN.synonyms.keys() == TRAINING.synonyms.keys()
    for value, words in SPOKEN.synonyms.items():
        assert not set(words) & {value, value.lower(), *TRAINING.synonyms[value]}


def test_measures_by_hand() -> None:
    scores = torch.arange(30, 0, -1).float()  # item 0 is the best
    asked = Instruction("", (("genre", "Comedy"),), 3, np.array([3, 9, 10, 11]))
    assert _share(scores, asked) == 0.2
    named = Instruction("", (("alike", "x"),), 0, np.array([10]), named=0)
    assert _share(scores, named) == 0.1  # without item 0, item 10 moves up to the tenth place
    assert _among(scores, asked, np.arange(10, 30)) == 1.0
    assert np.isnan(_among(scores, asked, np.arange(20, 30)))


def test_the_interval_of_a_constant_is_a_point() -> None:
    got = bootstrap(np.array([1.0, np.nan, 1.0]), np.random.default_rng(0))
    assert got == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_attributes_in_words() -> None:
    facts: ItemFacts = item_facts(["Alien (1979)", "Heat (1995)"], ["", ""], categories=["Horror", "Crime"])
    assert told(facts)[0] == "Alien (1979). category: Horror; decade: 1970s; year: 1979"


@pytest.mark.slow
def test_the_head_beats_cosine_on_held_out_films(tmp_path: Path) -> None:
    data = os.environ.get("RECLOOP_DATA")
    if not data:
        pytest.skip("RECLOOP_DATA is not set: no MovieLens log to measure on")
    try:
        TextEncoder(DEFAULT_MODEL)
    except EncoderError as error:
        pytest.skip(f"no language model: {error}")
    table = main(RetrievalConfig(Path(data) / "ml-100k", seeds=1, out=tmp_path / "kept.csv"))
    rows = table.set_index(["what", "metric"])
    for metric in ("success@10", "precision@10"):
        assert rows.loc[(f"{HEAD} - {COSINE}", metric), "low"] > 0
        assert rows.loc[(TOLD, metric), "mean"] > 0
