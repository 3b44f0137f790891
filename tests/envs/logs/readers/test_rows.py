"""Lists, slates in one cell, events, organic rows and sessions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import Times
from tests.envs.logs.readers.own_logs import START, impressions, ratings, read, world_of, written


def by_slate() -> pd.DataFrame:
    grouped = impressions().groupby(["user_id", "slate_id", "timestamp"], sort=False)
    return grouped[["item_id", "click"]].agg(list).reset_index().drop(columns="slate_id")


def test_a_row_a_slate_with_lists_is_a_row_an_item(tmp_path: Path) -> None:
    wanted = world_of(read(written(tmp_path, impressions())))
    assert world_of(read(written(tmp_path, by_slate(), "slates.parquet"))) == wanted
    assert world_of(read(written(tmp_path, by_slate(), "slates.csv"))) == wanted  # lists as Python prints them
    plural = written(tmp_path, by_slate().rename(columns={"item_id": "items"}), "plural.csv")
    assert world_of(read(plural)) == wanted
    path = tmp_path / "slates.jsonl"
    by_slate().to_json(path, orient="records", lines=True)
    assert world_of(read(path)) == wanted


def test_clicks_may_be_a_list_of_the_items_that_were_taken(tmp_path: Path) -> None:
    frame = by_slate()
    pairs = zip(frame["item_id"], frame["click"], strict=True)
    frame["click"] = [[item for item, on in zip(items, on_off, strict=True) if on] for items, on_off in pairs]
    log = read(written(tmp_path, frame, "slates.parquet"))
    assert world_of(log) == world_of(read(written(tmp_path, impressions())))
    frame["click"] = [["elsewhere"]] * len(frame)
    with pytest.raises(LogError, match="are no items of their row's 'item_id'"):
        read_log(written(tmp_path, frame, "stray.parquet"))


def test_slates_as_mind_writes_them(tmp_path: Path) -> None:
    frame = by_slate()
    pairs = zip(frame.pop("item_id"), frame.pop("click"), strict=True)
    frame["impressions"] = [" ".join(f"{i}-{c}" for i, c in zip(items, on, strict=True)) for items, on in pairs]
    log = read(written(tmp_path, frame))
    assert log.consumption.name == "click"
    assert world_of(log) == world_of(read(written(tmp_path, impressions())))


def test_a_row_a_user_with_a_list_is_a_sequence(tmp_path: Path) -> None:
    lists = ratings().groupby("user_id", sort=False)["item_id"].agg(list).reset_index()
    log = read(written(tmp_path, lists, "users.parquet"))
    assert (len(log.items), len(log.interactions), log.has_exposures) == (15, 96, False)
    assert [row[0] for row in world_of(log)["u0"]] == lists["item_id"][0]


def test_structs_dictionaries_decimals_and_binary_are_their_values(tmp_path: Path) -> None:
    frame = ratings()
    table = pa.table(
        {
            "user_id": pa.array(frame["user_id"]).dictionary_encode(),
            "item_id": pa.array([{"id": item} for item in frame["item_id"]]),
            "rating": pa.array(frame["rating"].astype(float)).cast(pa.decimal128(21, 1)),
            "timestamp": pa.array(frame["timestamp"]).cast(pa.timestamp("s")),
            "source": pa.array([b"web"] * len(frame)),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    assert world_of(read(tmp_path / "log.parquet")) == world_of(read(written(tmp_path, frame)))


def test_large_integer_ids_with_a_gap_stay_exact(tmp_path: Path) -> None:
    frame = ratings()
    big = frame["user_id"].str[1:].astype("int64") + 2**53
    table = pa.Table.from_pandas(frame.assign(user_id=big), preserve_index=False)
    gap = pa.array([None, *big.tolist()[1:]], pa.int64())
    pq.write_table(table.set_column(0, "user_id", gap), tmp_path / "log.parquet")
    with pytest.raises(LogError, match=r"row 1, column 'user_id': '' is no id"):
        read_log(tmp_path / "log.parquet")
    log = read(tmp_path / "log.parquet", on_bad_rows="drop")
    assert len(log.users) == 12
    assert str(2**53 + 1) in log.users.index


def test_an_index_of_pandas_is_a_column(tmp_path: Path) -> None:
    frame = ratings()
    wanted = world_of(read(written(tmp_path, frame)))
    times = frame.assign(timestamp=pd.to_datetime(frame["timestamp"], unit="s")).set_index("timestamp")
    assert world_of(read(written(tmp_path, times.sample(frac=1, random_state=1), "by_time.parquet"))) == wanted
    assert world_of(read(frame.set_index("user_id"))) == wanted


EVENTS = ["view", "click", "add_to_cart", "purchase"]


def events() -> pd.DataFrame:
    """Each user views six items; of item n the first n % 4 + 1 events happened, a minute apart."""
    rows = [
        (f"u{user}", f"i{item}", START + user * 7 + item * 100_000 + depth * 60, EVENTS[depth])
        for user in range(10)
        for item in range(6)
        for depth in range(item % 4 + 1)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "time", "event"])


def test_an_event_log_has_an_answer_for_each_depth(tmp_path: Path) -> None:
    path = written(tmp_path, events().sample(frac=1, random_state=2))
    log = read(path)
    assert [signal.name for signal in log.signals] == ["click", "cart", "purchase"]
    assert log.has_exposures  # views are what was shown, where there are clicks
    assert len(log.interactions) == 60
    assert log.interactions[["click", "cart", "purchase"]].sum().tolist() == [40, 20, 10]
    assert any("view < click < cart < purchase" in note for note in log.notes)
    taken = read(path, views="consumption")
    assert [signal.name for signal in taken.signals] == ["view", "click", "cart", "purchase"]
    assert not taken.has_exposures
    assert len(taken.interactions) == 60


def test_events_of_unknown_depth_are_asked_about(tmp_path: Path) -> None:
    frame = events().replace({"event": {"add_to_cart": "3", "view": "1", "click": "2", "purchase": "4"}})
    path = written(tmp_path, frame)
    with pytest.raises(LogError, match=r"no known depth.*--events.*--ignore event"):
        read_log(path)
    log = read(path, events=["1", "2", "4"])
    assert [signal.name for signal in log.signals] == ["1", "2", "4"]
    assert any("20 rows of event '3' are not used" in note for note in log.notes)
    with pytest.raises(LogError, match=r"--events: .*'5'"):
        read_log(path, events=["1", "5"])


@pytest.mark.parametrize("blank", ["", "-1"])
def test_rows_without_a_slate_are_shown_by_themselves(tmp_path: Path, blank: str) -> None:
    frame = impressions().assign(slate_id=lambda f: f["slate_id"].str.replace(r"s(\d+)-(\d+)", r"\1\2", regex=True))
    frame.loc[frame["slate_id"].str.endswith("3"), "slate_id"] = blank
    log = read(written(tmp_path, frame))
    numbers = {user: [row[0] for row in rows] for user, rows in world_of(log).items()}
    assert all(len(set(own)) == 3 + 4 for own in numbers.values())  # three slates of 4, four rows alone


def test_rows_of_one_slate_share_a_time_and_that_says_nothing_of_typing_in(tmp_path: Path) -> None:
    frame = impressions()
    assert read(written(tmp_path, frame)).times is Times.behavioural
    without = read(written(tmp_path, frame.drop(columns=["slate_id", "position"]), "without.csv"))
    assert without.times is Times.behavioural
    assert world_of(without) == world_of(read(written(tmp_path, frame)))
    alone = read(written(tmp_path, frame.drop(columns=["slate_id", "position"]), "alone.csv"), slates="row")
    assert len({row[0] for row in world_of(alone)["u0"]}) == 16


def test_sessions_by_pause_and_by_column(tmp_path: Path) -> None:
    frame = impressions()
    log = read(written(tmp_path, frame))
    ends = log.interactions.drop_duplicates("session")["session_end"].value_counts()
    assert ends["left"] + ends["cut"] == 40
    assert ends["cut"] >= 1  # the log ends before anybody could come back
    assert "session" not in read(written(tmp_path, frame), session_gap=0).interactions
    held = read(written(tmp_path, frame.assign(session_id=frame["user_id"]), "held.csv"))
    assert held.interactions["session"].nunique() == 10
    assert "session_end" not in held.interactions
    assert any("session_end=COLUMN" in line for line in held.reading.warnings)
    blank = frame.assign(session_id=np.where(frame["slate_id"].str.endswith("0"), "", frame["user_id"]))
    assert read(written(tmp_path, blank, "blank.csv")).interactions["session"].nunique() == 20
