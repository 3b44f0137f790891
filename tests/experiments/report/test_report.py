"""The report holds what a reader needs, and nothing from a network."""

import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recloop.envs.world.world import Card, World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.comparison.tracking import Tags
from recloop.experiments.report import report
from recloop.experiments.report.pictures import picture
from recloop.experiments.report.report import html

FACTS = {"command": "recloop compare <world>", "versions": {"torch": "2.13"}, "device": "cpu", "seeds": [0]}


@pytest.fixture(scope="module")
def comparison(judged: World, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    config = CompareConfig(
        world=Path("w"),
        policies=("random", "popularity"),
        seeds=1,
        episodes=24,
        out=tmp_path_factory.mktemp("run"),
        progress=False,
    )
    found = compare(judged, config)
    curve = [(100, 1.0), (200, 2.0), (300, 2.5)]
    return replace(found, curves={("random", 0): {Tags.train_return: curve}})


class Tidy(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_pieces_are_there(comparison: Comparison) -> None:
    text = html(comparison, claims_of(comparison), FACTS)
    for piece in (
        "in front of training users",
        "in front of judge",
        "What is claimed",
        "Return over training steps",
        "Learned",
        "Assumed",
        "Not claimed",
        "Sessions",
        "interquartile mean",
        "Slate 1",
        "recloop compare &lt;world&gt;",
        "torch 2.13",
        "of 1 pairs",
        "Across judges",
        "Outside",
    ):
        assert piece in text, piece
    for line in (*comparison.world.card.learned, *comparison.world.card.not_claimed):
        assert line in text or "&" in line
    titles = comparison.world.catalogue.titles
    first = comparison.rollouts["popularity", 0, "judge"].trace_slate[0]
    assert all(titles[row] in text for row in first.tolist())


def test_it_is_one_tidy_file_without_scripts_or_network(comparison: Comparison) -> None:
    text = html(comparison, claims_of(comparison), FACTS)
    tidy = Tidy()
    tidy.feed(text)
    assert tidy.open == []
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "data:" not in text


def test_charts_can_be_hovered_over_and_read_aloud(comparison: Comparison) -> None:
    text = html(comparison, claims_of(comparison), FACTS)
    charts = re.findall(r'<svg[^>]* role="img" aria-label="([^"]+)"[^>]*><desc>([^<]+)</desc>', text)
    assert len(charts) == 2 * len(comparison.simulators) + 1
    assert all("popularity: " in told for title, told in charts if title.startswith("Return in front"))
    assert "<title>random, step 200: 2.00</title>" in text
    assert re.search(r"<title>random minus popularity: [+-]", text)


def test_what_comes_from_a_log_is_escaped(comparison: Comparison) -> None:
    world = replace(
        comparison.world,
        name="<b>shop</b>",
        card=Card(learned=("<script>alert(1)</script>",), figures={"<i>": {"<u>": 1}}),
        catalogue=replace(
            comparison.world.catalogue, titles=tuple(f"<em>{i}</em>" for i in range(len(comparison.world.catalogue)))
        ),
    )
    text = html(replace(comparison, world=world), claims_of(comparison), FACTS)
    for raw in ("<script", "<em>", "<b>shop", "<i>", "<u>"):
        assert raw not in text, raw


def test_a_comparison_without_baselines_says_so(comparison: Comparison) -> None:
    text = html(comparison, claims_of(comparison), FACTS)
    assert "This comparison lacks greedy on the user model, a supervised recommender (sasrec)." in text
    contenders = (
        *comparison.contenders,
        *(replace(c, source=s) for c, s in zip(comparison.contenders, ("greedy", "sasrec"), strict=True)),
    )
    assert "This comparison lacks" not in html(replace(comparison, contenders=contenders), [], FACTS)


def test_what_the_page_is_made_of_is_installed_with_it() -> None:
    folder = Path(report.__file__).parent
    listed = tomllib.loads((folder.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    on_disk = {path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}
    assert on_disk == set(listed["recloop.experiments.report"])


def test_pictures_are_equal_for_equal_results(comparison: Comparison) -> None:
    assert picture(comparison) == picture(comparison)
    assert "Return over training steps" not in html(replace(comparison, curves={}), [], FACTS)
