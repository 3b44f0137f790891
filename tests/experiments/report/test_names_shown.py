"""Whatever the titles, ids, signals, users, policies and simulators of a world are called: shown, and harmless."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy, save_policy
from recloop.encoders.base.names import visible
from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.commands.recommend import RecommendConfig, main
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.report.pictures import new_figure, picture, png_of
from recloop.experiments.studies.faults.texts import (
    HOSTILE,
    in_files,
    in_report,
    in_spreadsheet,
    in_terminal,
    relabelled,
    renamed,
)

NAMES = st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def comparison(judged: World, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    policies = ("random", "popularity", "greedy")
    out = tmp_path_factory.mktemp("run")
    return compare(judged, CompareConfig(Path("w"), policies, seeds=1, episodes=16, out=out, progress=False))


@FEW
@given(name=NAMES)
@example(name="Film [/b]")
@example(name="\x1b[2J\x1b]0;owned\x07")
def test_the_terminal(comparison: Comparison, name: str) -> None:
    in_terminal(relabelled(comparison, name), name)


@FEW
@given(name=NAMES)
@example(name="<script>alert(1)</script>")
def test_the_report(comparison: Comparison, name: str) -> None:
    in_report(relabelled(comparison, name), name)


@FEW
@given(name=NAMES)
@example(name="=HYPERLINK(1)")
@example(name="-2+3")
def test_the_spreadsheet(comparison: Comparison, name: str) -> None:
    in_spreadsheet(relabelled(comparison, name), name)


@FEW
@given(name=NAMES)
@example(name="../../outside")
@example(name="a\nb")
def test_files(judged: World, tmp_path: Path, name: str) -> None:
    in_files(judged, name, tmp_path / "files")


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
    assert picture(relabelled(comparison, "$x^{"))[:4] == b"\x89PNG"
    figure, (axis,) = new_figure(1, 2.0)
    axis.set_title("half a character \ud800, $x^{")
    assert png_of(figure)[:4] == b"\x89PNG"
