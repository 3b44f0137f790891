"""Histories as text."""

import pytest

from recloop.encoders.base.errors import LogError
from recloop.encoders.text.history import HistoryTemplate, history_text
from recloop.envs.logs.behavior_text import default_template
from recloop.envs.logs.schema import Signal

SIGNALS = (Signal("consume"), Signal("rating", "ordinal", levels=(1, 2, 3, 4, 5), given_on="consume"))
TITLES = ["Toy Story (1995)", "Heat (1995)", "Alien (1979)"]


def test_a_history_reads_oldest_first() -> None:
    told = history_text(TITLES, [{"rating": 5}, {}, {"rating": 2}], default_template(SIGNALS))
    assert told == "rated 5: Toy Story (1995); Heat (1995); rated 2: Alien (1979)"
    assert history_text([], [], default_template(SIGNALS)) == "nothing yet"


def test_the_newest_is_kept() -> None:
    template = HistoryTemplate(most_items=2, before="They saw: ")
    assert history_text(TITLES, None, template) == "They saw: Heat (1995); Alien (1979)"


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
        template.check([signal.name for signal in SIGNALS])
    with pytest.raises(LogError, match="2 titles has 1 feedbacks"):
        history_text(TITLES[:2], [{}])
