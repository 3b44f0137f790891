"""Continued pre-training, few labels and pseudo-labels: what each changes, and what it leaves alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents import FitOptions, load_policy, make_policy, save_policy
from recloop.agents.language.bases import Base
from recloop.agents.language.classifier import LanguageClassifier
from recloop.agents.language.examples import NextItems
from recloop.agents.language.fitting import OwnTask, pretrain
from recloop.agents.language.pairs import LabelledPairs, ShownPairs
from recloop.agents.language.ranker import LanguageRanker
from recloop.agents.language.tokens import Tokens, Words
from recloop.agents.language.tuning import TuningConfig, opened
from recloop.encoders.base.errors import PolicyError
from recloop.envs.world.world import World

Tiny = Callable[..., Path]


def ranker(world: World, folder: Path, **more: Any) -> LanguageRanker:
    settings = {"model": str(folder), "tuning.batch": 8, "tuning.layers": 1, **more}
    made = make_policy("lm-ranker", world, FitOptions(steps=2, settings=settings))
    assert isinstance(made, LanguageRanker)
    return made


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_models_own_task_is_learned_from_the_texts(kind: str, world: World, tiny: Tiny) -> None:
    """Titles are "red thing aa" or "blue thing aa": after some steps the words are foretold far better."""
    tuning = TuningConfig(method="all", pretraining=120, batch=16, learning_rate=1e-2, validations=2)
    language, tokenizer = Base.of(str(tiny(kind))).load(torch.device("cpu"))
    language = opened(language, tuning)
    words = Words.of(tokenizer)
    told = Tokens.of(tokenizer, list(world.catalogue.titles), 16)
    rng = np.random.default_rng(0)

    def loss() -> float:
        with torch.no_grad():
            return float(np.mean([float(OwnTask(language, words, seed).eval().loss(told)) for seed in range(5)]))

    before, state = loss(), torch.random.get_rng_state()
    history = pretrain(
        language, words, tuning, lambda count: told[torch.from_numpy(rng.integers(24, size=count))], FitOptions()
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(history.passes) == 2
    assert (words.mask is None) == (kind == "decoder")
    assert loss() < 0.6 * before


def test_a_pretrained_policy_is_kept_as_any_other(world: World, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("encoder")
    more = {"tuning.method": "lora", "tuning.pretraining": 3}
    mine, again, without = ranker(world, folder, **more), ranker(world, folder, **more), ranker(world, folder)
    assert mine.tensors().keys() == without.tensors().keys(), "the map of its own task is thrown away"
    assert all(torch.equal(value, again.tensors()[name]) for name, value in mine.tensors().items())
    assert not torch.equal(mine.tensors()["items"], without.tensors()["items"])
    save_policy(mine, tmp_path / "policy")
    observation = {"history": world.users.history}
    assert torch.equal(load_policy(tmp_path / "policy").scores(observation), mine.scores(observation))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tuning.method": "head", "tuning.pretraining": 5}, "take all, top or an adapter"),
        ({"tuning.pretraining": -1}, "takes 0 steps or more"),
        ({"tuning.labelled": 0.0}, r"labelled=0.0 of tuning must lie in \(0, 1\]"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], words: str, world: World, tiny: Tiny) -> None:
    with pytest.raises(PolicyError, match=words):
        ranker(world, tiny("encoder"), **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pseudo_labels": 0.4, "tuning.labelled": 0.5}, r"must lie in \(0.5, 1\), or be 0"),
        ({"pseudo_labels": 0.9}, "need exposures without labels; lower tuning.labelled"),
        (
            {"pseudo_labels": 0.9, "tuning.labelled": 0.5, "negatives_from": "catalogue"},
            "need exposures, and the pairs",
        ),
    ],
)
def test_pseudo_labels_ask_for_unlabelled_exposures(
    settings: dict[str, Any], words: str, world: World, tiny: Tiny
) -> None:
    with pytest.raises(PolicyError, match=words):
        make_policy("lm-classifier", world, FitOptions(settings={"model": str(tiny("encoder")), **settings}))


def test_few_labels_are_those_of_few_users(world: World) -> None:
    few = NextItems(world, 4, 0.1, np.random.default_rng(0), labelled=0.25)
    everyone = NextItems(world, 4, 0.1, np.random.default_rng(0))
    assert set(few.held) == set(everyone.held)
    assert len(few.train) == round(len(everyone.train) * 0.25)
    assert set(few.train) | set(few.unlabelled) == set(everyone.train)
    assert not set(few.train) & set(few.unlabelled)
    assert set(few.draw(200).users) <= set(few.train)
    assert set(few.draw(500, everybody=True).users) & set(few.unlabelled)


def test_what_users_without_labels_took_is_not_looked_at(world: World, tiny: Tiny) -> None:
    """Their answers turned about, popularity included, the ranker is the same."""
    moments = NextItems(world, 10, 0.1, np.random.default_rng([0, 0x1A]), labelled=0.3)
    turned = world.sequences.items.copy()
    for user in moments.unlabelled:
        rows = slice(world.sequences.offsets[user], world.sequences.offsets[user + 1])
        turned[rows] = 23 - turned[rows]
    sequences = replace(world.sequences, items=turned)
    counts = torch.from_numpy(sequences.popularity(world.users.rows("train").numpy()))
    other = replace(world, sequences=sequences, catalogue=replace(world.catalogue, popularity=counts))
    assert not torch.equal(counts, world.catalogue.popularity)
    folder, few = tiny("encoder"), {"tuning.method": "head", "tuning.labelled": 0.3}
    mine, theirs = (ranker(one, folder, **few).tensors() for one in (world, other))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    mine, theirs = (ranker(one, folder, **{"tuning.method": "head"}).tensors() for one in (world, other))
    assert any(not torch.equal(mine[name], theirs[name]) for name in mine)


def test_only_what_is_foretold_with_certainty_is_learned_from(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seer of the true answers who is sure of even items alone: those of users without labels are taken up."""
    moments = NextItems(world, 4, 0.1, np.random.default_rng(0), labelled=0.3)
    pairs, slates = ShownPairs(world, moments), world.sequences.slates
    assert slates is not None
    made, places = pairs._pairs, []

    def watched(chosen: Any, taken: Tensor) -> LabelledPairs:
        places.append(chosen)
        return made(chosen, taken)

    def seer(asked: LabelledPairs) -> Tensor:
        assert not asked.taken.any(), "the answers are not handed over"
        answers = torch.from_numpy(slates.answers[places[-1][:, 0], places[-1][:, 1], 0] > 0.5).float()
        return 0.5 + 0.49 * (asked.items % 2 == 0) * (2 * answers - 1)

    monkeypatch.setattr(pairs, "_pairs", watched)
    taken, left = pairs.learn_from_unlabelled(seer, 0.9)
    assert taken > 5
    assert left > 5
    assert pairs._named is not None
    for found, answer in zip(pairs._named, (True, False), strict=True):
        owners = pairs._owner[found[:, 0]]
        assert set(owners) <= set(moments.unlabelled)
        items = slates.items[found[:, 0], found[:, 1]]
        assert (items % 2 == 0).all()
        assert ((slates.answers[found[:, 0], found[:, 1], 0] > 0.5) == answer).all()
    drawn = next(pairs.batches(1, 400))
    assert len(drawn.items) == 400


def test_a_classifier_learns_from_what_it_named(world: World, tiny: Tiny) -> None:
    settings = {"model": str(tiny("encoder")), "candidates": 6, "tuning.batch": 8, "tuning.method": "all"}
    few = {**settings, "tuning.labelled": 0.4}
    found = [
        make_policy("lm-classifier", world, FitOptions(steps=2, settings=one)).tensors()
        for one in (few, {**few, "pseudo_labels": 0.51}, {**few, "pseudo_labels": 0.51})
    ]
    assert all(torch.equal(found[1][name], found[2][name]) for name in found[1])
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert LanguageClassifier.config_class is not None
