"""KuaiRand and KuaiRec in their published formats, on small files written here."""

from pathlib import Path

import numpy as np
import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.cleaning import CleaningOptions, clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_kuairec_log, read_kuairec_matrix, read_log
from recloop.envs.logs.readers.published.kuairand import POOL
from recloop.envs.logs.schema import Columns, Times

LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
HOUR = 3_600_000
START = 1_650_485_801_301


def shown(
    user: int, video: int, after_ms: int, click: int, play: int, length: int, hate: int = 0, rand: int = 0
) -> str:
    when = f"{START + after_ms}"
    return f"{user},{video},20220421,400,{when},{click},0,0,0,0,{hate},{click},{play},{length},0,0,0,{rand},1\n"


def make_kuairand(folder: Path, version: str = "1k") -> Path:
    data = folder / "data"
    data.mkdir()
    early = shown(7, 100, 0, 1, 5_000, 10_000) + shown(7, 101, 60_000, 0, 500, 10_000, hate=1)
    (data / f"log_standard_4_08_to_4_21_{version}.csv").write_text(LOG + early)
    late = shown(7, 102, 3 * HOUR, 1, 90_000, 10_000) + shown(8, 100, 3 * HOUR, 1, 1, 0)
    (data / f"log_standard_4_22_to_5_08_{version}.csv").write_text(LOG + late)
    (data / f"log_random_4_22_to_5_08_{version}.csv").write_text(
        LOG + shown(7, 103, 3 * HOUR + 1000, 0, 0, 500, rand=1)
    )
    (data / f"user_features_{version}.csv").write_text(
        "user_id,user_active_degree,is_lowactive_period,fans_user_num,fans_user_num_range,onehot_feat0\n"
        '7,full_active,0,312,"[100,1k)",1\n8,high_active,0,0,0,0\n'
    )
    (data / f"video_features_basic_{version}.csv").write_text(
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,"
        "server_height,music_id,music_type,tag\n"
        '100,4,NORMAL,2020-07-08,ShortImport,1,10000,720,1280,9,4,"12,65"\n'
        "101,4,AD,2020-07-08,LongImport,1,10000,720,1280,9,4,12\n"
        "102,5,NORMAL,2020-07-08,ShortImport,1,10000,720,1280,9,4,\n"
    )
    return folder


def test_kuairand_rows_signals_and_policies(tmp_path: Path) -> None:
    log = read_log(make_kuairand(tmp_path))
    rows = log.interactions
    assert [signal.name for signal in log.signals] == [
        *("click", "like", "follow", "comment", "forward", "hate", "long_view", "watch_ratio")
    ]
    assert [signal.good for signal in log.signals] == [True] * 5 + [False] + [True] * 2
    assert rows["click"].tolist() == [1, 0, 1, 1, 0]
    assert rows["hate"].tolist() == [0, 1, 0, 0, 0]
    assert rows["watch_ratio"].tolist()[:3] == [0.5, 0.05, 2.0]
    assert np.isnan(rows["watch_ratio"].iloc[3])
    assert rows[Columns.policy].tolist() == ["standard"] * 4 + ["random"]
    assert rows[Columns.propensity].isna().tolist() == [True] * 4 + [False]
    assert rows[Columns.propensity].iloc[4] == 1 / POOL
    assert rows[Columns.time].iloc[0] == START / 1000
    assert log.times is Times.behavioural
    assert log.has_exposures


def test_kuairand_pauses_begin_sessions_and_the_end_of_the_log_cuts_them(tmp_path: Path) -> None:
    rows = read_log(make_kuairand(tmp_path)).interactions
    assert rows[Columns.session].tolist() == ["0", "0", "1", "2", "1"]
    assert rows[Columns.session_end].tolist() == ["left", "left", "cut", "cut", "cut"]


def test_the_pure_version_does_not_know_why_sessions_ended(tmp_path: Path) -> None:
    log = read_log(make_kuairand(tmp_path, "pure"))
    assert set(log.interactions[Columns.session_end]) == {"unknown"}
    assert any("why a session ended is unknown" in note for note in log.notes)


def test_kuairand_videos_and_users(tmp_path: Path) -> None:
    log = read_log(make_kuairand(tmp_path))
    assert log.items.index.tolist() == ["100", "101", "102", "103"]
    assert log.items[Columns.category].isna().tolist() == [False, False, True, True]
    assert log.items[Columns.category].tolist()[:2] == ["12", "12"]
    assert log.items[Columns.text].iloc[0] == "Video 100. Tags: 12, 65. Video type: NORMAL. Upload type: ShortImport."
    assert log.users["fans_user_num"].tolist() == [312, 0]
    assert log.users["fans_user_num_range"].tolist() == ["[100,1k)", "0"]


def test_kuairand_compiles_to_slates_of_one_with_policies(tmp_path: Path) -> None:
    cleaned, _ = clean(read_log(make_kuairand(tmp_path)))
    sequences, _, _ = compile_sequences(cleaned)
    assert sequences.slates is not None
    assert sequences.slates.items.shape == (5, 1)
    assert sequences.slates.left.tolist() == [0, 1, 0, -1, -1]
    assert sequences.policies == ("random", "standard")
    assert sequences.slates.policy is not None
    assert sequences.slates.policy.tolist() == [1, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (LOG + shown(7, 1, 0, 1, 1, 1) + "\n" + shown(7, 1, 0, 1, 1, 1).replace(",20", ",x,20"), "line 4.*20 fields"),
        (
            LOG + shown(7, 1, 0, 1, 1, 1) + "\n" + shown(7, 1, 0, 1, 1, 1).replace(str(START), "soon"),
            "line 4.*'time_ms'",
        ),
        (LOG + shown(7, 1, 0, 1, 1, 1).replace(str(START), ""), "line 2, column 'time_ms': .*is empty"),
        (LOG + shown(7, 1, 0, 1, 1, 1)[1:], "line 2, column 'user_id'"),
        (LOG.replace("is_hate", "hates") + shown(7, 1, 0, 1, 1, 1), "there is no column 'is_hate'"),
        (LOG, "holds no rows"),
    ],
)
def test_faults_of_kuairand_name_their_place(tmp_path: Path, text: str, wanted: str) -> None:
    make_kuairand(tmp_path)
    (tmp_path / "data" / "log_standard_4_08_to_4_21_1k.csv").write_text(text)
    with pytest.raises(LogError, match=rf"log_standard_4_08_to_4_21_1k\.csv.*{wanted}"):
        read_log(tmp_path)


