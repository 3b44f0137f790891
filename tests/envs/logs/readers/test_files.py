"""How a table may be written: separators, encodings, packing, parts, frames in memory; and ids that meet."""

import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.cleaning import CleaningOptions, clean
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.readers.files import read_file
from recloop.envs.logs.readers.text_table import BadRows
from recloop.envs.logs.schema import Times
from tests.envs.logs.readers.own_logs import START, ratings, read, world_of, written

PLAIN = ratings()


def plain(tmp_path: Path) -> dict[str, list[tuple[str, ...]]]:
    return world_of(read(written(tmp_path, PLAIN, "plain.csv")))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_separators_and_line_ends_are_found(tmp_path: Path, separator: str, ending: str) -> None:
    path = written(tmp_path, PLAIN, "a log.csv", sep=separator, lineterminator=ending)
    assert world_of(read(path)) == plain(tmp_path)


def test_packed_files_lines_of_json_and_parts(tmp_path: Path) -> None:
    wanted = plain(tmp_path)
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(PLAIN.to_csv(index=False).encode()))
    assert world_of(read(packed)) == wanted
    lines = tmp_path / "log.jsonl"
    PLAIN.to_json(lines, orient="records", lines=True)
    assert world_of(read(lines)) == wanted
    folder = tmp_path / "parts"
    folder.mkdir()
    PLAIN.iloc[:50].to_parquet(folder / "part-0000.parquet")
    PLAIN.iloc[50:].to_parquet(folder / "part-0001.parquet")
    assert world_of(read(folder)) == wanted
    (folder / "part-0002.parquet").write_bytes(b"PAR1")
    with pytest.raises(LogError, match=r"part-0002\.parquet is no Parquet file"):
        read_log(folder)
    packed.write_bytes(gzip.compress(b"user_id,item_id\n")[:-6])
    with pytest.raises(LogError, match="cannot be unpacked"):
        read_log(packed)


def test_frames_in_memory(tmp_path: Path) -> None:
    wanted = plain(tmp_path)
    assert world_of(read(PLAIN)) == wanted
    assert world_of(read(pa.Table.from_pandas(PLAIN))) == wanted
    renamed = PLAIN.rename(columns={"item_id": "thing"})
    assert world_of(read(renamed, item="thing")) == wanted
    with pytest.raises(LogError, match="a log of type int is not understood"):
        read_log(7)


def test_encodings(tmp_path: Path) -> None:
    accents = PLAIN.assign(item_id=PLAIN["item_id"] + "é")
    for encoding in ("utf-8-sig", "utf-16"):
        path = written(tmp_path, accents, f"{encoding}.csv", encoding=encoding)
        assert "i0é" in read(path).items.index
    path = written(tmp_path, accents, "windows.csv", encoding="cp1252")
    with pytest.raises(LogError, match=r"line 2, byte \d+: 0xe9 is not utf-8; .*--encoding cp1252"):
        read_log(path)
    assert "i0é" in read(path, encoding="cp1252").items.index
    with pytest.raises(LogError, match="--encoding klingon is unknown"):
        read_log(path, encoding="klingon")


def test_a_file_without_names_is_told_and_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN, header=False)
    with pytest.raises(LogError, match=r"line 1: '\d+' is no name of a column.*--header"):
        read_log(path)
    assert world_of(read(path, header=list(PLAIN.columns))) == plain(tmp_path)


@pytest.mark.parametrize(
    "form",
    [
        "s",
        "ms",
        "us",
        "ns",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%SZ",
        "%d/%m/%Y %H:%M:%S",
        "%m/%d/%Y %I:%M:%S %p",
        "%Y%m%d%H%M%S",
    ],
)
def test_times_are_read_as_they_are_written(tmp_path: Path, form: str) -> None:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}.get(form)
    moments = pd.to_datetime(PLAIN["timestamp"], unit="s")
    cells = PLAIN["timestamp"] * scale if scale else moments.dt.strftime(form)
    log = read(written(tmp_path, PLAIN.assign(timestamp=cells)))
    assert log.interactions["time"].tolist() == PLAIN["timestamp"].tolist()


