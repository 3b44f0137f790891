"""A world's knowledge graph: one from elsewhere linked to the items, and how well its embeddings predict triples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.encoders.knowledge.embeddings import fit_embeddings
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.link_prediction import SIDES, Frequency, rank_triples, split_triples
from recloop.encoders.knowledge.linking import Links, link_items, years_of
from recloop.encoders.knowledge.ntriples import query_text
from recloop.encoders.knowledge.sources import read_triples
from recloop.encoders.knowledge.stores.places import is_store, open_store, without_password
from recloop.encoders.knowledge.triple_report import OnBadLines
from recloop.encoders.knowledge.triple_scores import Model
from recloop.envs.logs.readers.side_tables import LINKED
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.world.world import Card

if TYPE_CHECKING:
    from recloop.envs.world.world import Card

_SHOWN = 3
"""Titles that a line names."""


@dataclass(frozen=True)
class SourceReport:
    """Where a knowledge graph came from, and which items it knows.

    Args:
        source: the file or store, without a password.
        triples: what was read, in a sentence.
        given: items whose entity the log names and the graph has.
        links: what was found for the others, by title and year; the given ones are `no title` in it.
        figures: counts, for the card.
    """

    source: str
    triples: str
    given: int
    links: Links
    figures: Mapping[str, Any]

    def on_card(self, card: Card) -> Card:
        """The card with what was read and linked."""
        known = self.figures["linked"]
        learned = (
            f"Knowledge graph, in place of the log's own: {self.triples}. {known:,} of {self.figures['items']:,} items "
            f"are linked to it, {known - self.given:,} of them by title and year."
        )
        assumed = "Items that share title and year with an entity are taken for it; nobody looked at each link."
        return replace(
            card,
            learned=(learned, *card.learned),
            assumed=(*card.assumed, assumed) if known > self.given else card.assumed,
            figures={**card.figures, "knowledge_source": dict(self.figures)},
        )


def with_knowledge_source(
    log: LoggedBehavior,
    source: str,
    query: str | None = None,
    on_bad_lines: OnBadLines = "error",
    say: Callable[[str], None] = lambda line: None,
) -> tuple[LoggedBehavior, SourceReport]:
    """The log with the knowledge graph of `source`, and a report.

    Entities that the log already names (a `.link` file) are kept where the graph has them; all other items are linked
    by title and year (`recloop.encoders.knowledge.linking`).

    Args:
        source: a file of triples (`recloop.encoders.knowledge.sources`), or a store: `ladybug:PATH`, `bolt://HOST`.
        query: what to select, as text or the path of a file: SPARQL for a dump, Cypher for a store.
        on_bad_lines: whether a broken line of a file stops (`error`) or is counted (`skip`).
        say: gets a line about what was read, and what was not linked.

    Raises:
        EncoderError: a source that cannot be read; see `read_triples` and `open_store`.
        LogError: no item of the log is linked.
    """
    graph, place, sentence, figures = _read(source, query_text(query), on_bad_lines)
    own = _given(log)
    given = graph.entity_rows(own)
    names = [str(title) for title in log.items[Columns.title]]
    # An item whose id stands for its title has none.
    asked = [
        None if row >= 0 or name == str(item) else name
        for row, name, item in zip(given, names, log.items.index, strict=True)
    ]
    links = link_items(asked, graph.entities, entity_years=years_of(graph))
    rows = np.where(given >= 0, given, links.rows)
    if not (rows >= 0).any():
        raise LogError(
            f"none of the {len(rows):,} items of {log.name} (such as {_some(names)}) is linked to {place} (entities "
            f"such as {_some(graph.entities)}); give titles and years on both sides, or name entities in a .link file"
        )
    count = int((given >= 0).sum())
    figures = {
        "source": place,
        **figures,
        "items": len(rows),
        "linked": int((rows >= 0).sum()),
        "given": count,
        "by_title_and_year": {k: n for k, n in links.as_dict()["reasons"].items() if n and k != "no title"},
    }
    report = SourceReport(place, sentence, count, links, figures)
    for line in _lines(report, names, graph):
        say(line)
    entity = [graph.entities[row] if row >= 0 else None for row in rows.tolist()]
    items = log.items.assign(**{Columns.entity: pd.Series(entity, index=log.items.index, dtype="str")})
    notes = tuple(note for note in log.notes if LINKED not in note)
    return replace(log, items=items, knowledge=graph, notes=notes), report


def _read(source: str, query: str | None, on_bad_lines: OnBadLines) -> tuple[KnowledgeGraph, str, str, dict[str, Any]]:
    """The graph, where it lies, what was read in a sentence, and counts."""
    if not is_store(source):
        graph, report = read_triples(Path(source), query=query, literals="years", on_bad_lines=on_bad_lines)
        facts = report.as_dict()
        del facts["source"]
        return graph, source, str(report), facts
    place = without_password(source)
    with open_store(source) as store:
        graph = store.graph() if query is None else store.select(query)
    count = len(graph.triples)
    return graph, place, f"{place}: {count:,} triples", {"rows": count, "kept": count}


def _given(log: LoggedBehavior) -> list[str | None]:
    """The entity that the log itself names for each item."""
    if Columns.entity not in log.items:
        return [None] * len(log.items)
    return [name if isinstance(name, str) else None for name in log.items[Columns.entity]]


def _lines(report: SourceReport, names: list[str], graph: KnowledgeGraph) -> list[str]:
    by_title = report.figures["by_title_and_year"]
    found = ", ".join(f"{count:,} {reason}" for reason, count in by_title.items()) or "none asked"
    lines = [
        report.triples,
        f"{report.figures['linked']:,} of {len(names):,} items are linked to it: {report.given:,} by the log itself, "
        f"the others by title and year ({found})",
    ]
    missing = [names[item] for item in report.links.items("missing", "taken")]
    if missing:
        lines.append(f"{len(missing):,} items are no entity, such as {_some(missing)}")
    for item in report.links.ambiguous[:_SHOWN]:
        lines.append(f"{names[item]} may be {_some([graph.entities[row] for row in report.links.candidates[item]])}")
    return lines


def _some(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names[:_SHOWN])


@dataclass(frozen=True)
class GraphReport:
    """Filtered ranks of held-out triples.

    Args:
        model: the embedding.
        held: how many triples were held out of how many.
        mrr, hits_at_10: by side (`head`, `tail`): how well the model finds it.
        frequency_mrr: by side: what ranking entities by how often they have the relation comes to.
    """

    model: str
    held: tuple[int, int]
    mrr: dict[str, float]
    hits_at_10: dict[str, float]
    frequency_mrr: dict[str, float]

    @property
    def sentence(self) -> str:
        """For the card.

        >>> GraphReport("transe", (9, 90), {"head": 0.1, "tail": 0.3}, {}, {"head": 0.0, "tail": 0.2}).sentence
        'Knowledge graph: on 9 of 90 triples held out, transe has a filtered MRR of 0.100 for heads (frequency 0.000) \
and 0.300 for tails (frequency 0.200).'
        """
        sides = " and ".join(f"{self.mrr[s]:.3f} for {s}s (frequency {self.frequency_mrr[s]:.3f})" for s in SIDES)
        few, all_of_them = self.held
        start = f"Knowledge graph: on {few:,} of {all_of_them:,} triples held out, {self.model}"
        return f"{start} has a filtered MRR of {sides}."

    def on_card(self, card: Card) -> Card:
        """The card with this report."""
        figures = {f"graph_mrr_{side}": self.mrr[side] for side in SIDES}
        hits = {f"graph_hits_at_10_{side}": self.hits_at_10[side] for side in SIDES}
        return replace(card, learned=(*card.learned, self.sentence), figures={**card.figures, **figures, **hits})


def graph_report(graph: KnowledgeGraph, model: Model, dim: int, epochs: int, seed: int, progress: bool) -> GraphReport:
    """Hold a tenth of the triples out, fit on the rest, and rank; takes as long as the fit that the world keeps.

    Raises:
        EncoderError: where no triple can be held out.
    """
    train, held = split_triples(graph, 0.1, seed)
    known = np.concatenate([train.triples, held])
    fitted = fit_embeddings(train, model, dim, epochs, seed, progress=progress)
    ranks, frequency = rank_triples(fitted, held, known), rank_triples(Frequency(train), held, known)
    figures = {side: ranks.figures(side) for side in SIDES}
    return GraphReport(
        model,
        (len(held), len(known)),
        {side: figures[side]["mrr"] for side in SIDES},
        {side: figures[side]["hits_at_10"] for side in SIDES},
        {side: frequency.figures(side)["mrr"] for side in SIDES},
    )
