"""Items linked to entities: titles written in two ways, items that share an entity, and two public catalogues."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.linking import Links, link_items, title_key, years_of
from recloop.encoders.knowledge.sources import read_triples

SAME = [
    ("Usual Suspects, The (1995)", "film:The Usual Suspects (1995)"),
    ("Fish Called Wanda, A (1988)", "film:A Fish Called Wanda (1988)"),
    ("POSTINO, IL (1994)", "film:Postino, Il (The Postman) (1994)"),
    ("The Postman (1994)", "film:Il Postino (The Postman) (1994)"),
    ("Sunset Boulevard (1950)", "film:Sunset Blvd. (a.k.a. Sunset Boulevard) (1950)"),
    ("Amelie (2001)", "film:Amélie (2001)"),
    ("Rocky 3 (1982)", "film:Rocky III (1982)"),
    ("Truth About Cats and Dogs, The (1996)", "film:The Truth About Cats & Dogs (1996)"),
    ("Schindlers List (1993)", "Schindler's List (1993)"),
    ("Heat (1995) (V)", "Heat_(1995_film)"),
    ("An American in Paris (1951)", "film:A American in Paris"),
    ("Shawshenk Redemption, The (1994)", "film:The Shawshank Redemption (1994)"),
]


@pytest.mark.parametrize(("title", "entity"), SAME)
def test_one_title_in_two_spellings(title: str, entity: str) -> None:
    links = link_items([title, "Speed (1994)"], ["film:Speed (1994)" if ":" in entity else "Speed (1994)", entity])
    assert links.rows.tolist() == [1, 0]
    assert links.missing == links.ambiguous == ()


@pytest.mark.parametrize(
    ("title", "entity"),
    [
        ("Heat (1995)", "film:Heat (1972)"),
        ("Rocky II (1979)", "film:Rocky III (1979)"),
        ("Heat (1995)", "film:Neat (1995)"),
        ("Nixon (1995)", "person:Nixon"),
    ],
)
def test_titles_that_only_look_alike(title: str, entity: str) -> None:
    links = link_items([title, "Speed (1994)"], ["film:Speed (1994)", entity])
    assert links.rows.tolist() == [-1, 0]
    assert links.reasons[0] == "missing"


def test_a_year_apart_only_where_it_is_clear() -> None:
    links = link_items(["Heat", "Ran"], ["Heat (1994)", "Ran (1984)", "Ran (1986)"], [1995, 1985])
    assert links.rows.tolist() == [0, -1]
    assert links.reasons == ("title, a year apart", "ambiguous")
    assert links.candidates == {1: (1, 2)}
    assert link_items(["Heat"], ["Heat (1994)"], [1995], year_tolerance=0).reasons == ("missing",)


def test_years_from_elsewhere_and_none() -> None:
    titles = ["Heat", "Heat", "Heat", None, "(1995)"]
    years = [1995.0, "1972-05-01", float("nan"), 1995, 1995]
    links = link_items(titles, ["Heat", "Heat (Q2)"], years, {0: 1995, 1: 1972})
    assert links.rows.tolist() == [0, 1, -1, -1, -1]
    assert links.reasons == ("title and year", "title and year", "ambiguous", "no title", "no title")
    assert links.as_dict()["linked"] == 2
    assert str(links).startswith("2 of 5 items are linked (2 title and year")
    graph = KnowledgeGraph.from_names(
        ["Heat", "Heat", "Ran"], ["year", "publication date", "by"], ["1996", "1995", "7"]
    )
    assert years_of(graph) == {graph.entities.index("Heat"): 1995}


@pytest.mark.parametrize(("shared", "rows"), [("equal", [0, 0, -1]), ("best", [0, -1, -1]), ("all", [0, 0, 0])])
def test_items_that_claim_one_entity(shared: str, rows: list[int]) -> None:
    titles = ["Ice Storm, The (1997)", "The Ice Storm (1997)", "The Ice Storn (1997)"]
    links = link_items(titles, ["film:The Ice Storm (1997)"], shared=shared)  # type: ignore[arg-type]
    assert links.rows.tolist() == rows
    assert links.shared == {0: (0, 1, 2)}
    assert [links.reasons[item] for item, row in enumerate(rows) if row < 0] == ["taken"] * rows.count(-1)
    assert (links.scores > 0).tolist() == [row == 0 for row in rows]


def test_what_cannot_be_linked() -> None:
    assert link_items([], []).rows.shape == (0,)
    assert link_items(["Heat (1995)"], []).missing == link_items(["Heat (1995)"], ["(1995)"]).missing == (0,)
    with pytest.raises(EncoderError, match="2 titles and 1 years"):
        link_items(["a", "b"], ["a"], [1995])
    with pytest.raises(EncoderError, match="shared='none' is unknown"):
        link_items(["a"], ["a"], shared="none")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="least_similarity=0 must lie above 0"):
        link_items(["a"], ["a"], least_similarity=0)


def catalogue(name: str) -> tuple[list[str], list[str], KnowledgeGraph, dict[str, str], list[str]]:
    """Titles, years and ids of `.item`, the graph of `.kg`, and, to be held against only, the links of `.link`."""
    if "RECLOOP_DATA" not in os.environ:
        pytest.skip("RECLOOP_DATA is unset: MovieLens may not be part of the project")
    stem = Path(os.environ["RECLOOP_DATA"]) / name / name
    items, link = (
        pd.read_csv(f"{stem}.{end}", sep="\t", dtype="str", keep_default_na=False, quoting=3)
        for end in ("item", "link")
    )
    graph, _ = read_triples(Path(f"{stem}.kg"))
    truth = dict(zip(link["item_id:token"], link["entity_id:token"], strict=True))
    titles, years, ids = (
        items[f"{c}"].tolist() for c in ("movie_title:token_seq", "release_year:token", "item_id:token")
    )
    return titles, years, graph, truth, ids


def recall_and_precision(links: Links, names: list[str], ids: list[str], truth: dict[str, str]) -> tuple[float, float]:
    right = [truth.get(ids[item]) == names[links.rows[item]] for item in links.matched]
    return sum(right) / len(truth), sum(right) / max(len(right), 1)


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m"])
def test_movielens_against_the_links_we_hold(name: str) -> None:
    titles, years, graph, truth, ids = catalogue(name)
    recall, precision = recall_and_precision(
        link_items(titles, graph.entities, years), list(graph.entities), ids, truth
    )
    assert recall >= 0.97
    assert precision >= 0.99


def test_movielens_with_a_slip_in_every_title_and_half_the_films_gone() -> None:
    titles, years, graph, truth, ids = catalogue("ml-100k")
    generator = np.random.default_rng(0)
    slips = []
    for title in titles:
        place = int(generator.integers(1, max(len(title) - 1, 2)))
        slips.append(title[:place] + title[place + 1 :] if len(title) > 5 else title)
    kept = [name for name in graph.entities if generator.random() < 0.5]
    left = {item: entity for item, entity in truth.items() if entity in set(kept)}
    recall, precision = recall_and_precision(link_items(slips, kept, years), kept, ids, left)
    assert recall >= 0.85
    assert precision >= 0.99


def test_keys_do_not_depend_on_how_a_title_is_written() -> None:
    assert len({title_key(text) for text in ("Misérables, Les", "LES MISERABLES", "Les   Misérables.")}) == 1
