"""Which columns are answers, and cells that are none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers import read_log
from tests.envs.logs.readers.own_logs import impressions, ratings, read, world_of, written


@pytest.mark.parametrize("words", [("False", "True"), ("no", "yes"), ("n", "Y"), ("-1", "1"), ("0.0", "1.0")])
@pytest.mark.parametrize("name", ["click", "Click", "is_clicked", "label"])
def test_a_consumption_may_be_written_in_words(tmp_path: Path, words: tuple[str, str], name: str) -> None:
    frame = impressions()
    said = frame.assign(click=frame["click"].map(dict(enumerate(words)))).rename(columns={"click": name})
    log = read(written(tmp_path, said))
    assert log.consumption.name == name
    assert log.has_exposures
    assert world_of(log) == world_of(read(written(tmp_path, frame, "plain.csv")))


@pytest.mark.parametrize("cell", ["NULL", "", "maybe", "0,5"])
def test_a_consumption_that_cannot_be_read_is_an_error_with_its_line(tmp_path: Path, cell: str) -> None:
    frame = impressions().astype({"click": "str"})
    frame.loc[7, "click"] = cell
    path = written(tmp_path, frame)
    with pytest.raises(LogError, match=rf"log\.csv, line 9, column 'click': '{cell}'"):
        read_log(path)
    log = read(path, on_bad_rows="drop")
    assert len(log.interactions) == len(frame) - 1
    assert log.has_exposures


@pytest.mark.parametrize("cell", ["\\N", "None", "nan", "NULL", ""])
def test_a_rating_that_is_missing_is_not_given_and_the_row_stays(tmp_path: Path, cell: str) -> None:
    frame = ratings().astype({"rating": "str"})
    frame.loc[::10, "rating"] = cell
    log = read(written(tmp_path, frame))
    assert len(log.interactions) == len(frame)
    assert int(log.interactions["rating"].isna().sum()) == 10


def test_a_rating_with_a_decimal_comma_among_points_is_an_error(tmp_path: Path) -> None:
    frame = ratings().astype({"rating": "str"})
    frame.loc[7, "rating"] = "4,5"
    with pytest.raises(LogError, match=r"line 9, column 'rating': '4,5' is not a finite number"):
        read_log(written(tmp_path, frame))


def test_a_whole_file_with_decimal_commas_is_read(tmp_path: Path) -> None:
    frame = ratings()
    halves = frame.assign(rating=(frame["rating"] - 0.5).map(lambda value: str(value).replace(".", ",")))
    log = read(written(tmp_path, halves, sep=";"))
    assert log.signals[1].levels[0] == 0.5
    assert log.interactions["rating"].tolist() == (frame["rating"] - 0.5).tolist()


def test_codes_far_from_all_ratings_mean_not_given(tmp_path: Path) -> None:
    frame = ratings().assign(rating=np.tile([1, 7, 10, 4], 24))
    anime = frame.copy()
    anime.loc[::5, "rating"] = -1
    log = read_log(written(tmp_path, anime))
    assert log.signals[1].levels == tuple(range(1, 11))
    assert int(log.interactions["rating"].isna().sum()) == 20
    assert any("-1 in 20 rows" in note for note in log.notes)
    jester = frame.assign(rating=np.linspace(-9.9, 9.9, len(frame)).round(2))
    jester.loc[::5, "rating"] = 99
    low, high = read_log(written(tmp_path, jester, "jester.csv")).signals[1].bounds
    assert (low, high) == (pytest.approx(-9.69, abs=0.5), pytest.approx(9.9, abs=0.5))


def test_many_zeros_beside_ratings_from_one_are_asked_about(tmp_path: Path) -> None:
    frame = ratings().assign(rating=np.tile([1, 7, 10, 0, 0, 0, 0, 3], 12))
    path = written(tmp_path, frame)
    with pytest.raises(LogError, match=r"48 of 96 ratings are 0.*--missing rating=0.*--signals rating:0,1,2"):
        read_log(path)
    assert read_log(path, missing="rating=0").interactions["rating"].isna().sum() == 48
    assert read_log(path, signals="rating:0,1,2,3,4,5,6,7,8,9,10").interactions["rating"].min() == 0


def test_a_missing_code_can_be_named(tmp_path: Path) -> None:
    frame = ratings()
    frame.loc[:9, "rating"] = 77
    log = read_log(written(tmp_path, frame), missing=["77"], signals="rating:1,2,3,4,5")
    assert int(log.interactions["rating"].isna().sum()) == 10


def test_zero_and_one_under_an_unknown_name_are_asked_about(tmp_path: Path) -> None:
    frame = impressions().rename(columns={"click": "outcome"})
    path = written(tmp_path, frame)
    with pytest.raises(LogError, match=r"--signals outcome\).*--signals consume outcome@consume\).*--ignore outcome"):
        read_log(path)
    assert read_log(path, signals="outcome").has_exposures
    assert not read_log(path, ignore="outcome").has_exposures


def test_answers_that_stand_at_rows_not_taken_are_not_given_on_the_consumption(tmp_path: Path) -> None:
    frame = impressions()
    log = read_log(written(tmp_path, frame.assign(hide=1 - frame["click"], like=frame["click"])))
    hide, like = log.signals[1:]
    assert (hide.name, hide.given_on, hide.good) == ("hide", None, False)
    assert (like.name, like.given_on, like.good) == ("like", "click", True)


def test_a_signal_given_on_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="rating is given on 'click', which is no signal; known: consume, rating"):
        read_log(written(tmp_path, ratings()), signals="rating:1..5@click")


def test_rows_that_differ_in_what_is_not_used_are_no_duplicates(tmp_path: Path) -> None:
    frame = ratings()
    twice = pd.concat([frame, frame.head(20)], ignore_index=True)
    path = written(tmp_path, twice.assign(colour=["red"] * len(frame) + ["blue"] * 20))
    assert len(read(path).interactions) == len(twice)
    same = written(tmp_path, twice.assign(colour="red"), "same.csv")
    assert len(read(same).interactions) == len(frame)