def test_days_written_in_digits_are_dates(tmp_path: Path) -> None:
    days = pd.to_datetime(PLAIN["timestamp"], unit="s").dt.strftime("%Y%m%d").astype(int)
    log = read(written(tmp_path, PLAIN.assign(timestamp=days)))
    assert log.times is Times.entry  # whole days
    assert log.interactions["time"].min() == START - START % 86_400


def test_days_and_months_that_could_be_either_are_asked_about(tmp_path: Path) -> None:
    cells = [f"0{1 + row % 9}/0{1 + row % 7}/2020" for row in range(len(PLAIN))]
    path = written(tmp_path, PLAIN.assign(timestamp=cells))
    with pytest.raises(LogError, match=r"time_format='%d/%m/%Y' or time_format='%m/%d/%Y'"):
        read_log(path)
    assert read(path, time_format="%d/%m/%Y").interactions["time"].iloc[1] == pd.Timestamp("2020-02-02").timestamp()


def test_a_time_in_another_unit_than_the_rest_is_an_error(tmp_path: Path) -> None:
    mixed = PLAIN.copy()
    mixed.loc[4, "timestamp"] *= 1000
    with pytest.raises(LogError, match=r"line 6, column 'timestamp': '\d+' is in another unit"):
        read_log(written(tmp_path, mixed))
    with pytest.raises(LogError, match="time_unit=m is unknown; use s, ms, us, ns"):
        read_log(written(tmp_path, PLAIN), time="timestamp", time_unit="m")


def items(ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"item_id": ids, "title": [f"Film {n}" for n in range(len(ids))]})


@pytest.mark.parametrize("log_form", ["{}", "{}.0", "{:03d}"])
@pytest.mark.parametrize("table_form", ["{}", "{}.0", "{:03d}"])
def test_ids_that_differ_in_their_writing_alone_meet(tmp_path: Path, log_form: str, table_form: str) -> None:
    numbers = PLAIN["item_id"].str[1:].astype(int)
    log_path = written(tmp_path, PLAIN.assign(item_id=[log_form.format(n) for n in numbers]))
    table = written(tmp_path, items([table_form.format(n) for n in range(15)]), "items.csv")
    log = read(log_path, items=table)
    assert len(log.items) == 15
    assert set(log.items["title"]) == {f"Film {n}" for n in range(15)}
    assert log.reading.ids[0].met == 15


def test_ids_that_do_not_meet_stop(tmp_path: Path) -> None:
    table = written(tmp_path, items([str(n) for n in range(15)]), "items.csv")
    path = written(tmp_path, PLAIN)
    with pytest.raises(
        LogError, match=r"items\.csv: 0 of 15 items of the log.*the log has 'i\d+', the table '0'.*--least-met 0"
    ):
        read_log(path, items=table)
    assert len(read(path, items=table, least_met=0).items) == 30


def test_a_reading_that_loses_much_stops(tmp_path: Path) -> None:
    frame = PLAIN.astype({"rating": "str"})
    frame.loc[:19, "rating"] = "bad"
    log = read_log(written(tmp_path, frame), on_bad_rows="drop")
    with pytest.raises(LogError, match=r"20 of 96 rows would be lost \(malformed rating.*above 10%.*max-loss"):
        clean(log)
    assert len(clean(log, CleaningOptions(max_loss=0.5))[0].interactions) == 76


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="not there"):
        read_file(tmp_path / "log.csv", BadRows())
    (tmp_path / "x.sqlite").write_bytes(b"1")
    with pytest.raises(LogError, match=r"kind '\.sqlite'; the known are"):
        read_file(tmp_path / "x.sqlite", BadRows())
