"""Which column is what: what is named, usual names, and values that decide between them."""

from pathlib import Path

import pandas as pd
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import Signal, Times
from tests.envs.logs.readers.own_logs import impressions, ratings, read, world_of, written


def unused(log_source: object, **options: object) -> dict[str, str]:
    return {column.name: column.why for column in read_log(log_source, **options).reading.unused}


def test_naming_one_column_leaves_the_others_their_usual_names(tmp_path: Path) -> None:
    frame = ratings()
    shuffled = written(tmp_path, frame.sample(frac=1, random_state=3), "shuffled.csv")
    plain = world_of(read(written(tmp_path, frame)))
    named = read(shuffled, signals=(Signal("rating", "ordinal", levels=(1, 2, 3, 4, 5)),))
    assert world_of(named) == plain
    assert named.times is Times.behavioural
    customers = written(tmp_path, frame.rename(columns={"user_id": "who"}), "customers.csv")
    other = read(customers, user="who")
    assert [signal.name for signal in other.signals] == ["consume", "rating"]
    assert world_of(other) == plain
    slates = read(written(tmp_path, impressions(), "slates.csv"), signals="click")
    assert slates.has_exposures
    assert len({row[0] for row in world_of(slates)["u0"]}) == 4


def test_names_are_compared_without_case_blanks_and_underscores(tmp_path: Path) -> None:
    names = {"user_id": "User ID", "item_id": "itemId", "rating": "Rating", "timestamp": "unixReviewTime"}
    log = read(written(tmp_path, ratings().rename(columns=names)))
    assert log.signals[1].name == "Rating"
    assert {user: [row[0] for row in rows] for user, rows in world_of(log).items()} == {
        user: [row[0] for row in rows] for user, rows in world_of(read(written(tmp_path, ratings()))).items()
    }


@pytest.mark.parametrize("name", ["event_time", "created_at", "unixReviewTime", "request_time", "ts", "when"])
def test_a_time_is_known_by_name_and_values(tmp_path: Path, name: str) -> None:
    log = read(written(tmp_path, ratings().rename(columns={"timestamp": name})))
    assert log.times is Times.behavioural
    assert world_of(log) == world_of(read(written(tmp_path, ratings())))


def test_of_several_times_the_one_whose_values_are_moments_is_taken(tmp_path: Path) -> None:
    frame = ratings(20)
    moments = pd.to_datetime(frame["timestamp"], unit="s")
    hours = written(tmp_path, frame.assign(time=moments.dt.hour), "hours.csv")
    assert world_of(read(hours)) == world_of(read(written(tmp_path, frame)))
    assert "time" in unused(hours)
    dates = frame.assign(date=moments.dt.strftime("%Y%m%d"), time_ms=frame["timestamp"] * 1000).drop(
        columns="timestamp"
    )
    log = read(written(tmp_path, dates, "dates.csv"))
    assert log.times is Times.behavioural
    assert log.interactions["time"].iloc[0] == frame["timestamp"].iloc[0]
    born = frame.assign(birth_date=frame["user_id"].map({f"u{n}": f"19{60 + n}-01-01" for n in range(20)}))
    assert "birth_date" in unused(written(tmp_path, born, "born.csv"))


def test_hours_alone_are_asked_about(tmp_path: Path) -> None:
    frame = ratings(20)
    hours = frame.assign(time=pd.to_datetime(frame["timestamp"], unit="s").dt.hour).drop(columns="timestamp")
    path = written(tmp_path, hours)
    with pytest.raises(LogError, match=r"'time'.*hours of a day \(--ignore time\) or.*--columns time=time"):
        read_log(path)
    assert read(path, ignore="time").times is Times.none


def test_two_columns_that_could_be_the_user_are_both_named(tmp_path: Path) -> None:
    frame = ratings()
    crossed = frame.assign(user=["Ann", "Bo", "Cy"] * 32)
    with pytest.raises(LogError, match=r"'user_id' and 'user'.*--columns user=user_id or --columns user=user"):
        read_log(written(tmp_path, crossed))
    assert len(read(written(tmp_path, crossed), user="user_id").users) == 12
    named = frame.assign(user=frame["user_id"].map(lambda name: f"Mx {int(name[1:]) // 2}"))
    log = read_log(written(tmp_path, named, "named.csv"))
    assert len(log.users) == 12  # each user_id has one name, so it says all that the name says
    assert [column.name for column in log.reading.unused] == ["user"]


def test_sessions_without_users_are_users(tmp_path: Path) -> None:
    frame = ratings().rename(columns={"user_id": "session_id"})
    log = read_log(written(tmp_path, frame))
    assert len(log.users) == 12
    assert any("no users" in line for line in log.reading.warnings)


def test_numbers_that_are_no_answers_are_left_out_and_said(tmp_path: Path) -> None:
    frame = ratings(20)
    price = frame["item_id"].map({f"i{n}": 5 + n * 1.5 for n in range(15)})
    age = frame["user_id"].map({f"u{n}": 20 + n for n in range(20)})
    path = tmp_path / "index.csv"
    frame.assign(price=price, age=age, shelf=7, weight=range(len(frame), 0, -1)).to_csv(path)  # with pandas' index
    log = read_log(path)
    assert [signal.name for signal in log.signals] == ["consume", "rating"]
    why = {column.name: column.why for column in log.reading.unused}
    assert "differs in every row" in why["Unnamed: 0"]
    assert "all rows of an item" in why["price"]
    assert "all rows of a user" in why["age"]
    assert "one value" in why["shelf"]
    assert "weight" in why


def test_what_is_named_must_be_there_once(tmp_path: Path) -> None:
    path = written(tmp_path, ratings())
    with pytest.raises(LogError, match="there is no column 'sku'; the file has 'user_id'"):
        read_log(path, item="sku")
    with pytest.raises(LogError, match="column 'item_id' is named as user and as item"):
        read_log(path, user="item_id", item="item_id")
    with pytest.raises(LogError, match="did you mean 'ignore'"):
        read_log(path, ignor="x")


def test_a_column_that_smells_of_time_and_holds_none_is_warned_of(tmp_path: Path) -> None:
    frame = ratings().assign(timestamp="soon")
    log = read_log(written(tmp_path, frame))
    assert log.times is Times.none
    assert any("timestamp" in line for line in log.reading.warnings)
