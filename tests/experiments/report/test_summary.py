"""One set of values gives one answer in every view, and bad input is told, not hidden."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from recloop.envs.build.examination import with_patterns
from recloop.envs.evidence.fidelity import FidelityLine, FidelityReport, marked
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.world.patterns import PatternConfig
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.comparison.tracking import Tags
from recloop.experiments.report.report import html, markdown
from recloop.experiments.report.summary import summary_of
from recloop.experiments.report.tables import headline_table

Make = Callable[..., Comparison]
VALUES = {"random": [1.0], "popularity": [3.0], "greedy": [5.0], "sasrec": [5.0], "ppo": [8.0]}


def shown(comparison: Comparison) -> tuple[str, str]:
    """The page and the Markdown, the latter as GitHub makes a page of it."""
    claims, facts = claims_of(comparison), {"command": "recloop compare w"}
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(comparison, claims, facts))
    return html(comparison, claims, facts), rendered


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


@pytest.mark.parametrize("flagged", [(), ("ppo",), ("greedy",), tuple(VALUES)])
@pytest.mark.parametrize("gate", ["passed", "failed", "cannot tell"])
def test_verdict_sentences_claims_and_csv_agree(made: Make, gate: str, flagged: tuple[str, ...]) -> None:
    comparison = made(VALUES, gate, flagged)
    claims = claims_of(comparison)
    summary = summary_of(comparison, claims)
    sentence = {line.entry.label: line.sentence for line in summary.lines}
    rows = list(csv.DictReader(io.StringIO(comparison.csv())))
    for line in summary.lines:
        mine = [row for row in rows if row["policy"] == line.entry.label and row["simulator"] != "train"]
        assert line.value.mean == pytest.approx(np.mean([float(row["value"]) for row in mine]), abs=1e-6)
        difference = 0.0 if line.difference is None else line.difference.mean
        assert difference == pytest.approx(np.mean([float(row["difference"]) for row in mine]), abs=1e-6)
        assert {row["flag"] for row in mine} == {line.flag}
        assert (line.flag != "") == (line.entry.label in flagged)
    for a, b in combinations(VALUES, 2):
        claim = next(c for c in claims if {c.better, c.worse} == {a, b})
        if not claim.made:
            for one, other in ((a, b), (b, a)):
                said = "nothing is claimed against" if other in flagged else "not told apart from"
                assert summary.tone(one, other) == "open"
                assert one in flagged or re.search(rf"{said} [^;]*\b{other}\b", sentence[one], re.IGNORECASE)
            continue
        assert re.search(rf"Beats [^;]*\b{claim.worse}\b", sentence[claim.better])
        assert re.search(rf"s beaten by [^;]*\b{claim.better}\b", sentence[claim.worse])
        assert (summary.tone(claim.better, claim.worse), summary.tone(claim.worse, claim.better)) == ("up", "down")
        levels = [c.level for c in claims if c.level and claim.better in (c.better, c.worse)]
        least = min(levels, key=lambda level: level.reach)
        assert f"in front of both judges (level: {least})" in sentence[claim.better]
    best = summary.verdict.partition(" is best")
    if best[1]:
        assert sentence[best[0]].startswith("Beats ")
        assert "beaten" not in sentence[best[0]]
    for page in shown(comparison):
        text = words(page)
        for said in (summary.verdict, *summary.caveats, *sentence.values(), *(claim.text for claim in claims)):
            assert " ".join(said.split()) in text.replace("&gt;", ">").replace("&#x27;", "'"), said
    screen = Console(width=200, record=True, file=io.StringIO())
    screen.print(headline_table(comparison, "judge"))
    assert screen.export_text().count(" (!) ") == len(flagged)


def test_the_sentence_a_product_owner_reads(made: Make) -> None:
    lines = summary_of(comparison := made(VALUES), claims_of(comparison)).lines
    assert [line.entry.label for line in lines] == ["ppo", "greedy", "sasrec", "popularity", "random"]
    assert lines[0].sentence == (
        "Beats popularity by 5.00 [5.00, 5.00], greedy by 3.00 [3.00, 3.00], random and sasrec, in front of both "
        "judges (level: this trained policy in this world)."
    )
    assert lines[1].sentence.endswith("; not told apart from sasrec.")
    assert lines[0].to_best is not None
    assert lines[1].to_best is None, "greedy is the best without RL, ppo is not asked"


def test_a_gate_that_did_not_pass_and_an_empty_support_are_one_sentence_each(made: Make) -> None:
    comparison = made(VALUES, "failed", tuple(VALUES))
    caveats = summary_of(comparison, claims_of(comparison)).caveats
    page = words(shown(comparison)[0])
    assert "judge-2 FAILED" in page[page.index("Replay gates") :]
    assert sum("replay gate failed in judge" in line for line in caveats) == 1
    assert [line for line in caveats if "(!)" in line] == [
        "Not backed by the log (!): no policy's value is, 100% of their steps lie outside the log's support. Values "
        "and orders are those of simulated users, and nothing is claimed."
    ]


def test_a_world_that_failed_says_so_first(made: Make) -> None:
    comparison = made(VALUES)
    line = FidelityLine("calibration_click", "next", 0.3, 0.2, 0.4, "<= 0.050", Verdict.failed, "too many clicks")
    report = FidelityReport(comparison.world.name, "train", 3, 9, 3, (line,), ("no exposures",))
    comparison = replace(comparison, world=marked(comparison.world, report))
    for page in map(words, shown(comparison)):
        assert page.index("This world failed its fidelity report. FAILED") < page.index("Who is better")
    page = shown(comparison)[0]
    assert "too many clicks" in page
    assert "no exposures" in page


def test_returns_that_are_no_numbers(made: Make) -> None:
    comparison = made({**VALUES, "sasrec": [float("nan")]})
    claims = claims_of(made(VALUES))
    summary = summary_of(comparison, [c for c in claims if "sasrec" not in (c.better, c.worse)])
    broken = summary.lines[-1]
    assert (broken.entry.label, broken.difference, broken.improves) == ("sasrec", None, None)
    assert summary.best == "greedy"
    page = html(comparison, summary.claims, {})
    assert "not known" in page
    assert not re.search(r"\bnan\b", words(page), re.IGNORECASE)
    assert "Returns of sasrec are not all numbers" in page


def test_one_policy_one_seed_one_simulator(made: Make) -> None:
    comparison = made({"ppo": [2.0]}, simulators=("train",))
    page, short = shown(comparison)
    for text in (page, short):
        assert "A verdict needs two policies" in text
        assert "There is nothing to compare it to." in text
        assert "in front of the training users" in text
    assert "minus greedy" not in page


def test_a_reference_that_is_not_there(made: Make) -> None:
    comparison = replace(made(VALUES), reference="gone")
    page, short = shown(comparison)
    for text in (page, short):
        assert "The reference gone was not compared; random stands in for it." in text
        assert "minus random" in text


def test_twenty_policies_of_long_names(made: Make) -> None:
    names = [f"{place:02}{'x' * 198}" for place in range(20)]
    comparison = made({name: [float(place)] for place, name in enumerate(names)})
    summary = summary_of(comparison, claims_of(comparison))
    assert all(len(line.sentence) < 2000 for line in summary.lines)
    page, short = shown(comparison)
    assert all(name in page and name in short for name in names)
    assert all(len(text) <= 22 for text in re.findall(r"<text[^>]*>([^<]*)<", page))


def test_a_segment_nobody_of_whom_was_evaluated(made: Make) -> None:
    comparison = made(VALUES)
    world = with_patterns(comparison.world, PatternConfig(segments=2, topics=0))
    patterns = world.patterns
    assert patterns is not None
    alone = replace(patterns, segment=patterns.segment.clone().fill_(0))
    page = shown(replace(comparison, world=replace(world, patterns=alone)))[0]
    assert "Return by segment, in front of judge" in page
    assert ">1 " not in page.partition("Return by segment")[2].partition("</section>")[0]


@pytest.mark.parametrize(("seeds", "said"), [(1, ""), (3, "lowest to highest of 3"), (5, "95 % t interval over 5")])
def test_users_and_seeds_have_intervals_of_their_own_names(made: Make, seeds: int, said: str) -> None:
    means = {"popularity": [3.0] * seeds, "ppo": [5.0 + seed for seed in range(seeds)]}
    curves = {("ppo", s): {Tags.train_return: [(10, 1.0 + s), (20, 2.0), (30, float("nan"))]} for s in range(seeds)}
    page = shown(replace(made(means), curves=curves))[0]
    assert (f"Band: {said} training seeds" in page) == (seeds > 1)
    assert page.count("<polygon") == 1
    row = next(r for r in re.findall(r"<tr>.*?</tr>", page, re.S) if ">ppo</td>" in r)
    retraining = re.findall(r"<td[^>]*>(.*?)</td>", row)[3]
    expected = {1: "one seed", 3: "5.10, 6.10, 7.10", 5: r"7.10 [5.14, 9.06]"}[seeds]
    assert re.sub(r"\d", "0", retraining) == re.sub(r"\d", "0", expected)


def test_the_interquartile_mean_leaves_out_both_ends(made: Make) -> None:
    comparison = made({"popularity": [3.0]}, simulators=("train",))
    rollout = comparison.rollouts["popularity", 0, "train"]
    value = np.array([0.0] * 10 + [1.0] * 10 + [3.0] * 10 + [1000.0] * 10)
    page = shown(replace(comparison, rollouts={("popularity", 0, "train"): replace(rollout, value=value)}))[0]
    assert '<td class="n">2.00</td>' in page


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a\u202eb", "[x](javascript:1)", "a|b", "# `x` **b** https://e.x"]
)
def test_names_are_data_in_both(made: Make, name: str) -> None:
    comparison = made({name: [1.0], "popularity": [3.0], "ppo": [9.0]})
    page, short = shown(comparison)
    for text in (page, short):
        assert "<script" not in text
        assert "\u202e" not in text
        assert "<a " not in text
    plain = re.sub(r"<[^>]*>", "", short)
    said = name.replace("\u202e", r"\u202e").replace("<", "&lt;").replace(">", "&gt;")
    assert said in plain
    lines = len(comparison.labels) + len(claims_of(comparison))
    assert short.count("<tr>") == lines + short.count("<table>")
