"""The fault study calls what is right right and what is wrong wrong, and a few faults of each kind end well."""

import csv
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from recloop.envs.world.world import World
from recloop.experiments.studies.faults.__main__ import FaultsConfig, main
from recloop.experiments.studies.faults.damage import artifacts_in, damages, make_artifacts
from recloop.experiments.studies.faults.outcomes import (
    COLUMNS,
    HARMLESS,
    REFUSED,
    WRONG,
    Ending,
    Trial,
    counted,
    write_table,
    wrong,
)
from recloop.experiments.studies.faults.processes import (
    Tried,
    kills,
    on_disk,
    on_filling_disk,
    stops,
    two_writers,
    undisturbed,
)

PROGRAM = """
import subprocess, sys, time
from pathlib import Path
from recloop.encoders.base.locks import one_writer
from recloop.encoders.base.replacing import replacing_file, sweep
from recloop.experiments.cli import guarded
from recloop.experiments.stopping import telling_what_is_kept

def keep(path, text):
    with replacing_file(path) as part:
        part.write_text(text)

def work(out):
    for number in range(8):
        if not (out / str(number)).exists():
            time.sleep(0.1)
            keep(out / str(number), 1000 * str(number))

def run():
    out = Path(sys.argv[1])
    with one_writer(out), telling_what_is_kept(lambda: "what is finished is kept"):
        out.mkdir(exist_ok=True)
        sweep(out)
        work(out)

# a fault
guarded(run)
"""
"""A command in small: it keeps eight files, and goes on from those that are there."""


def tried(fault: str = "") -> Tried:
    return Tried("small", lambda place: [str(place / "out")], ("out/*",), PROGRAM.replace("# a fault", fault))


def test_what_is_right_is_called_right(tmp_path: Path) -> None:
    one, luck = tried(), random.Random(1)
    sound = undisturbed(one, tmp_path / "sound")
    assert len(sound.result) == 8
    assert 0.8 < sound.writing < sound.seconds
    assert next(kills(one, sound, tmp_path / "kills", luck)) == Ending(HARMLESS)
    assert next(stops(one, sound, tmp_path / "stops", luck)) == Ending(REFUSED)
    assert next(two_writers(one, sound, tmp_path / "two")) == Ending(REFUSED)
    assert next(on_filling_disk(one, sound, tmp_path / "late", random.Random(1))) == Ending(REFUSED)
    for room in (8, None):
        for outcome in islice(on_disk(one, tmp_path / f"disk of {room}", room), 1):  # none where nobody may mount
            assert outcome == Ending(REFUSED)


@pytest.mark.parametrize(
    ("fault", "trial", "why"),
    [
        ("keep = lambda path, text: (path.write_text(text), path.with_name('.x.lock').touch())", kills, "left behind"),
        ("import os; keep = lambda path, text: path.write_text(str(os.getpid()))", kills, "out/[0-9].* differ from an"),
        ("subprocess.Popen(['sleep', '30'])", kills, "alive 2 s later"),
        ("guarded = lambda run: run()", stops, "it ended with -"),
        ("import contextlib; one_writer = lambda out: contextlib.nullcontext()", two_writers, "no lock was seen"),
        ("guarded = lambda run: run()", on_filling_disk, "it ended with 1: OSError: .*File too large"),
    ],
)
def test_what_is_wrong_is_called_wrong(tmp_path: Path, fault: str, trial, why: str) -> None:  # type: ignore[no-untyped-def]
    one = tried(fault)
    luck = () if trial is two_writers else (random.Random(1),)
    outcomes = trial(one, undisturbed(one, tmp_path / "sound"), tmp_path / "tried", *luck)
    outcome = next(outcome for outcome in islice(outcomes, 8) if outcome.kind != HARMLESS)  # one may come too late
    assert outcome.kind == WRONG
    assert re.search(why, outcome.why), outcome.why


@pytest.mark.slow
@pytest.mark.skipif("RECLOOP_LONG" not in os.environ, reason="takes minutes")
def test_commands_are_killed_stopped_and_crowded_without_harm(capsys: pytest.CaptureFixture[str]) -> None:
    found = main(FaultsConfig(damages=5, kills=4, stops=4, crowded=1, texts=20, minutes=20))
    assert {"killed build", "stopped train", "second compare", "disk that fills up, compare --jobs 2"} <= set(found)
    assert not any(counts[WRONG] for counts in found.values()), capsys.readouterr().out


def test_damaged_folders_are_refused_or_harmless(truth: World, tmp_path: Path) -> None:
    make_artifacts(truth, tmp_path / "made")
    for artifact in artifacts_in(tmp_path / "made"):
        outcomes = list(islice(damages(artifact, tmp_path / "damaged", random.Random(0)), 12))
        assert [outcome.why for outcome in outcomes if outcome.kind == WRONG] == [], artifact.name


def test_outcomes_are_counted_within_a_time_and_what_is_wrong_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def slow() -> Iterator[Ending]:
        while True:
            time.sleep(0.02)
            yield Ending(HARMLESS)

    few = [Ending(REFUSED), wrong("it hangs")]
    trials = [Trial("long", slow(), 1000, 0.001), Trial("few", few, 5, 1.0), Trial("none", [], 5, 1.0)]
    found = counted(trials, 2.0)
    assert 1 <= found.pop("long").total() < 20
    assert found == {"few": Counter(refused=1, wrong=1)}
    assert "wrong: few: it hangs\n" in capsys.readouterr().out


def test_the_table_says_what_became_of_each_and_keeps_other_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "faults.csv", {"killed build": Counter(harmless=3, wrong=1)})
    write_table(tmp_path / "faults.csv", {"stopped build": Counter(refused=2)})
    with (tmp_path / "faults.csv").open() as file:
        rows = [[row[name] for name in COLUMNS[:5]] for row in csv.DictReader(file)]
    assert rows == [["killed build", "4", "0", "3", "1"], ["stopped build", "2", "2", "0", "0"]]
