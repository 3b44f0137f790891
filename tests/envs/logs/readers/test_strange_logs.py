"""Logs as forty people have them: read as what they are, or refused in one line that says what chooses."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tyro

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import LoggedBehavior
from recloop.experiments.log_options import LogOptions
from tests.envs.logs.readers.own_logs import impressions, ratings, read, world_of, written

RATINGS = ratings()
WORLD = world_of(read(RATINGS))
SHOWN = impressions()
MOMENTS = pd.to_datetime(RATINGS["timestamp"], unit="s")


def lists(separator: str | None = None) -> pd.DataFrame:
    """A row a user: items, ratings and times as lists, or as text."""
    rows: list[dict[str, Any]] = []
    for user, own in RATINGS.sort_values("timestamp", kind="stable").groupby("user_id", sort=False):
        cells = {"item_ids": own["item_id"], "ratings": own["rating"], "ts": own["timestamp"]}
        rows.append({"user_id": user, **{name: list(cell) for name, cell in cells.items()}})
    frame = pd.DataFrame(rows)
    if separator:
        for name in ("item_ids", "ratings", "ts"):
            frame[name] = frame[name].map(lambda row: separator.join(map(str, row)))
    return frame


def events() -> list[dict[str, Any]]:
    """Exports of GA4: items as a list of objects, microseconds."""
    return [
        {
            "event_timestamp": int(row.timestamp) * 10**6,
            "event_name": "view_item",
            "user_pseudo_id": row.user_id,
            "items": [{"item_id": row.item_id, "price": 3}],
        }
        for row in RATINGS.itertuples()
    ]


def lines(folder: Path, records: list[dict[str, Any]]) -> Path:
    path = folder / "log.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records), "utf-8")
    return path


@pytest.mark.parametrize("separator", [" ", "|", ",", ", "])
def test_text_of_several_ids_is_unfolded(tmp_path: Path, separator: str) -> None:
    assert world_of(read(written(tmp_path, lists(separator)))) == WORLD
    with pytest.raises(LogError, match=r"column 'item': .* seems to hold several ids; call the column item_ids"):
        read_log(written(tmp_path, lists(separator).rename(columns={"item_ids": "item"})))


def test_lists_take_a_named_time_and_one_bad_list_is_one_bad_row(tmp_path: Path) -> None:
    frame = lists()
    path = lines(tmp_path, frame.to_dict("records"))
    assert world_of(read(path, time="ts")) == WORLD
    frame.at[3, "ratings"] = [1]
    path = lines(tmp_path, frame.to_dict("records"))
    with pytest.raises(LogError, match=r"line 4, column 'ratings': '\[1\]' has another length than its row's"):
        read_log(path)
    assert len(read_log(path, on_bad_rows="drop").users) == len(WORLD) - 1


def test_objects_in_lists_and_nested_names_are_found(tmp_path: Path) -> None:
    wanted = {user: [row[0] for row in rows] for user, rows in WORLD.items()}
    for source in (lines(tmp_path, events()), pa.Table.from_pylist(events())):
        found = world_of(read(source))
        assert {user: [row[0] for row in rows] for user, rows in found.items()} == wanted


def test_what_is_said_once_a_slate_is_no_answer_to_an_item() -> None:
    slates = [
        {"user_id": f"u{n % 9}", "article_ids_inview": [n % 7, 8, 9], "article_ids_clicked": [8], "read_time": n / 2}
        for n in range(30)
    ]
    log = read_log(pa.Table.from_pylist(slates))
    assert [signal.name for signal in log.signals] == ["article_ids_clicked"]
    assert log.has_exposures
    assert {use.name: use.why for use in log.reading.unused}["read_time"].startswith("it says something of a whole row")


@pytest.mark.parametrize(
    "cells",
    [
        MOMENTS.dt.strftime("%d.%m.%Y, %H:%M:%S"),
        MOMENTS.dt.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        MOMENTS.dt.strftime("%B %d, %Y %I:%M:%S %p"),
        RATINGS["timestamp"].map("{:.9e}".format),
    ],
)
def test_more_ways_of_writing_a_moment(tmp_path: Path, cells: pd.Series) -> None:
    assert world_of(read(written(tmp_path, RATINGS.assign(timestamp=cells)))) == WORLD


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            (MOMENTS - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1),
            "may be days as a spreadsheet.*time_unit=excel",
        ),
        (RATINGS["timestamp"] // 86400, r"may be days since 1970 \(time_unit=d\)"),
        (RATINGS["timestamp"] // 60, r"may be minutes since 1970 \(time_unit=min\)"),
        (MOMENTS.dt.year + RATINGS.index % 2, "may be years"),
        (MOMENTS.dt.strftime("%y%m%d").astype(int), "may be dates written in six digits"),
        (MOMENTS.dt.strftime("%d.%m.%y %H:%M"), "has a year of two digits"),
        (MOMENTS.dt.strftime("%Y-%m-%d %H:%M:%S CEST"), "cannot be read as one; say how it is written"),
        (MOMENTS.dt.strftime("%H:%M:%S"), "cannot be read as one"),
        (RATINGS["timestamp"].map("{:,}".format), "cannot be read as one"),
        (RATINGS.index.map(lambda n: f"9999-12-31 00:00:{n % 60:02d}"), "impossible time, too late"),
    ],
)
def test_times_of_two_readings_or_none_are_refused(tmp_path: Path, cells: Any, said: str) -> None:
    with pytest.raises(LogError, match=said):
        read(written(tmp_path, RATINGS.assign(timestamp=cells)))


def test_days_of_a_spreadsheet_by_their_unit(tmp_path: Path) -> None:
    days = (MOMENTS - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1)
    path = written(tmp_path, RATINGS.assign(timestamp=days))
    assert world_of(read(path, time="timestamp", time_unit="excel")) == WORLD


def test_dates_beyond_nanoseconds_end_in_no_traceback(tmp_path: Path) -> None:
    for number, said in ((10**14, "too late"), (10**16, "a date that cannot be held")):
        table = pa.table(
            {"user_id": ["a", "b"], "item_id": ["x", "y"], "time": pa.array([number] * 2, pa.timestamp("ms"))}
        )
        pq.write_table(table, tmp_path / "log.parquet")
        with pytest.raises(LogError, match=said):
            read(tmp_path / "log.parquet")


def test_ids_stay_apart(tmp_path: Path) -> None:
    """Numbers too large for a float, words for nobody, infinities, a repeated line of names."""
    huge = RATINGS.assign(user_id=RATINGS["user_id"].str[1:].astype(int))
    for first in (2**60, 10**25):
        records = [{**row, "user_id": first + row["user_id"]} for row in huge.astype(object).to_dict("records")]
        assert len(read_log(lines(tmp_path, records)).users) == len(WORLD)
    for nobody in ("NA", "-1", "unknown"):
        ids = huge["user_id"].astype(str).where(huge["user_id"] != 4, nobody)
        with pytest.raises(LogError, match=f"column 'user_id': '{nobody}' is no id where all others are numbers"):
            read_log(written(tmp_path, huge.assign(user_id=ids)))
    with pytest.raises(LogError, match="is no id"):
        read_log(huge.assign(user_id=huge["user_id"].astype(float).replace(4.0, np.inf)))
    text = RATINGS[["user_id", "item_id"]].to_csv(index=False)
    (tmp_path / "twice.csv").write_text(text + text, "utf-8")
    with pytest.raises(LogError, match=r"line 98, .*'user_id' and the names after it stand here again"):
        read_log(tmp_path / "twice.csv")
    assert len(read_log(tmp_path / "twice.csv", on_bad_rows="drop").users) == len(WORLD)


def test_parts_of_other_types_order_and_folders_with_names(tmp_path: Path) -> None:
    numbers = RATINGS.assign(item_id=RATINGS["item_id"].str[1:].astype(int))
    wanted = world_of(read(numbers))
    parts, named = tmp_path / "parts", tmp_path / "named"
    parts.mkdir()
    numbers[:40].to_parquet(parts / "part-0.parquet")
    numbers[40:].astype({"item_id": str})[["rating", "item_id", "user_id", "timestamp"]].to_parquet(
        parts / "part-1.parquet"
    )
    for user, own in numbers.groupby("user_id", sort=False):
        (named / f"user_id={user}").mkdir(parents=True)
        own.drop(columns="user_id").to_parquet(named / f"user_id={user}" / "part-0.parquet")
    assert world_of(read(parts)) == wanted
    assert world_of(read(named)) == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.assign(click=0), "'click' is 0 in every row: nothing that was shown was taken"),
        (lambda f: f.rename(columns={"click": "purchase"}), r"taken \(--signals purchase\), is it an answer"),
        (lambda f: f.assign(slate_id=1), "slates .* lie half an hour or more apart"),
        (lambda f: f.assign(propensity=25.0), "rows have a propensity such as 25"),
        (lambda f: f.assign(position=-f["position"] - 1), "position such as -"),
    ],
)
def test_impressions_that_say_something_else_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(LogError, match=said):
        clean(read_log(written(tmp_path, change(SHOWN.copy()))))


def test_clicks_may_be_counted_and_impressions_are_no_items(tmp_path: Path) -> None:
    counted = SHOWN.assign(click=SHOWN["click"] * (1 + SHOWN["position"]), impressions=1 + SHOWN.index % 3)
    assert world_of(read(written(tmp_path, counted))) == world_of(read(SHOWN))


def test_what_is_only_called_like_an_answer_is_said(tmp_path: Path) -> None:
    log = read_log(
        written(tmp_path, RATINGS.assign(rating=RATINGS["rating"].map("{}/5".format), order_id=RATINGS.index))
    )
    assert [signal.name for signal in log.signals] == ["consume"]
    assert any("'rating' is not used" in line and "'" in line for line in log.reading.warnings)
    with pytest.raises(LogError, match=r"'.,...' may be thousands or have a decimal comma"):
        read_log(written(tmp_path, RATINGS.assign(play_count=(RATINGS["rating"] * 1234).map("{:,}".format))))
    log = read_log(written(tmp_path, RATINGS.assign(rating=RATINGS["rating"] // 4)))
    assert log.signals[1].kind == "binary"


def test_what_is_no_regular_file_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "log.item")
    (tmp_path / "log.inter").write_text("user_id:token\titem_id:token\na\tb\n", "utf-8")
    for path in (Path("/dev/zero"), tmp_path / "pipe.csv"):
        with pytest.raises(LogError, match="is neither a file nor a folder"):
            read_log(path)
    with pytest.raises(LogError, match=r"log\.item is no file of text"):
        read_log(tmp_path / "log.inter")
    (tmp_path / "sheet.csv").write_bytes(b"PK\x03\x04....")
    with pytest.raises(LogError, match="a zip archive or a spreadsheet"):
        read_log(tmp_path / "sheet.csv")
    for frame in ({"user_id": [1, 2], "item_id": [1]}, pd.Series([1, 2])):
        with pytest.raises(LogError, match="is no table"):
            read_log(frame)


def test_a_matrix_is_told() -> None:
    wide = RATINGS.pivot(index="user_id", columns="item_id", values="rating").reset_index()
    with pytest.raises(LogError, match="nearly all hold numbers: it seems a matrix"):
        read_log(wide)


def again(path: Path, log: LoggedBehavior) -> LoggedBehavior:
    """The log read by the command that `check-log` prints."""
    words = shlex.split(LogOptions(path).command(log))[2:]
    words = words[: words.index("--slate-size")] if "--slate-size" in words else words[: words.index("--out")]
    return tyro.cli(LogOptions, args=words).read()[0]


@pytest.mark.parametrize(
    "frame",
    [
        RATINGS,
        SHOWN,
        RATINGS.assign(rating=RATINGS["rating"].where(RATINGS.index % 5 != 0, -1)),
        RATINGS.assign(skipped=RATINGS["rating"] // 4),
        RATINGS.assign(play_count=RATINGS["rating"] * 1234567.25 + RATINGS.index),
        RATINGS.rename(columns={"rating": "rating:float"}),
        SHOWN.assign(click=SHOWN["click"] * 2),
        lists("|"),
        RATINGS.assign(event=["view", "click", "purchase"] * (len(RATINGS) // 3)),
        RATINGS.assign(act=["view", "click", "purchase"] * (len(RATINGS) // 3)),
    ],
)
def test_the_printed_command_reads_the_same_world(tmp_path: Path, frame: pd.DataFrame) -> None:
    path = written(tmp_path, frame)
    log = LogOptions(path, columns=("event=act",) if "act" in frame else ()).read()[0]
    other = again(path, log)
    assert world_of(other) == world_of(log)
    assert (other.signals, other.times, other.has_exposures) == (log.signals, log.times, log.has_exposures)
