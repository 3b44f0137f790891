"""RecBole atomic files: what is read, and what is refused with file, line and column."""

from pathlib import Path

import numpy as np
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers import ColumnMapping, read_atomic_log, read_log
from recloop.envs.logs.readers.text_table import FIELD_LIMIT
from recloop.envs.logs.schema import Columns, Signal, Times

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ROWS = "u1\ti1\t5\t100\nu1\ti2\t3\t200\nu2\ti1\t1\t150\nu2\ti3\t4\t90\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\toverview:token_seq\n"
    "i1\tToy Story\t1995\tAnimation Comedy\tA cowboy doll is profoundly threatened when a new toy arrives at home.\n"
    "i2\tHeat\t1995\tAction\t\n"
)


def write(folder: Path, **files: str) -> Path:
    for end, text in files.items():
        (folder / f"tiny.{end}").write_text(text, encoding="utf-8")
    return folder


def test_a_tiny_log_is_read_as_written(tmp_path: Path) -> None:
    log = read_log(
        write(
            tmp_path,
            inter=INTER + ROWS,
            item=ITEM,
            user="user_id:token\tage:float\tjob:token\nu1\t24\twriter\n",
            kg="head_id:token\trelation_id:token\ttail_id:token\nToy\tmaker\tPixar\nToy\tmaker\tPixar\n",
            link="item_id:token\tentity_id:token\ni1\tToy\ni2\tHeatFilm\n",
        )
    )
    assert log.name == "tiny"
    assert log.interactions[Columns.user].tolist() == ["u1", "u1", "u2", "u2"]
    assert log.interactions["rating"].tolist() == [5, 3, 1, 4]
    assert log.interactions["consume"].tolist() == [1, 1, 1, 1]
    assert [s.name for s in log.signals] == ["consume", "rating"]
    assert log.signals[1] == Signal("rating", "ordinal", levels=(1, 2, 3, 4, 5), given_on="consume")
    assert not log.has_exposures
    assert log.items.index.tolist() == ["i1", "i2", "i3"], "an item without a row in .item still has one"
    assert log.items["title"].tolist() == ["Toy Story (1995)", "Heat (1995)", "i3"]
    assert log.items["text"].tolist() == [
        "Toy Story (1995). Genres: Animation, Comedy. "
        "A cowboy doll is profoundly threatened when a new toy arrives at home.",
        "Heat (1995). Genres: Action.",
        "i3",
    ]
    assert log.items["entity"].fillna("-").tolist() == ["Toy", "HeatFilm", "-"]
    assert log.users.index.tolist() == ["u1", "u2"]
    assert log.users["age"].tolist()[0] == 24
    assert np.isnan(log.users["age"].tolist()[1])
    assert log.users["job"].tolist() == ["writer", ""]
    assert log.knowledge is not None
    assert log.knowledge.triples.shape == (1, 3), "a triple written twice counts once"
    assert any("1 items have no row in tiny.item" in note for note in log.notes)
    assert any("2 of 3 items are linked to the knowledge graph, 1 without a triple" in note for note in log.notes)


def test_column_names_windows_line_ends_and_blank_lines(tmp_path: Path) -> None:
    text = "person:token\tthing:token\r\na\tx\r\n\r\nb\ty\r\n"
    (tmp_path / "t.inter").write_bytes(b"\xef\xbb\xbf" + text.encode())
    log = read_atomic_log(tmp_path / "t.inter", columns=ColumnMapping(user="person", item="thing"))
    assert log.interactions[Columns.item].tolist() == ["x", "y"]
    assert log.times is Times.none
    assert Columns.time not in log.interactions


def test_labels_of_zero_and_one_are_exposures(tmp_path: Path) -> None:
    text = "user_id:token\titem_id:token\tlabel:float\twatch:float\nu\ta\t1\t0.5\nu\tb\t0\t\nv\ta\t1\t0.25\n"
    log = read_log(write(tmp_path, inter=text))
    assert log.has_exposures
    assert log.consumption.name == "label"
    assert log.signals[1] == Signal("watch", "ordinal", levels=(0.25, 0.5), given_on="label")


def test_labels_typed_as_tokens_are_answers_and_lists_of_what_came_before_are_said(tmp_path: Path) -> None:
    text = "user_id:token\titem_id:token\tlabel:token\tbefore:token_seq\nu\ta\t1\tb c\nu\tb\t0\t\nv\ta\t1\tb\n"
    log = read_log(write(tmp_path, inter=text))
    assert log.has_exposures
    assert log.interactions["label"].tolist() == [1, 0, 1]
    assert [(column.name, column.why) for column in log.reading.unused] == [("before", "a column of type token_seq")]


def test_times_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, inter=INTER + ROWS)
    assert read_log(path).times is Times.behavioural
    assert read_log(path, times=Times.entry).times is Times.entry
    assert Columns.time not in read_log(path, times=Times.none).interactions


