"""A comparison by segment: its rows, what they average to, and what small segments do not claim."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from recloop.envs.build.examination import with_patterns
from recloop.envs.world.patterns import PatternConfig
from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.commands.inspect import print_world
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.intervals import holm, t_interval
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.comparison.segments import segment_lines, segment_table
from recloop.experiments.report.report import html


@pytest.fixture(scope="module")
def segmented(judged: World) -> World:
    return with_patterns(judged, PatternConfig(segments=2, topics=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segments")


@pytest.fixture(scope="module")
def comparison(segmented: World, folder: Path) -> Comparison:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recloop.experiments.comparison.segments.FEWEST_USERS", 3)
        for name in ("write_report", "write_runs", "picture"):
            patch.setattr(f"recloop.experiments.commands.compare.{name}", lambda *arguments: b"")
        config = CompareConfig(
            world=Path("w"),
            policies=("random", "popularity", "content"),
            seeds=2,
            out=folder,
            episodes=24,
            progress=False,
        )
        return compare(segmented, config)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "segments.csv").read_text())))


def test_segments_average_to_all_users(comparison: Comparison, folder: Path) -> None:
    rows = rows_of(folder)
    assert {row["policy"] for row in rows} == set(comparison.labels)
    for simulator in comparison.simulators:
        for policy in comparison.labels:
            mine = [r for r in rows if (r["simulator"], r["policy"]) == (simulator, policy)]
            users = [int(row["users"]) for row in mine]
            mean = np.average([float(row["value"]) for row in mine], weights=users)
            assert mean == pytest.approx(comparison.headline(policy, simulator).value.mean, abs=1e-5)
            assert sum(users) == len(comparison.values(policy, simulator))


@pytest.mark.usefixtures("comparison")
def test_the_reference_has_no_difference_and_others_a_corrected_p(comparison: Comparison, folder: Path) -> None:
    rows = [row for row in rows_of(folder) if row["simulator"] == "judge"]
    assert all(row["difference"] == row["p"] == "" for row in rows if row["policy"] == "popularity")
    patterns = comparison.world.patterns
    assert patterns is not None
    member = patterns.segment.numpy()[np.unique(comparison.rollouts["random", 0, "judge"].users)]
    others = [row for row in rows if row["p"]]
    plain = []
    for row in others:
        paired = comparison.difference(row["policy"], "popularity", "judge")[member == int(row["segment"])]
        expected = t_interval(paired)
        assert float(row["difference_low"]) == pytest.approx(expected.low, abs=1e-5)
        plain.append(expected.p)
    assert others
    assert [float(row["p"]) for row in others] == pytest.approx(holm(plain), rel=1e-4)


def test_a_small_segment_has_means_alone(comparison: Comparison) -> None:
    lines = segment_lines(comparison)
    assert lines
    assert all(line.users < 20 and line.value is None and line.p is None for line in lines)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(segment_table(comparison, lines, "judge"))
    assert "too few users" in console.export_text()


def test_the_report_names_segments_and_topics(comparison: Comparison) -> None:
    page = html(comparison, claims_of(comparison), {})
    patterns = comparison.world.patterns
    assert patterns is not None
    assert patterns.segments is not None
    assert "Segments of users" in page
    assert "topics of behaviour" in page
    portrait = next(p for p in patterns.segments.portraits if p.items)
    assert portrait.items[0] in page


def test_a_world_without_segments_says_nothing(comparison: Comparison, judged: World) -> None:
    bare = replace(comparison, world=judged)
    assert segment_lines(bare) == ()
    assert "Segments of users" not in html(bare, claims_of(bare), {})


def test_inspect_shows_both(segmented: World) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    print_world(segmented, 0, console)
    text = console.export_text()
    assert "segments of users; their number was given" in text
    assert "no history" in text
    assert "topics of behaviour" in text
