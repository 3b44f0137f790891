"""Imports that are timed: what is written is what is read back, and a query selects."""

from pathlib import Path

import numpy as np

from recloop.encoders.knowledge.sources import read_triples
from recloop.experiments.bench.knowledge import film_graph
from recloop.experiments.bench.knowledge_import import PEOPLE, measured, write_ntriples, write_tsv


def test_a_graph_written_and_measured(tmp_path: Path) -> None:
    graph = film_graph(300, seed=0)
    lines = write_ntriples(graph, tmp_path / "films.nt")
    write_tsv(graph, tmp_path / "films.tsv")
    assert lines == len(graph.entities) + len(graph.triples)
    dump, _ = read_triples(tmp_path / "films.nt")
    tabs, _ = read_triples(tmp_path / "films.tsv")
    assert tabs.entities == graph.entities
    assert np.array_equal(np.sort(tabs.triples, axis=0), np.sort(graph.triples, axis=0))
    assert set(dump.entities) == {name.replace(":", " ") for name in graph.entities}
    assert len(dump.triples) == len(graph.triples)
    cost = measured(tmp_path / "films.nt", PEOPLE)
    assert cost.kept == sum(len(graph.only([name]).triples) for name in ("actor", "director", "writer"))
    assert 20 < cost.peak < 2_000
