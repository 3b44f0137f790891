"""What is told of a group is what sets it apart, not what everybody has or what was seen once."""

import math

import numpy as np
import pytest

from recloop.encoders.patterns import portraits
from recloop.encoders.patterns.portraits import telling


def test_the_most_telling_is_not_the_most_popular() -> None:
    counts = np.array([[500.0, 80.0, 1.0], [500.0, 5.0, 0.0]])
    z = telling(counts)
    assert z[0].argmax() == 1
    assert z[0, 2] < 1.96, "what was seen once is no evidence"


def test_it_is_the_formula_of_the_paper() -> None:
    counts = np.array([[8.0, 2.0], [3.0, 7.0]])
    prior, of_other = 2 * 11 / 20, 2 * 9 / 20
    odds = math.log((8 + prior) / (2 + of_other)) - math.log((3 + prior) / (7 + of_other))
    assert telling(counts)[0, 0] == pytest.approx(odds / math.sqrt(1 / (8 + prior) + 1 / (3 + prior)))


def test_portraits_are_titles_and_attributes_without_their_kind() -> None:
    items = np.array([[40.0, 38.0, 50.0], [1.0, 1.0, 50.0]])
    attributes = np.array([[60.0, 10.0], [5.0, 60.0]])
    first, second = portraits(items, ["Aladdin", "The Lion King", "Titanic"], attributes, ["genre:Children's", "War"])
    assert first.name == "Children's; Aladdin, The Lion King"
    assert second.name == "War; Titanic"


def test_groups_that_do_the_same_have_nothing_to_tell() -> None:
    same = np.full((2, 3), 20.0)
    assert {p.name for p in portraits(same, "abc", same[:, :0], [])} == {"nothing sets it apart"}
