"""The fault study: what it counts, and that a few of its faults end as they should."""

import csv
import random
from collections import Counter
from itertools import islice
from pathlib import Path

from recloop.envs.world.world import World
from recloop.experiments.studies.faults.__main__ import COLUMNS, write_table
from recloop.experiments.studies.faults.damage import WRONG, artifacts_in, damages, make_artifacts


def test_damaged_folders_are_refused_or_harmless(truth: World, tmp_path: Path) -> None:
    make_artifacts(truth, tmp_path / "made")
    for artifact in artifacts_in(tmp_path / "made"):
        counts = Counter(islice(damages(artifact, tmp_path / "damaged", random.Random(0)), 12))
        assert counts.total() == 12
        assert counts[WRONG] == 0, artifact.name


def test_the_table_says_what_became_of_each(tmp_path: Path) -> None:
    write_table(tmp_path / "faults.csv", {"killed build": Counter(harmless=3, wrong=1)})
    with (tmp_path / "faults.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [row[name] for name in COLUMNS[:5]] == ["killed build", "4", "0", "3", "1"]
