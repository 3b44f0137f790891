"""Topics: the planted ones are found, and a new user's mix is scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import LatentDirichletAllocation

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.patterns import BehaviorTopics, item_terms
from recloop.encoders.patterns.topics import _ROUNDS_IN_FIT

WORDS = ("dog", "cat", "hen", "oak", "elm", "fir")


def users_of(seed: int = 0, users: int = 40) -> np.ndarray:
    """Counts (users, 6): even users speak of animals, odd ones of trees, now and then of the other."""
    chance = np.random.default_rng(seed)
    animals = np.array([0.32, 0.32, 0.32, 0.02, 0.01, 0.01])
    shares = np.where(np.arange(users)[:, None] % 2 == 0, animals, animals[::-1])
    return np.stack([chance.multinomial(30, share) for share in shares]).astype(float)


def test_planted_topics_are_found() -> None:
    topics = BehaviorTopics.fit(users_of(), WORDS, 2)
    mix = topics.mix(users_of(seed=1))
    assert mix.dtype is torch.float32
    assert mix.shape == (40, topics.dim)
    assert mix.sum(1).allclose(torch.ones(40))
    chosen = mix.argmax(1)
    assert (chosen[::2] == chosen[0]).all()
    assert (chosen[1::2] == 1 - chosen[0]).all()


@pytest.mark.parametrize("topics", [2, 5])
def test_a_mix_is_that_of_scikit_learn(topics: int) -> None:
    counts = users_of()
    ours = BehaviorTopics.fit(counts, WORDS, topics, seed=4)
    theirs = LatentDirichletAllocation(
        topics, max_iter=10, learning_method="batch", max_doc_update_iter=_ROUNDS_IN_FIT, random_state=4
    ).fit(counts)
    theirs.set_params(max_doc_update_iter=100)
    strangers = np.concatenate([users_of(seed=2), np.zeros((1, 6)), np.eye(6)])
    assert np.abs(ours.mix(strangers).numpy() - theirs.transform(strangers)).max() < 1e-4


def test_topics_of_a_sample_are_those_of_its_users() -> None:
    counts = users_of(users=60)
    some = np.sort(np.random.default_rng(3).choice(60, 20, replace=False))
    sampled = BehaviorTopics.fit(counts, WORDS, 2, sample=20, seed=3)
    assert np.array_equal(sampled.components, BehaviorTopics.fit(counts[some], WORDS, 2, seed=3).components)


def test_a_user_whose_terms_nobody_knows_has_the_even_mix() -> None:
    topics = BehaviorTopics.fit(users_of(), WORDS, 2)
    assert topics.mix([["submarine"], []]).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_lists_of_terms_are_counted() -> None:
    topics = BehaviorTopics.fit(users_of(), WORDS, 2)
    assert topics.counts([["dog", "dog", "yew"], ["fir"]]).toarray().tolist() == [
        [2, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert torch.equal(topics.mix([["dog", "dog"]]), topics.mix(np.array([[2.0, 0, 0, 0, 0, 0]])))


def test_bad_input_is_one_line() -> None:
    with pytest.raises(EncoderError, match="no user consumed an item with a known term"):
        BehaviorTopics.fit(np.zeros((3, 6)), WORDS, 2)
    with pytest.raises(EncoderError, match="0 topics"):
        BehaviorTopics.fit(users_of(), WORDS, 0)
    topics = BehaviorTopics.fit(users_of(), WORDS, 2)
    with pytest.raises(EncoderError, match="know 6 terms"):
        topics.mix(np.ones((1, 7)))
    with pytest.raises(EncoderError, match="NaN or negative"):
        topics.mix(np.full((1, 6), np.nan))


def test_terms_leave_out_what_one_item_or_most_items_have() -> None:
    texts = ["A red dog.", "The red cat barks", "a cat and a dog, red", "red oaks in 1994"]
    terms = item_terms(texts, [["genre:Pets"], ["genre:Pets", "genre:Odd"], [], []])
    assert terms.attributes == ("genre:Pets",)
    assert terms.words == ("cat", "dog")
    assert terms.matrix.toarray().tolist() == [[1, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 0]]
