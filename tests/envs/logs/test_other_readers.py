"""Sequence text, MovieLens as published, CSV and Parquet, and how a folder is recognised."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers import ColumnMapping, read_log, read_sequence_log, read_table_log
from recloop.envs.logs.schema import Columns, Signal, Times


def test_a_sequence_file_holds_order_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "tiny.sequences.txt").write_text("7 a b c\n\n8 b a\n")
    (tmp_path / "tiny.item").write_text("item_id:token\ttitle:token_seq\na\tAlien\nb\tBrazil\nd\tDune\n")
    log = read_log(tmp_path)
    assert log.name == "tiny"
    assert log.interactions[Columns.user].tolist() == ["7", "7", "7", "8", "8"]
    assert log.interactions[Columns.item].tolist() == ["a", "b", "c", "b", "a"]
    assert log.times is Times.none
    assert [signal.name for signal in log.signals] == ["consume"]
    assert set(log.interactions.columns) == {"user", "item", "consume"}
    assert log.items["title"].tolist() == ["Alien", "Brazil", "Dune", "c"]


def test_sasrecs_pairs_are_understood(tmp_path: Path) -> None:
    (tmp_path / "t.sequences.txt").write_text("1 a\n1 b\n2 a\n")
    log = read_log(tmp_path)
    assert log.interactions[Columns.user].tolist() == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 a b\n2\n", "line 2: user '2' has no items"),
        ("1 a b\n2 a b c\n1 c d e\n", "line 3: user '1' stands here a second time"),
        ("1 a b\n2 " + "x" * 1_000_000 + " c\n", "line 2, field 2: an id of 1000000 characters"),
        (" \n", "is empty"),
    ],
)
def test_faults_of_sequence_files(tmp_path: Path, text: str, wanted: str) -> None:
    path = tmp_path / "t.sequences.txt"
    path.write_text(text)
    with pytest.raises(LogError, match=wanted):
        read_sequence_log(path)


def make_ml_100k(folder: Path) -> None:
    (folder / "u.data").write_text("1\t1\t5\t874965758\n1\t2\t3\t876893171\n2\t1\t4\t888550871\n")
    flags = ["0"] * 19
    flags[3] = flags[5] = "1"
    rows = ["1|Toy Story (1995)|01-Jan-1995||http://x|" + "|".join(flags)]
    rows += ["2|Misérables, The (1995)|01-Jan-1995||http://x|" + "|".join(["1"] + ["0"] * 18)]
    (folder / "u.item").write_text("\n".join(rows) + "\n", encoding="latin-1")
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")


def test_ml_100k_as_published(tmp_path: Path) -> None:
    make_ml_100k(tmp_path)
    log = read_log(tmp_path)
    assert log.items["title"].tolist() == ["Toy Story (1995)", "The Misérables (1995)"]
    assert log.items["text"].iloc[0] == "Toy Story (1995). Genres: Animation, Comedy."
    assert log.users.loc["2", "occupation"] == "other"
    assert log.times is Times.entry
    assert log.signals[1].levels == (1, 2, 3, 4, 5)
    assert not log.has_exposures


def test_ml_1m_as_published(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::978300760\n2::2::3::978302109\n")
    (tmp_path / "movies.dat").write_bytes("1::Amélie: a: b (2001)::Comedy|Romance\n".encode("latin-1"))
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    log = read_log(tmp_path / "ratings.dat")
    assert log.items["text"].tolist() == ["Amélie: a: b (2001). Genres: Comedy, Romance.", "2"]
    assert log.users["gender"].tolist() == ["F", "M"]


def test_ml_latest_as_published(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.5,964982703\n2,2,4,964981247\n")
    films = 'movieId,title,genres\n1,"Usual Suspects, The (1995)",Crime|Mystery\n2,A (1990),(no genres listed)\n'
    (tmp_path / "movies.csv").write_text(films)
    log = read_log(tmp_path)
    assert log.signals[1].levels == (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5)
    assert log.items["text"].tolist() == ["The Usual Suspects (1995). Genres: Crime, Mystery.", "A (1990)."]


def test_movielens_faults_name_their_place(tmp_path: Path) -> None:
    make_ml_100k(tmp_path)
    (tmp_path / "u.data").write_text("1\t1\t5\t874965758\n1\t2\tx\t876893171\n")
    with pytest.raises(LogError, match=r"u\.data, line 2, column 'rating': 'x'"):
        read_log(tmp_path)


CSV = (
    "who,what,when,visit,end,page,place,p,click,stars\n"
    'a,"x,1",2024-01-01T00:00:00Z,s1,left,q1,0,0.5,1,4\n'
    "a,y,2024-01-01T00:00:00Z,s1,left,q1,1,0.25,0,\n"
    'b,"x,1",2024-01-02T12:00:00Z,s1,cut,q1,0,0.5,0,\n'
)
MAPPING = ColumnMapping(
    user="who",
    item="what",
    time="when",
    session="visit",
    session_end="end",
    slate="page",
    position="place",
    propensity="p",
    signals=(Signal("click"), Signal("stars", "ordinal", levels=(1, 2, 3, 4, 5), given_on="click")),
)


def test_any_csv_with_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(CSV)
    (tmp_path / "things.csv").write_text('what,name,brand\n"x,1","A ""thing""",Acme\n')
    log = read_log(tmp_path / "log.csv", columns=MAPPING, items=tmp_path / "things.csv")
    rows = log.interactions
    assert rows[Columns.item].tolist() == ["x,1", "y", "x,1"]
    assert rows[Columns.time].tolist() == [1704067200, 1704067200, 1704196800]
    assert rows[Columns.position].tolist() == [0, 1, 0]
    assert rows[Columns.session_end].tolist() == ["left", "left", "cut"]
    assert log.has_exposures
    assert log.items["text"].tolist() == ['A "thing" Brand: Acme.', "y"]


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(CSV)
    frame = pd.read_csv(tmp_path / "log.csv")
    frame["when"] = pd.to_datetime(frame["when"])
    frame.to_parquet(tmp_path / "log.parquet")
    from_text = read_log(tmp_path / "log.csv", columns=MAPPING)
    from_parquet = read_log(tmp_path / "log.parquet", columns=MAPPING)
    pd.testing.assert_frame_equal(from_text.interactions, from_parquet.interactions)


