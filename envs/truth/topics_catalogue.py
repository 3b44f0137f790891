"""The catalogue of the topic world: clips whose text and knowledge graph tell their topic and their quality."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.schema import Columns

TOPICS: dict[str, tuple[str, ...]] = {
    "space": ("rockets", "comets", "orbiting stations", "the far side of the moon", "black holes", "Mars rovers"),
    "cooking": ("sourdough", "street food", "fermented cabbage", "open-fire grilling", "noodle soups", "old recipes"),
    "football": ("penalty shoot-outs", "underdog clubs", "derby days", "goalkeepers", "youth academies", "tactics"),
    "jazz": ("smoky clubs", "trumpet solos", "big bands", "bebop evenings", "double bass players", "live sessions"),
    "gardens": ("roses", "balcony tomatoes", "old orchards", "wild meadows", "garden ponds", "pruning"),
    "trains": ("night trains", "steam engines", "mountain railways", "stations at dawn", "dining cars", "signal boxes"),
}
_KINDS = ("documentary", "interview", "travel diary", "explainer", "portrait", "field report")
_PRAISE = ("an award-winning", "a superb", "a well-made", "an ordinary", "a hasty", "a clumsy")
_FIRST = ("Ada", "Ben", "Cleo", "Dario", "Elin", "Femi", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Luca")
_LAST = ("Aalto", "Brandt", "Costa", "Dupont", "Eze", "Fischer", "Garcia", "Holm")
_MAKERS_A_TOPIC = 5


@dataclass(frozen=True)
class TopicCatalogue:
    """Clips by row.

    Args:
        items: indexed by external id, with title, text and entity.
        knowledge: clip -> topic, maker, kind; maker -> school of their skill.
        topic: int64 (N,).
        quality: float32 (N,) in (0.1, 1).
        topics: names of the T topics.
    """

    items: pd.DataFrame
    knowledge: KnowledgeGraph
    topic: Tensor
    quality: Tensor
    topics: tuple[str, ...]


def topic_catalogue(topics: int, items_a_topic: int, seed: int) -> TopicCatalogue:
    """Draw a catalogue. A maker's skill is half of a clip's quality, the rest is the clip's own luck.

    The text praises in six grades of quality and names the subject; the graph knows makers and their schools.

    Raises:
        RecloopError: for more topics than there are words for.
    """
    if not 1 <= topics <= len(TOPICS):
        raise RecloopError(f"topics={topics}; choose 1 to {len(TOPICS)}")
    rng = np.random.default_rng(seed)
    names = tuple(TOPICS)[:topics]
    rows, triples = [], []
    people = [f"{first} {last}" for last in _LAST for first in _FIRST]
    quality = []
    for t, name in enumerate(names):
        makers = people[t * _MAKERS_A_TOPIC : (t + 1) * _MAKERS_A_TOPIC]
        skill = rng.permutation(np.linspace(-1.2, 1.2, _MAKERS_A_TOPIC))
        for maker, level in zip(makers, skill, strict=True):
            triples.append((maker, "school", "film school" if level > 0 else "self-taught"))
        for j in range(items_a_topic):
            which = int(rng.integers(_MAKERS_A_TOPIC))
            worth = 1.5 * (0.7 * skill[which] + 0.7 * rng.standard_normal()) - 1.0
            good = 0.1 + 0.9 / (1.0 + np.exp(-worth))
            quality.append(good)
            kind, subject = str(rng.choice(_KINDS)), str(rng.choice(TOPICS[name]))
            grade = _PRAISE[min(5, int((1.0 - good) * 6.6))]
            item, title = f"{name}-{j}", f"{subject[0].upper()}{subject[1:]}, {kind} {j}"
            text = f"{title}. {grade.capitalize()} {kind} about {name} and {subject} by {makers[which]}."
            rows.append((item, title, text, f"clip:{item}"))
            triples += [(f"clip:{item}", "topic", name), (f"clip:{item}", "maker", makers[which])]
            triples.append((f"clip:{item}", "kind", kind))
    columns = [Columns.item, Columns.title, Columns.text, Columns.entity]
    heads, relations, tails = (list(column) for column in zip(*triples, strict=True))
    return TopicCatalogue(
        items=pd.DataFrame(rows, columns=columns).set_index(Columns.item),
        knowledge=KnowledgeGraph.from_names(heads, relations, tails),
        topic=torch.arange(topics).repeat_interleave(items_a_topic),
        quality=torch.tensor(quality, dtype=torch.float32),
        topics=names,
    )
