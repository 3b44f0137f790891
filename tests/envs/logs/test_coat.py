"""Coat as published: both parts, the propensities, the features, and faults with their place."""

import os
from pathlib import Path

import numpy as np
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_coat_log, read_log
from recloop.envs.logs.schema import Columns, Times


def make_coat(folder: Path) -> None:
    """Two people, three coats."""
    (folder / "train.ascii").write_bytes(b"5 0 1\r\n0 2 0\r\n")
    (folder / "test.ascii").write_bytes(b"0 3 0\r\n0 1 0\r\n")
    (folder / "propensities.ascii").write_text("5.0e-01 1.0e-01 2.5e-01\n1.0e-01 0.8 1.0e-01\n")
    features = folder / "user_item_features"
    features.mkdir()
    (features / "user_features.ascii").write_text("1 0 1\n0 1 0\n")
    (features / "user_features_map.txt").write_text("gender:men\ngender:women\nage:20-30")
    (features / "item_features.ascii").write_text("1 0 1\n0 1 1\n0 1 0\n")
    (features / "item_features_map.txt").write_text("jackettype:parkas\njackettype:rain\ncolor:navy")


def cells(folder: Path, part: str) -> dict[tuple[str, str], tuple[float, float]]:
    rows = read_coat_log(folder, part=part).interactions  # type: ignore[arg-type]
    keys = zip(rows[Columns.user], rows[Columns.item], strict=True)
    return dict(zip(keys, zip(rows["rating"], rows[Columns.propensity], strict=True), strict=True))


def test_the_self_selected_part_carries_the_published_propensities(tmp_path: Path) -> None:
    make_coat(tmp_path)
    assert cells(tmp_path, "self-selected") == {("0", "0"): (5, 0.5), ("0", "2"): (1, 0.25), ("1", "1"): (2, 0.8)}


def test_the_random_part_was_dealt_alike(tmp_path: Path) -> None:
    make_coat(tmp_path)
    assert cells(tmp_path, "random") == {("0", "1"): (3, 1 / 3), ("1", "1"): (1, 1 / 3)}


def test_both_parts_in_one_log_are_told_apart_by_policy(tmp_path: Path) -> None:
    make_coat(tmp_path)
    rows = read_log(tmp_path, part="both").interactions
    assert rows[Columns.policy].value_counts().to_dict() == {"self-selected": 3, "random": 2}


def test_what_the_log_holds_and_does_not(tmp_path: Path) -> None:
    make_coat(tmp_path)
    log = read_log(tmp_path)
    assert not log.has_exposures
    assert log.times is Times.none
    assert log.items[Columns.title].tolist() == ["Coat 0: navy parkas", "Coat 1: navy rain", "Coat 2: rain"]
    assert log.items[Columns.text].iloc[0] == "Coat 0: navy parkas. Jackettype: parkas. Color: navy."
    assert log.items[Columns.category].tolist() == ["parkas", "rain", "rain"]
    assert log.users["gender"].tolist() == ["men", "women"]
    assert any("chose themselves" in note for note in log.notes)


def test_without_features_and_propensities_a_coat_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "train.ascii").write_text("5 0\n1 2\n")
    (tmp_path / "test.ascii").write_text("0 1\n0 0\n")
    log = read_log(tmp_path)
    assert log.items[Columns.title].tolist() == ["Coat 0", "Coat 1"]
    assert Columns.propensity not in log.interactions


@pytest.mark.parametrize(
    ("file", "text", "wanted"),
    [
        ("train.ascii", "5 0 1\n0 2\n", r"train\.ascii, line 2: 2 numbers where line 1 has 3"),
        ("train.ascii", "5 0 1\n0 x 0\n", r"train\.ascii, line 2, column 2: 'x' is not a finite number"),
        ("train.ascii", "5 0 1\n0 7 0\n", r"train\.ascii, line 2, column 2: 7 is no rating of 1 to 5"),
        ("train.ascii", "5 0\n0 2\n", r"propensities\.ascii has 2 lines of 3 numbers where 2 of 2 are wanted"),
        ("train.ascii", "0 0 0\n0 0 0\n", "holds no ratings"),
        ("propensities.ascii", "0.5 0.1 0\n0.1 0.8 0.1\n", r"line 1, column 3: 0 is no propensity in \(0, 1\]"),
        ("propensities.ascii", "0.5 0.1 0.1\n0.1 1.8 0.1\n", r"line 2, column 2: 1\.8 is no propensity"),
        ("user_item_features/item_features_map.txt", "a:b\nc\nd:e", r"map\.txt, line 2: 'c' is not name:value"),
    ],
)
def test_faults_name_their_place(tmp_path: Path, file: str, text: str, wanted: str) -> None:
    make_coat(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(LogError, match=wanted):
        read_coat_log(tmp_path)


def test_odd_ratings_can_be_left_out_and_counted(tmp_path: Path) -> None:
    make_coat(tmp_path)
    (tmp_path / "train.ascii").write_text("5 0 1\n0 7 0\n")
    log = read_coat_log(tmp_path, on_bad_rows="drop")
    assert len(log.interactions) == 2
    assert dict(log.dropped) == {"no rating in train.ascii": 1}


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="part='all' is no part of Coat"):
        read_coat_log(tmp_path, part="all")  # type: ignore[arg-type]


@pytest.mark.skipif("RECLOOP_DATA" not in os.environ, reason="RECLOOP_DATA names no folder with the real logs")
def test_the_real_coat() -> None:
    folder = Path(os.environ["RECLOOP_DATA"]) / "coat"
    chosen, dealt = read_coat_log(folder), read_coat_log(folder, part="random")
    assert (len(chosen.interactions), len(dealt.interactions)) == (6_960, 4_640)
    assert (len(chosen.users), len(chosen.items)) == (290, 300)
    assert dealt.interactions[Columns.propensity].eq(16 / 300).all()
    assert dealt.interactions["rating"].mean() < chosen.interactions["rating"].mean()
    sequences, _, _ = compile_sequences(clean(chosen)[0])
    assert (sequences.lengths == 24).all()
    # The order of the columns of the matrix must not pass for an order in time.
    first = np.diff(sequences.items[:24])
    assert (first < 0).any()
    assert (first > 0).any()