def test_bad_rows_of_kuairand_can_be_left_out(tmp_path: Path) -> None:
    make_kuairand(tmp_path)
    path = tmp_path / "data" / "log_standard_4_08_to_4_21_1k.csv"
    path.write_text(path.read_text() + "7,1\n" + shown(7, 1, 0, 1, 1, 1).replace(str(START), "soon"))
    log = read_log(tmp_path, on_bad_rows="drop")
    assert len(log.interactions) == 5
    assert dict(log.dropped) == {f"ragged line in {path.name}": 1, f"malformed time_ms in {path.name}": 1}


def test_two_versions_in_one_folder_are_refused(tmp_path: Path) -> None:
    make_kuairand(tmp_path)
    (tmp_path / "data" / "log_standard_4_08_to_4_21_pure.csv").write_text(LOG + shown(7, 1, 0, 1, 1, 1))
    with pytest.raises(LogError, match="holds logs of 1k and pure"):
        read_log(tmp_path)


PAIRS = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"


def pair(user: int, video: int, ratio: float, seconds: str = "1593878903.438") -> str:
    return f"{user},{video},{int(ratio * 1000)},1000,2020-07-05 00:08:23.438,20200705,{seconds},{ratio}\n"


def make_kuairec(folder: Path) -> Path:
    data = folder / "data"
    data.mkdir()
    rows = pair(0, 5, 1.5) + pair(0, 6, 0.4, "1593878963.0") + pair(0, 5, 9.0, "1593978963.0") + pair(1, 6, 1.0)
    (data / "big_matrix.csv").write_text(PAIRS + rows)
    small = pair(0, 5, 0.5) + pair(0, 6, 3.0) + pair(2, 5, 1.0, "") + pair(0, 5, 1.0) + pair(2, 5, 1.0)
    (data / "small_matrix.csv").write_text(PAIRS + small)
    (data / "item_categories.csv").write_text('video_id,feat\n5,[8]\n6,"[27, 9]"\n')
    (data / "user_features.csv").write_text("user_id,user_active_degree,register_days\n0,full_active,3\n1,UNKNOWN,9\n")
    return folder


def test_kuairec_as_a_log(tmp_path: Path) -> None:
    log = read_log(make_kuairec(tmp_path))
    rows = log.interactions
    assert rows["watched"].tolist() == [1, 0, 1, 1]
    assert rows["watch_ratio"].tolist() == [1.5, 0.4, 2.0, 1.0]
    assert rows[Columns.session].tolist() == ["0", "0", "1", "2"]
    assert log.signals[1].range == (0.0, 2.0)
    assert log.items[Columns.category].tolist() == ["8", "27"]
    assert log.items[Columns.text].tolist() == ["Video 5. Tags: 8.", "Video 6. Tags: 27, 9."]
    assert log.users["register_days"].tolist() == [3, 9]
    assert any("watch ratio of 1 on" in note for note in log.notes)


def test_the_threshold_of_kuairec_can_be_set(tmp_path: Path) -> None:
    log = read_kuairec_log(make_kuairec(tmp_path), watched_from=0.3)
    assert log.interactions["watched"].tolist() == [1, 1, 1, 1]
    with pytest.raises(LogError, match="watched_from=3 must lie in"):
        read_kuairec_log(tmp_path, watched_from=3)


def test_the_small_matrix_as_a_log_loses_its_untimed_rows_in_cleaning(tmp_path: Path) -> None:
    log = read_log(make_kuairec(tmp_path) / "data" / "small_matrix.csv")
    assert log.name == "kuairec-small"
    assert any("1 rows have no time" in note for note in log.notes)
    cleaned, report = clean(log, CleaningOptions(max_loss=0.5))
    assert len(cleaned.interactions) == 4
    assert dict(report.dropped) == {"missing time": 1}


def test_the_small_matrix_as_a_table(tmp_path: Path) -> None:
    table = read_kuairec_matrix(make_kuairec(tmp_path))
    assert table.users == ("0", "2")
    assert table.items == ("5", "6")
    np.testing.assert_array_equal(table.watch_ratio, np.array([[0.75, 2.0], [1.0, np.nan]], dtype=np.float32))
    assert table.category == ("8", "27")
    assert table.density == 0.75


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (
            pair(0, 5, -0.5),
            "line 2, column 'watch_ratio': '-0.5' is below 0",
        ),
        (pair(0, 5, 1.0).replace(",1.0\n", ",\n"), "line 2, column 'watch_ratio': .*is no watch ratio"),
        (
            pair(0, 5, 1.0).replace("1593878903.438", "noon"),
            "line 2, column 'timestamp': 'noon' is not a finite number",
        ),
    ],
)
def test_faults_of_kuairec_name_their_place(tmp_path: Path, row: str, wanted: str) -> None:
    make_kuairec(tmp_path)
    (tmp_path / "data" / "big_matrix.csv").write_text(PAIRS + row)
    with pytest.raises(LogError, match=rf"big_matrix\.csv, ({wanted})"):
        read_log(tmp_path)
