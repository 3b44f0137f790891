"""Whatever the titles, ids, signals, users, policies and simulators of a world are called: shown, and harmless."""

import csv
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy, save_policy
from recloop.encoders.base.names import csv_rows, visible
from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.commands.inspect import print_user, print_world
from recloop.experiments.commands.recommend import RecommendConfig, main
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.report.pictures import png_of, returns_picture
from recloop.experiments.report.report import html
from recloop.experiments.report.tables import PlainConsole, print_comparison

HOSTILE = (
    *("Film [/b]", "[red]y[/red]", "\x1b[2J\x1b]0;owned\x07", "<script>alert(1)</script>", '" onload="x', "&lt;"),
    *(
        "=HYPERLINK(1)",
        "@SUM(A1)",
        "-2+3",
        "../../outside",
        ":smile:",
        "日本",
        "a\u202eb",
        "$x^{",
        "%s {0}",
        "Cafe, noir",
    ),
)
NAMES = st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def comparison(judged: World, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    policies = ("random", "popularity", "greedy")
    out = tmp_path_factory.mktemp("run")
    return compare(judged, CompareConfig(Path("w"), policies, seeds=1, episodes=16, out=out, progress=False))


def renamed(world: World, name: str) -> World:
    """The world with `name` in all its texts."""
    signals = [replace(s, name=f"{name}{i}", given_on=s.given_on and f"{name}0") for i, s in enumerate(world.signals)]
    figures = {name: {name: {name: 1}}}
    return replace(
        world,
        name=name,
        signals=tuple(signals),
        catalogue=replace(
            world.catalogue,
            ids=tuple(f"{name}{i}" for i in range(len(world.catalogue))),
            titles=tuple(f"{name} {i}" for i in range(len(world.catalogue))),
        ),
        users=replace(world.users, ids=tuple(f"{name}{i}" for i in range(len(world.users)))),
        reward=replace(world.reward, signals={f"{name}0": 1.0}),
        card=replace(world.card, learned=(name,), assumed=(name,), not_claimed=(name,), figures=figures),
        simulators={**world.simulators, name: world.simulators["judge"]},
    )


def relabelled(comparison: Comparison, name: str) -> Comparison:
    """The comparison in that world, its first policy and first simulator called `name` too."""
    first, base = comparison.labels[0], comparison.simulators[0]

    def new(key: tuple[str, int, str]) -> tuple[str, int, str]:
        return (name if key[0] == first else key[0], key[1], name if key[2] == base else key[2])

    return replace(
        comparison,
        world=renamed(comparison.world, name),
        contenders=(replace(comparison.contenders[0], label=name), *comparison.contenders[1:]),
        simulators=(name, *comparison.simulators[1:]),
        rollouts={new(key): rollout for key, rollout in comparison.rollouts.items()},
    )


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(f"{tag} {sorted(name for name, _ in attrs)}")

    def handle_data(self, data: str) -> None:
        self.text += data


def held(name: str, text: str) -> bool:
    """The words of a name stand in a text, and nothing in the text moves a cursor."""
    assert visible(text, keep="\n") == text
    return all(visible(word) in text for word in name.split())


@FEW
@given(name=NAMES)
@example(name="Film [/b]")
@example(name="\x1b[2J\x1b]0;owned\x07")
def test_the_terminal(comparison: Comparison, tmp_path: Path, name: str) -> None:
    found = relabelled(comparison, name)
    for show in (
        lambda console: print_world(found.world, 3, console),
        lambda console: print_user(found.world, f"{name}4", 3, 3, console),
        lambda console: print_comparison(found, claims_of(found), tmp_path / "run", console),
    ):
        console = PlainConsole(file=io.StringIO(), width=2000)
        show(console)
        assert held(name, console.file.getvalue())


@FEW
@given(name=NAMES)
@example(name="<script>alert(1)</script>")
def test_the_report(comparison: Comparison, name: str) -> None:
    module = "recloop.experiments.report.report"
    with patch(f"{module}.returns_picture", lambda _: b""), patch(f"{module}.differences_picture", lambda _: b""):
        plain, found = relabelled(comparison, "plain"), relabelled(comparison, name)
        expected = Page(html(plain, claims_of(plain), {"command": "recloop compare plain"}))
        page = Page(html(found, claims_of(found), {"command": f"recloop compare {name}"}))
    assert page.tags == expected.tags
    assert visible(name, keep="\n\t") in page.text


@FEW
@given(name=NAMES)
@example(name="=HYPERLINK(1)")
@example(name="-2+3")
def test_the_spreadsheet(comparison: Comparison, name: str) -> None:
    text = relabelled(comparison, name).csv()
    assert csv_rows(text)[1][csv_rows(text)[0].index("policy")] == name
    for row in csv.reader(io.StringIO(text, newline="")):
        for cell in row:
            assert cell[:1] not in set("=+-@\t\r") or np.isfinite(float(cell))


@FEW
@given(name=NAMES)
@example(name="[/b]")
def test_recommendations(
    judged: World, name: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    world = renamed(judged, name)
    folder = tmp_path_factory.mktemp("policy") / "policy"
    save_policy(make_policy("popularity", world, FitOptions()), folder)
    first, second = world.catalogue.ids[:2]
    found = main(RecommendConfig(folder, history=(first, second), k=2))
    assert set(found) <= set(world.catalogue.ids[2:])
    assert visible(said := capsys.readouterr().out, keep="\n") == said


def test_a_name_with_dollars_is_no_formula(comparison: Comparison) -> None:
    from recloop.experiments.report.pictures import new_figure

    assert returns_picture(relabelled(comparison, "$x^{"))[:4] == b"\x89PNG"
    figure, (axis,) = new_figure(1, 2.0)
    axis.set_title("half a character \ud800, $x^{")
    assert png_of(figure)[:4] == b"\x89PNG"
