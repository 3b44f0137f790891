"""Some users of a log, read while its file passes by: all their rows, none of anybody else's, whatever the format."""

import gzip
import lzma
from pathlib import Path

import pandas as pd
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.readers.files import streaming
from recloop.envs.logs.schema import Columns, LoggedBehavior
from tests.envs.logs.readers.own_logs import impressions, ratings, world_of, written

PLAIN = ratings(users=40)


def users_of(log: LoggedBehavior) -> set[str]:
    return set(log.interactions[Columns.user])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small file passes by in many."""
    monkeypatch.setattr(streaming, "PIECE", 600)
    monkeypatch.setattr(streaming, "ROWS", 30)


def forms(folder: Path) -> dict[str, Path]:
    """One log in many forms."""
    packed, parts, split = folder / "log.csv.gz", folder / "parts", folder / "by_user"
    packed.write_bytes(gzip.compress(PLAIN.to_csv(sep=";").encode()))
    parts.mkdir()
    PLAIN.iloc[:101].to_parquet(parts / "part-0.parquet")
    PLAIN.iloc[101:].to_parquet(parts / "part-1.parquet")
    for user, rows in PLAIN.groupby("user_id"):
        (split / f"user_id={user}").mkdir(parents=True)
        rows.drop(columns="user_id").to_parquet(split / f"user_id={user}" / "rows.parquet")
    marked = PLAIN.assign(**{"user_id": PLAIN["user_id"] + " "}).rename(columns={"item_id": " item_id "})
    PLAIN.to_json(folder / "log.jsonl", orient="records", lines=True)
    tight = folder / "tight.csv.xz"
    tight.write_bytes(lzma.compress(PLAIN.to_csv(index=False).encode()))
    return {
        "parquet": written(folder, PLAIN, "log.parquet"),
        "words": written(folder, PLAIN.astype({"user_id": "category"}), "words.parquet"),
        "text": written(folder, PLAIN, "log.csv"),
        "blanks": written(folder, marked, "blanks.csv"),
        "utf-16": written(folder, PLAIN, "wide.tsv", sep="\t", encoding="utf-16"),
        "packed": packed,
        "packed whole": tight,
        "parts": parts,
        "by user": split,
        "lines": folder / "log.jsonl",
    }


def test_the_same_users_with_all_their_rows_in_every_form(tmp_path: Path) -> None:
    whole = world_of(read_log(written(tmp_path, PLAIN, "whole.csv")))
    found = {name: read_log(path, sample_users=10) for name, path in forms(tmp_path).items()}
    chosen = users_of(found["parquet"])
    assert len(chosen) == 10
    for name, log in found.items():
        assert world_of(log) == {user: whole[user] for user in chosen}, name
        assert any("10 of the log's 40 users" in note for note in log.notes)
    assert users_of(read_log(PLAIN.sample(frac=1, random_state=3), sample_users=10)) == chosen


def test_a_sample_of_all_is_the_log(tmp_path: Path) -> None:
    path = written(tmp_path, impressions(users=30), "slates.csv")
    assert world_of(read_log(path, sample_users=99)) == world_of(read_log(path))


def test_tables_beside_the_log_are_read_as_ever(tmp_path: Path) -> None:
    items = written(tmp_path, pd.DataFrame({"item_id": [f"i{n}" for n in range(15)], "title": "x"}), "items.csv")
    log = read_log(written(tmp_path, PLAIN, "log.parquet"), items=items, sample_users=10)
    assert len(log.items) == 15
    assert len(users_of(log)) == 10


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    lines = PLAIN.to_csv(index=False).splitlines()
    path = tmp_path / "log.csv"
    path.write_text("\n".join([*lines[:40], "u1,i1,3,1,1", *lines[40:]]))
    with pytest.raises(LogError, match=r"log\.csv, line 41, column 'timestamp': 5 fields where the header has 4"):
        read_log(path, sample_users=10)
    assert read_log(path, sample_users=10, on_bad_rows="drop").dropped == (("ragged line in log.csv", 1),)
    gone = written(tmp_path, PLAIN.assign(user_id=PLAIN["user_id"].where(PLAIN.index != 77)), "gone.parquet")
    with pytest.raises(LogError, match=r"gone\.parquet, row 78, column 'user_id': '' is no id"):
        read_log(gone, sample_users=10)


def test_what_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN, "log.csv")
    with pytest.raises(LogError, match="--sample-users 3; a world needs 8 or more"):
        read_log(path, sample_users=3)
    with pytest.raises(LogError, match="no column is called like the user"):
        read_log(written(tmp_path, PLAIN.rename(columns={"user_id": "w"}), "nobody.csv"), sample_users=9)
    with pytest.raises(LogError, match="cannot stream by; write one character"):
        read_log(path, sample_users=9, separator="::")
    (tmp_path / "broken.csv").write_bytes(b"user_id,item_id\nu1,\xff\xfe\n")
    with pytest.raises(LogError, match=r"broken\.csv cannot be parsed as it streams by .*--encoding"):
        read_log(tmp_path / "broken.csv", sample_users=9)
    (tmp_path / "none.csv").write_text("user_id,item_id\n")
    with pytest.raises(LogError, match=r"none\.csv is empty"):
        read_log(tmp_path / "none.csv", sample_users=9)
