"""The real logs, held against the counts that were made of their files by other means."""

import os
from pathlib import Path

import numpy as np
import pytest

from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.readers.columns.times import measure_times
from recloop.envs.logs.schema import Columns, LoggedBehavior, Times
from recloop.envs.logs.splits import leave_one_out

pytestmark = pytest.mark.skipif(
    "RECLOOP_DATA" not in os.environ, reason="RECLOOP_DATA names no folder with the real logs"
)


@pytest.fixture(scope="module")
def ml_100k() -> LoggedBehavior:
    return read_log(Path(os.environ["RECLOOP_DATA"]) / "ml-100k")


@pytest.fixture(scope="module")
def ml_1m() -> LoggedBehavior:
    return read_log(Path(os.environ["RECLOOP_DATA"]) / "ml-1m")


def test_ml_100k_counts(ml_100k: LoggedBehavior) -> None:
    assert (len(ml_100k.interactions), len(ml_100k.users), len(ml_100k.items)) == (100_000, 943, 1_682)
    assert ml_100k.interactions.iloc[0].tolist() == ["196", "242", 881250949.0, 1.0, 3.0]
    assert sorted(ml_100k.interactions["rating"].unique()) == [1, 2, 3, 4, 5]
    assert (ml_100k.items["overview"] != "").sum() == 1_597
    assert ml_100k.items[Columns.entity].notna().sum() == 1_642
    assert ml_100k.knowledge is not None
    assert (len(ml_100k.knowledge.triples), len(ml_100k.knowledge.relations)) == (16_251, 6)
    assert list(ml_100k.users.columns) == ["age", "gender", "occupation", "zip_code"]
    assert ml_100k.dropped == ()


def test_ml_100k_texts(ml_100k: LoggedBehavior) -> None:
    toy_story = ml_100k.items.loc["1"]
    assert toy_story[Columns.title] == "Toy Story (1995)"
    assert toy_story[Columns.text].startswith(
        "Toy Story (1995). Genres: Animation, Children's, Comedy. Led by Woody, Andy's toys live happily"
    )
    assert (ml_100k.items[Columns.text].str.len() > 0).all()


def test_ml_100k_times_are_times_of_entry(ml_100k: LoggedBehavior) -> None:
    rows = ml_100k.interactions
    found = measure_times(rows[Columns.user], rows[Columns.time])
    assert round(found.ties, 2) == 0.51
    assert round(found.within_day, 2) == 0.68
    assert ml_100k.times is Times.entry
    assert any("51%" in note and "68%" in note for note in ml_100k.notes)


def test_ml_100k_compiles_as_a_plain_loop_does(ml_100k: LoggedBehavior) -> None:
    sequences, items, users = compile_sequences(clean(ml_100k)[0])
    assert sequences.users == 943
    rows = list(ml_100k.interactions[["user", "item", "time", "rating"]].itertuples(index=False))
    for user in (0, 404, 942):
        own = sorted((row for row in rows if row.user == users[user]), key=lambda row: row.time)
        found, feedback = sequences.of(user)
        assert [items[item] for item in found] == [row.item for row in own]
        assert feedback[:, 1].tolist() == [row.rating for row in own]


def test_ml_1m_counts_and_what_it_does_not_hold(ml_1m: LoggedBehavior) -> None:
    assert (len(ml_1m.interactions), len(ml_1m.users), len(ml_1m.items)) == (999_601, 6_040, 3_416)
    assert ml_1m.knowledge is not None
    assert len(ml_1m.knowledge.triples) == 34_966
    assert ml_1m.times is Times.none
    assert [signal.name for signal in ml_1m.signals] == ["consume"]
    assert set(ml_1m.interactions.columns) == {Columns.user, Columns.item, "consume"}
    assert any("no times, no ratings" in note for note in ml_1m.notes)


@pytest.mark.slow
def test_ml_1m_popularity_recall_is_the_published_one(ml_1m: LoggedBehavior) -> None:
    """Leave-one-out over all items, seen ones filtered out: Recall@10 of popularity is 0.0368."""
    split = leave_one_out(ml_1m)
    _, items, users = compile_sequences(ml_1m)
    item = {name: row for row, name in enumerate(items)}
    user = {name: row for row, name in enumerate(users)}
    item_rows = ml_1m.interactions[Columns.item].map(item).to_numpy()
    user_rows = ml_1m.interactions[Columns.user].map(user).to_numpy()
    seen_rows = np.concatenate([split["train"], split["valid"]])
    popularity = np.bincount(item_rows[seen_rows], minlength=len(items)).astype(float)
    scores = np.tile(popularity, (len(users), 1))
    scores[user_rows[seen_rows], item_rows[seen_rows]] = -1
    test_users, targets = user_rows[split["test"]], item_rows[split["test"]]
    own = scores[test_users, targets]
    rank = (scores[test_users] > own[:, None]).sum(axis=1)
    assert float(np.mean(rank < 10)) == pytest.approx(0.0368, abs=0.0005)
