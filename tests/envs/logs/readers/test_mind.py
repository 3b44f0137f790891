"""MIND as published: impressions are slates, what was clicked, what is left unused, and faults with their place."""

from pathlib import Path

import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import Columns, Times

SHOWN = [
    "1\tU1\t11/13/2019 8:36:57 AM\tN7 N8\tN1-0 N2-1 N3-0",
    "2\tU2\t11/13/2019 12:00:00 PM\t\tN3-1",
    "3\tU1\t11/13/2019 8:40:00 AM\tN7 N8\tN3-0 N1-1",
    "4\tU1\t11/14/2019 12:05:00 AM\tN7 N8\tN2-0",
]
NEWS = [
    'N1\tsports\tsoccer\t"Goal" in overtime\tA late goal.\thttps://x/1\t[{"Label": "Madrid", "WikidataId": "Q1"}]\t[]',
    "N2\tsports\ttennis\tOpen begins\t\thttps://x/2\t[]\t[]",
]


def make_mind(folder: Path, shown: list[str] = SHOWN) -> Path:
    (folder / "behaviors.tsv").write_text("\n".join(shown) + "\n")
    (folder / "news.tsv").write_text("\n".join(NEWS) + "\n")
    return folder


def test_an_impression_is_one_slate_and_a_pause_begins_a_session(tmp_path: Path) -> None:
    log = read_log(make_mind(tmp_path))
    rows = log.interactions
    assert rows[Columns.user].tolist() == ["U1"] * 3 + ["U2"] + ["U1"] * 3
    assert rows[Columns.item].tolist() == ["N1", "N2", "N3", "N3", "N3", "N1", "N2"]
    assert rows["click"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert rows[Columns.slate].tolist() == ["1", "1", "1", "2", "3", "3", "4"]
    assert rows[Columns.time].tolist()[:4] == [1573634217.0] * 3 + [1573646400.0]
    assert rows[Columns.time].tolist()[-1] == 1573689900.0, "five past midnight"
    assert len(set(rows[Columns.session].tolist()[:3] + rows[Columns.session].tolist()[4:6])) == 1
    assert rows[Columns.session].nunique() == 3
    assert Columns.position not in rows
    assert log.times is Times.behavioural
    assert log.has_exposures
    slates = compile_sequences(log)[0].slates
    assert slates is not None
    assert slates.items.shape == (4, 3)


def test_the_news_and_what_is_not_used(tmp_path: Path) -> None:
    log = read_log(make_mind(tmp_path) / "behaviors.tsv")
    assert log.items[Columns.title].tolist() == ['"Goal" in overtime', "Open begins", "N3"]
    assert (
        log.items[Columns.text].tolist()[0]
        == '"Goal" in overtime. Category: sports. Subcategory: soccer. Abstract: A late goal.'
    )
    assert log.items[Columns.category].isna().tolist() == [False, False, True]
    assert log.knowledge is not None
    assert log.knowledge.relations == ("category", "mentions", "subcategory")
    assert "mentions:Madrid" in log.knowledge.entities
    assert any("3 of 4 impressions carry a history" in note and "not used" in note for note in log.notes)
    assert read_log(tmp_path, item_relations=()).knowledge is None


@pytest.mark.parametrize(
    ("row", "cells", "wanted"),
    [
        (
            1,
            "2\tU2\t13.11.2019\t\tN3-1",
            r"behaviors\.tsv, line 2, column 'time': '13\.11\.2019' is no time such as 11/13",
        ),
        (
            1,
            "2\tU2\t11/13/2019 1:00:00 PM\t\tN3-1 N4",
            r"line 2, column 'impressions': 'N3-1 N4' is no list such as N1-0",
        ),
        (2, "3\t \t11/13/2019 1:00:00 PM\t\tN3-1", r"line 3, column 'user_id': '' is no id"),
    ],
)
def test_faults_of_mind_are_named_or_counted(tmp_path: Path, row: int, cells: str, wanted: str) -> None:
    make_mind(tmp_path, [*SHOWN[:row], cells, *SHOWN[row + 1 :]])
    with pytest.raises(LogError, match=wanted):
        read_log(tmp_path)
    log = read_log(tmp_path, on_bad_rows="drop")
    assert sum(count for _, count in log.dropped) == 1


def test_the_test_part_is_refused_by_name(tmp_path: Path) -> None:
    make_mind(tmp_path, ["1\tU1\t11/13/2019 8:36:57 AM\tN7\tN1 N2", "2\tU2\t11/13/2019 9:36:57 AM\t\tN2"])
    with pytest.raises(LogError, match="this is the test part of MIND, in which clicks are kept back"):
        read_log(tmp_path)


def test_other_files_of_these_names_are_not_mind(tmp_path: Path) -> None:
    make_mind(tmp_path, ["user\titem\ttime\tclick\tplace", "u\ti\t2024-01-01\t1\t0"])
    with pytest.raises(LogError, match="more than one"):
        read_log(tmp_path)