FAULTS = {
    "missing column": (INTER.replace("item_id", "thing") + ROWS, ["tiny.inter, line 1", "item_id", "thing"]),
    "no type": (INTER.replace("rating:float", "rating") + ROWS, ["tiny.inter, line 1", "'rating'", "float_seq"]),
    "unknown type": (INTER.replace("rating:float", "rating:int") + ROWS, ["line 1", "'rating:int'"]),
    "twice": (INTER.replace("rating:float", "user_id:float") + ROWS, ["line 1", "user_id"]),
    "wrong type": (INTER + ROWS + "u3\ti1\tgood\t7\n", ["line 6", "column 'rating'", "'good'"]),
    "infinity": (INTER + "u3\ti1\t1e999\t7\n" + ROWS, ["line 2", "column 'rating'", "'1e999'"]),
    "short line": (INTER + ROWS + "\nu3\ti1\t2\n", ["line 7", "column 'timestamp:float'", "3 fields", "4"]),
    "long line": (INTER + ROWS + "u3\ti1\t2\t3\t4\n", ["line 6", "5 fields", "4"]),
    "no user": (INTER + ROWS + " \ti1\t2\t3\n", ["line 6", "column 'user_id'"]),
    "million characters": (
        INTER + ROWS + "u3\t" + "i" * 1_000_000 + "\t2\t3\n",
        ["line 6", "column 'item_id:token'", "1000000 characters", str(FIELD_LIMIT)],
    ),
    "empty file": ("", ["tiny.inter is empty"]),
    "header only": (INTER, ["tiny.inter", "no rows"]),
    "NUL": (INTER + "u\0\ti\t1\t2\n", ["line 2", "NUL"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_with_its_place(tmp_path: Path, name: str) -> None:
    text, wanted = FAULTS[name]
    with pytest.raises(LogError) as caught:
        read_log(write(tmp_path, inter=text))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for part in wanted:
        assert part in message


DROPPED = {
    "wrong type": "malformed rating",
    "infinity": "malformed rating",
    "short line": "ragged line",
    "long line": "ragged line",
    "no user": "missing user_id",
    "million characters": "field too long",
}


@pytest.mark.parametrize("name", DROPPED)
def test_bad_rows_can_be_dropped_and_are_counted(tmp_path: Path, name: str) -> None:
    log = read_log(write(tmp_path, inter=FAULTS[name][0]), on_bad_rows="drop")
    assert len(log.interactions) == 4
    assert log.dropped == ((f"{DROPPED[name]} in tiny.inter", 1),)


def test_faults_of_the_files_beside(tmp_path: Path) -> None:
    write(tmp_path, inter=INTER + ROWS, item=ITEM + "i1\tAgain\t1990\tDrama\t\n")
    with pytest.raises(LogError, match=r"tiny\.item, line 4, column 'item_id': 'i1' stands here a second time"):
        read_log(tmp_path)
    write(tmp_path, item=ITEM, user="user_id:token\tage:float\nu1\t3\nu1\t4\n")
    with pytest.raises(LogError, match=r"tiny\.user, line 3, column 'user_id'"):
        read_log(tmp_path)
    write(
        tmp_path,
        user="user_id:token\nu1\n",
        kg="head_id:token\trelation_id:token\ttail_id:token\na\tb\tc\n",
        link="item_id:token\tentity_id:token\ni9\ta\n",
    )
    with pytest.raises(LogError, match=r"tiny\.link, line 2, column 'item_id': 'i9' is no item"):
        read_log(tmp_path)
    assert ("unknown item_id in tiny.link", 1) in read_log(tmp_path, on_bad_rows="drop").dropped
    write(tmp_path, link="item_id:token\tentity_id:token\ni1\ta\ni1\tc\n")
    with pytest.raises(LogError, match=r"tiny\.link, line 3, column 'item_id': 'i1' stands here a second time"):
        read_log(tmp_path)
    write(tmp_path, kg="head_id:token\ttail_id:token\na\tb\n")
    with pytest.raises(LogError, match=r"tiny\.kg, line 1: there is no column 'relation_id'"):
        read_log(tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.inter").write_bytes(INTER.encode() + b"u1\ti1\t1\t2\nu1\t\xff\xfe\t1\t2\n")
    with pytest.raises(LogError, match=r"t\.inter, line 3, byte 4: 0xff is not utf-8"):
        read_log(tmp_path)


def test_unknown_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="on_bad_rows='skip'"):
        read_log(write(tmp_path, inter=INTER + ROWS), on_bad_rows="skip")
    with pytest.raises(LogError, match="did you mean 'times'"):
        read_log(tmp_path, tims=1)


def test_numbers_among_the_texts(tmp_path: Path) -> None:
    item = "item_id:float\ttitle:float\tyear:float\tprice:float\n1\t300\t2006\t9.5\n2\t1984\t\t\n"
    inter = INTER + "u1\t1\t5\t100\nu2\t2\t3\t200\n"
    log = read_log(write(tmp_path, inter=inter, item=item), text_columns=("price",))
    assert log.items["text"].tolist() == ["300 (2006). Price: 9.5.", "1984."]
    assert log.items["price"].tolist()[0] == 9.5
    assert np.isnan(log.items["price"].tolist()[1])


@pytest.mark.parametrize("item", ["item_id:token\n", "item_id:token\ni1\n", "item_id:token\tname:token_seq\n"])
def test_thin_item_files(tmp_path: Path, item: str) -> None:
    log = read_log(write(tmp_path, inter=INTER + ROWS, item=item))
    assert sorted(log.items.index) == ["i1", "i2", "i3"]
    assert sorted(log.items["text"].str.rstrip(".")) == ["i1", "i2", "i3"]
