"""The items of the truth worlds: clips whose text and graph tell their topic plainly and their traits roughly."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.schema import Columns

TOPICS = ("space", "cooking", "football", "jazz", "gardens", "trains", "chess", "oceans", "fashion", "history")
"""Names of the topics a truth world may have."""

_SUBJECTS = ("beginners", "legends", "mistakes", "secrets", "records", "travel", "families", "machines")
_GRADES = ("clumsy", "hasty", "ordinary", "careful", "superb")
"""Words for an item's worth to who consumes it, worst first."""
_TEASERS = ("plain", "catchy", "loud", "shocking")
"""Words for how much an item tempts, least first."""


@dataclass(frozen=True)
class Theme:
    """What a catalogue is about: the words its texts are made of.

    Args:
        kind: what an item is, before its number in ids and entities.
        topics: names, as many as there may be topics.
        subjects: what titles go on with.
        grades: words for an item's worth to who consumes it, worst first.
        teasers: words for how much an item tempts, least first.
        text: with `title`, `topic`, `grade` (or `Grade`) and `teaser` in braces; the topic should weigh.
    """

    kind: str
    topics: tuple[str, ...]
    subjects: tuple[str, ...]
    grades: tuple[str, ...]
    teasers: tuple[str, ...]
    text: str


CLIPS = Theme(
    "clip", TOPICS, _SUBJECTS, _GRADES, _TEASERS, "{title}: {topic} clip, {topic} talk. {Grade} and {teaser}."
)
RECIPES = Theme(
    kind="recipe",
    topics=("noodles", "curry", "salad", "cake", "soup", "barbecue", "bread", "seafood", "pancakes", "dumplings"),
    subjects=("weeknights", "picnics", "feasts", "children", "leftovers", "lunchboxes", "winter", "brunch"),
    grades=("bland", "simple", "decent", "tasty", "divine"),
    teasers=("humble", "colourful", "rich", "lavish"),
    text="{title}. Cook this {topic} dish: a {topic} recipe, {grade} in taste and {teaser} to look at.",
)
"""Another domain than clips, and hardly a word in common."""


@dataclass(frozen=True)
class TruthCatalogue:
    """Clips by row.

    Args:
        items: indexed by external id, with title, text, category (the topic's name) and entity.
        knowledge: clip -> topic, subject, grade: what the text says in words.
        topic: int64 (N,).
        quality: float32 (N,) in (least, 1): how much an item appeals to who likes its topic.
        bait: float32 (N,) in (0, 1): how much it tempts, where a world tells tempting from good.
        good: float32 (N,) in (0, 1): how much good it does who consumes it; tempting items do less.
    """

    items: pd.DataFrame
    knowledge: KnowledgeGraph
    topic: Tensor
    quality: Tensor
    bait: Tensor
    good: Tensor


@dataclass(frozen=True)
class QualityLaw:
    """How good items are: least + (1 - least) x sigmoid of a normal of this spread and mean."""

    least: float = 0.15
    spread: float = 1.3
    shift: float = 0.0


def truth_catalogue(
    topics: int, items: int, seed: int, law: QualityLaw | None = None, theme: Theme = CLIPS
) -> TruthCatalogue:
    """Draw `items` clips over the first `topics` topics of a theme, in turn.

    A clip's text names the topic thrice (so that it weighs in any text vector), a subject, a grade and a teaser. The
    grade follows half the quality and half the good, the teaser the bait; both with noise of about one word: the text
    tells something of the traits, never all.

    Raises:
        RecloopError: for more topics than there are names for, or fewer items than topics.
    """
    if not 1 <= topics <= len(theme.topics):
        raise RecloopError(f"topics={topics}; choose 1 to {len(theme.topics)}")
    if items < topics:
        raise RecloopError(f"items={items} cannot fill {topics} topics; choose {topics} or more")
    law = law or QualityLaw()
    rng = np.random.default_rng((seed, 0xCA7A))
    topic = np.arange(items) % topics
    tempting = rng.standard_normal(items)
    quality = law.least + (1 - law.least) * _sigmoid(law.spread * rng.standard_normal(items) + law.shift)
    bait = _sigmoid(1.5 * tempting)
    good = _sigmoid(-1.2 * tempting + 1.0 * rng.standard_normal(items))
    grade = _words(theme.grades, (quality + good) / 2, rng)
    teaser = _words(theme.teasers, bait, rng)
    subjects = rng.choice(theme.subjects, items)
    rows, triples = [], []
    for row in range(items):
        name = theme.topics[topic[row]]
        title = f"{name.capitalize()} {subjects[row]} {row}"
        text = theme.text.format(
            title=title, topic=name, grade=grade[row], Grade=grade[row].capitalize(), teaser=teaser[row]
        )
        clip = f"{theme.kind}:{name}-{row}"
        rows.append((f"{name}-{row}", title, text, name, clip))
        triples += [(clip, "topic", name), (clip, "subject", str(subjects[row])), (clip, "grade", grade[row])]
    columns = [Columns.item, Columns.title, Columns.text, Columns.category, Columns.entity]
    heads, relations, tails = (list(column) for column in zip(*triples, strict=True))
    return TruthCatalogue(
        items=pd.DataFrame(rows, columns=columns).set_index(Columns.item),
        knowledge=KnowledgeGraph.from_names(heads, relations, tails),
        topic=torch.from_numpy(topic.astype(np.int64)),
        quality=_tensor(quality),
        bait=_tensor(bait),
        good=_tensor(good),
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _words(words: tuple[str, ...], value: np.ndarray, rng: np.random.Generator) -> list[str]:
    """A word for each value in (0, 1), off by a word now and then."""
    place = value * len(words) + rng.normal(0, 0.5, len(value))
    return [words[int(p)] for p in place.clip(0, len(words) - 1)]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
