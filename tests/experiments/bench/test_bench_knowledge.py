"""The benchmark of graph stores, on a graph small enough to count."""

from collections import Counter

from recloop.experiments.bench.knowledge import BenchConfig, film_graph, store_table


def test_the_made_up_graph_holds_what_it_says() -> None:
    graph = film_graph(1_000, seed=0)
    assert graph.relations == ("actor", "country", "director", "genre", "writer", "year")
    counts = Counter(graph.relations[kind] for kind in graph.triples[:, 1])
    assert counts["director"] == counts["writer"] == counts["year"] == 100
    assert 100 < counts["genre"] <= 200
    assert len(graph.distinct().triples) == len(graph.triples)
    assert film_graph(1_000, seed=0).entities == graph.entities != film_graph(1_000, seed=1).entities


def test_both_stores_answer_alike_and_are_timed() -> None:
    config = BenchConfig(triples=600, questions=5, buffer_mib=64)
    table = store_table(film_graph(config.triples, config.seed), config)
    assert len(table.rows) == 5
    assert [str(column.header) for column in table.columns][:2] == ["ms", "embedded"]
    assert all(float(cell) > 0 for column in list(table.columns)[1:5] for cell in column.cells)