def test_usual_names_need_no_mapping_and_whole_number_ids_stay_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame({"userId": [1.0, 2.0], "item_id": [10, 20], "rating": [1.0, 5.0], "timestamp": [5, 9]})
    frame.to_parquet(tmp_path / "log.parquet")
    log = read_log(tmp_path)
    assert log.interactions[Columns.user].tolist() == ["1", "2"]
    assert log.interactions[Columns.item].tolist() == ["10", "20"]
    assert [signal.name for signal in log.signals] == ["consume", "rating"]
    assert log.has_times


def test_milliseconds(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\na,x,1700000000000\nb,y,1700000001500\n")
    log = read_table_log(tmp_path / "log.csv", columns=ColumnMapping("user", "item", "time", time_unit="ms"))
    assert log.interactions[Columns.time].tolist() == [1_700_000_000, 1_700_000_001.5]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("user,thing\na,b\n", r"log\.csv, line 1: no column is called like the item.*ColumnMapping\(item="),
        ("user,item,time\na,b,yesterday\nb,c,2024-01-01\n", r"line 2, column 'time': 'yesterday' is no time"),
        ('user,item\n"a\nb",x\nc\n', r"line 4, column 'item': 1 fields where the header has 2"),
        ('user,item\na,"x\n', r"line 2: unexpected end of data"),
        ('user,item\n"' + "a" * 110_000 + '",x\n', r"line 2, column 'user': a field of 110000 characters"),
        ("user,item,session_end\na,x,gone\n", r"line 2, column 'session_end': 'gone'.*left, cut, unknown"),
        ("user,,item\na,x,y\n", r"line 1: column 2 has no name"),
    ],
)
def test_faults_of_csv(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(LogError, match=wanted):
        read_log(tmp_path / "log.csv")


def test_faults_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(LogError, match="is no Parquet file"):
        read_log(path)
    frame = pd.DataFrame({"user": ["a", None], "item": ["x", "y"], "watch": [0.5, np.inf]})
    frame.to_parquet(path)
    with pytest.raises(LogError, match=r"log\.parquet, row 2, column 'user'"):
        read_log(path)
    mapping = ColumnMapping("user", "item", signals=(Signal("watch", "continuous", range=(0, 1)),))
    frame.assign(user=["a", "b"]).to_parquet(path)
    with pytest.raises(LogError, match=r"row 2, column 'watch': 'inf' is not a finite number"):
        read_log(path, columns=mapping)


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"holds no log: looked for u\.data.*\*\.inter.*\*\.parquet"):
        read_log(tmp_path)
    with pytest.raises(LogError, match="is not there"):
        read_log(tmp_path / "nowhere")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("user,item\n1,2\n")
    with pytest.raises(LogError, match=r"more than one \*\.csv \(a\.csv, b\.csv\)"):
        read_log(tmp_path)


def test_ml_10m_is_utf_8(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::978300760\n2::2::3.5::978302109\n")
    (tmp_path / "movies.dat").write_text(
        "1::Amélie (2001)::Comedy|Romance\n2::Misérables, Les (1995)::Drama\n", encoding="utf-8"
    )
    assert read_log(tmp_path).items["title"].tolist() == ["Amélie (2001)", "Misérables, Les (1995)"]


def test_own_files_are_not_taken_for_movielens(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 3},i{n},{1_600_000_000 + 90_000 * n},{n % 2}\n" for n in range(30))
    (tmp_path / "ml-events.csv").write_text(f"user_id,item_id,timestamp,click\n{rows}")
    assert read_log(tmp_path / "ml-events.csv").times is Times.behavioural
    (tmp_path / "ml-sales.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\trating:float\n" + rows.replace(",", "\t")
    )
    assert read_log(tmp_path / "ml-sales.inter").times is Times.behavioural
    own = tmp_path / "own"
    own.mkdir()
    (own / "ratings.csv").write_text(f"user_id,item_id,timestamp,click\n{rows}")
    (own / "movies.csv").write_text("item_id,title\ni0,Alien\n")
    with pytest.raises(LogError, match=r"more than one \*\.csv \(movies\.csv, ratings\.csv\)"):
        read_log(own)
    assert read_log(own / "ratings.csv", items=own / "movies.csv", least_met=0).items["title"].tolist()[0] == "Alien"
