"""Histories as text."""

import numpy as np
import pytest

from recloop.encoders.base.errors import LogError
from recloop.encoders.text.history import HistoryTemplate, history_text
from recloop.envs.logs.behavior_text import default_template, history_texts
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Sequences

SIGNALS = (Signal("consume"), Signal("rating", "ordinal", levels=(1, 2, 3, 4, 5), given_on="consume"))
TITLES = ["Toy Story (1995)", "Heat (1995)", "Alien (1979)"]


def sequences() -> Sequences:
    return Sequences(
        catalogue_size=3,
        offsets=np.array([0, 3, 3]),
        items=np.array([0, 2, 1]),
        feedback=np.array([[1, 5], [1, 0], [1, 2]], dtype=np.float32),
        given=np.array([[True, True], [True, False], [True, True]]),
    )


def test_a_history_reads_oldest_first() -> None:
    told = history_texts(sequences(), SIGNALS, TITLES, np.array([1, 0]))
    assert told == ["nothing yet", "rated 5: Toy Story (1995); Alien (1979); rated 2: Heat (1995)"]


def test_the_newest_is_kept() -> None:
    template = HistoryTemplate(most_items=2, before="They saw: ")
    assert history_text(TITLES, None, template) == "They saw: Heat (1995); Alien (1979)"
    told = history_texts(sequences(), SIGNALS, TITLES, np.array([0]), template)
    assert told == ["They saw: Alien (1979); rated 2: Heat (1995)"]


def test_a_user_changes_the_template() -> None:
    template = HistoryTemplate(lines=("{title} [{rating:.1f}/5]", "{title} [?]"), separator="\n")
    assert history_text(TITLES[:2], [{"rating": 4}, {}], template) == "Toy Story (1995) [4.0/5]\nHeat (1995) [?]"
    assert default_template((Signal("consume"),)).lines == ("{title}",)


def test_braces_in_titles_are_harmless() -> None:
    assert history_text(["{0.__class__}"], [{"rating": 1.0}]) == "rated 1: {0.__class__}"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{title.__class__}", "is no plain name"),
        ("{}", "is no plain name"),
        ("{title", "is broken"),
        ("{rating:{title}}", "plain format only"),
        ("{title!r}", "plain format only"),
        ("{rating:zz}", "field 'rating'"),
    ],
)
def test_broken_templates(line: str, wanted: str) -> None:
    with pytest.raises(LogError, match=wanted):
        HistoryTemplate(lines=(line,))


def test_unknown_fields_and_lengths() -> None:
    template = HistoryTemplate(lines=("{ratng:g}: {title}",))
    with pytest.raises(LogError, match="did you mean 'rating'"):
        history_texts(sequences(), SIGNALS, TITLES, np.array([0]), template)
    with pytest.raises(LogError, match="2 titles has 1 feedbacks"):
        history_text(TITLES[:2], [{}])
