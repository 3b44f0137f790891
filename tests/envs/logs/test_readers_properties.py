"""Whatever stands in a file: a log comes out, or one line that says what is wrong. Nothing else."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import LoggedBehavior
from recloop.envs.logs.splits import leave_one_out

Files = dict[str, bytes]

cell = st.one_of(
    st.sampled_from(["", " ", "u1", "u2", "i1", "i2", "1", "0", "5", "nan", "inf", "-1", "1e999", "::", "|", '"']),
    st.text(max_size=4),
)
good_cell = st.sampled_from(["1", "2", "3", "4", "5"])


def table(header: str, separator: str, width: int) -> st.SearchStrategy[bytes]:
    """A header over lines of mostly right width."""
    even = st.lists(st.lists(good_cell, min_size=width, max_size=width).map(separator.join), min_size=2, max_size=8)
    odd = st.lists(st.lists(cell, max_size=width + 1).map(separator.join), max_size=3)
    body = st.tuples(even, odd).map(lambda parts: "\n".join([header, *parts[0], *parts[1]]))
    return st.one_of(body.map(str.encode), st.binary(max_size=60), st.text(max_size=60).map(str.encode))


INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
CSV = "user,item,time,click,stars,slate,position,propensity"
KUAIRAND = (
    "user_id,video_id,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,"
    "duration_ms,is_rand"
)
OPEN_BANDIT = (
    "timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3"
)
logs: dict[str, st.SearchStrategy[Files]] = {
    "atomic": st.fixed_dictionaries(
        {"t.inter": table(INTER, "\t", 4)},
        optional={
            "t.item": table("item_id:token\tname:token_seq\tvector:float_seq", "\t", 3),
            "t.user": table("user_id:token\tage:float", "\t", 2),
            "t.kg": table("head_id:token\trelation_id:token\ttail_id:token", "\t", 3),
            "t.link": table("item_id:token\tentity_id:token", "\t", 2),
        },
    ),
    "sequences": st.fixed_dictionaries({"t.sequences.txt": table("1 2 3", " ", 3)}),
    "csv": st.fixed_dictionaries({"t.csv": table(CSV, ",", 8)}),
    "parquet": st.fixed_dictionaries({"t.parquet": st.binary(max_size=60)}),
    "ml-100k": st.fixed_dictionaries(
        {"u.data": table("1\t1\t1\t1", "\t", 4), "u.item": table("1" + "|1" * 23, "|", 24)},
        optional={"u.user": table("1|1|M|x|1", "|", 5)},
    ),
    "ml-1m": st.fixed_dictionaries(
        {"ratings.dat": table("1::1::1::1", "::", 4), "movies.dat": table("1::A::B", "::", 3)}
    ),
    "ml-latest": st.fixed_dictionaries(
        {
            "ratings.csv": table("userId,movieId,rating,timestamp", ",", 4),
            "movies.csv": table("movieId,title,genres", ",", 3),
        }
    ),
    "coat": st.fixed_dictionaries(
        {"train.ascii": table("5 0 1", " ", 3), "test.ascii": table("0 2 0", " ", 3)},
        optional={"propensities.ascii": table("0.5 0.1 0.1", " ", 3)},
    ),
    "kuairand": st.fixed_dictionaries(
        {"log_standard_4_08_to_4_21_pure.csv": table(KUAIRAND, ",", 13)},
        optional={
            "log_random_4_22_to_5_08_pure.csv": table(KUAIRAND, ",", 13),
            "video_features_basic_pure.csv": table("video_id,video_type,upload_type,tag", ",", 4),
            "user_features_pure.csv": table("user_id,register_days", ",", 2),
        },
    ),
    "kuairec": st.fixed_dictionaries(
        {"big_matrix.csv": table("user_id,video_id,timestamp,watch_ratio", ",", 4)},
        optional={
            "item_categories.csv": table("video_id,feat", ",", 2),
            "user_features.csv": table("user_id,register_days", ",", 2),
        },
    ),
    "mind": st.fixed_dictionaries(
        {
            "behaviors.tsv": table("1\tU1\t11/13/2019 8:36:57 AM\tN7\tN1-0 N2-1", "\t", 5),
            "news.tsv": table("N1\tsports\tsoccer\tGoal\t\t\t[]\t[]", "\t", 8),
        }
    ),
    "open-bandit": st.fixed_dictionaries(
        {"random/men/men.csv": table(OPEN_BANDIT, ",", 9)},
        optional={"random/men/item_context.csv": table("item_id,item_feature_0,item_feature_1", ",", 3)},
    ),
}


def read(files: Files, on_bad_rows: str) -> LoggedBehavior | None:
    """What the reader makes of the files; None after a `LogError` of one line."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(data)
        try:
            return read_log(folder, on_bad_rows=on_bad_rows)
        except LogError as error:
            if "\n" in str(error) or len(str(error)) > 1000:
                raise AssertionError(f"no one-line message: {error}") from error
            return None


def use(action: Callable[[], object]) -> None:
    """A further step may refuse the log as well, and only so."""
    try:
        action()
    except LogError:
        return


@pytest.mark.parametrize("kind", logs)
def test_a_log_or_a_log_error(kind: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(files=logs[kind], on_bad_rows=st.sampled_from(["error", "drop"]))
    def check(files: Files, on_bad_rows: str) -> None:
        log = read(files, on_bad_rows)
        if log is None:
            return
        assert len(log.interactions)
        assert log.items.index.is_unique
        assert log.users.index.is_unique
        if on_bad_rows == "error":
            assert log.dropped == ()
        use(lambda: compile_sequences(clean(log)[0]))
        use(lambda: leave_one_out(log))

    check()


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.text("abcé\"',", min_size=1, max_size=4),
            st.text("xyz- 漢", min_size=1, max_size=4).filter(str.strip),
            st.integers(0, 10**9),
        ),
        min_size=1,
        max_size=8,
    )
)
@example(rows=[('"', "x", 0)])
def test_what_is_well_formed_is_read_back(rows: list[tuple[str, str, int]]) -> None:
    """Quotes are plain characters in atomic files, and doubled inside quotes in CSV; ids lose outer spaces only."""
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    atomic = header + "\n".join(f"{user}\t{item}\t{time}" for user, item, time in rows)
    quoted = [f'"{user.replace(chr(34), chr(34) * 2)}",{item},{time}' for user, item, time in rows]
    text = "user,item,time\n" + "\n".join(quoted)
    for name, data in (("t.inter", atomic), ("t.csv", text)):
        log = read({name: data.encode()}, "error")
        assert log is not None
        found = log.interactions[["user", "item", "time"]].values.tolist()
        assert found == [[user.strip(), item.strip(), float(time)] for user, item, time in rows]
