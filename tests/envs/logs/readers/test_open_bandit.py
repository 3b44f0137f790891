"""Open Bandit as published: one policy or both, what a user is, and faults with their place."""

from pathlib import Path

import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import Columns, Times

HEADER = ",timestamp,item_id,position,click,propensity_score," + ",".join(f"user_feature_{n}" for n in range(4))
ROWS = [
    "0,2019-11-24 00:01:03.979311+00:00,2,2,0,0.5,a,b,c,d,0.0",
    "1,2019-11-24 00:01:45+00:00,1,3,1,0.25,a,e,c,d,0.0",
]


def make_campaign(folder: Path, policy: str, campaign: str, rows: list[str] = ROWS) -> Path:
    place = folder / policy / campaign
    place.mkdir(parents=True)
    (place / f"{campaign}.csv").write_text("\n".join([f"{HEADER},user-item_affinity_0", *rows]) + "\n")
    features = "".join(f"{n},{n},-0.{n}1,c82d13885d8bf7a3b8b9fa6f0842ba6{n % 2},x,y{n}\n" for n in range(4))
    (place / "item_context.csv").write_text(
        ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n" + features
    )
    return folder


def test_a_user_is_everybody_of_the_same_features(tmp_path: Path) -> None:
    for policy in ("random", "bts"):
        make_campaign(tmp_path, policy, "men", [*ROWS, "2,2019-11-24 00:00:01+00:00,3,1,1,0.5,a,b,c,d,0.0"])
    log = read_log(tmp_path)
    assert log.interactions[Columns.user].tolist() == ["crowd 0"] * 4 + ["crowd 1"] * 2
    assert log.interactions[Columns.item].tolist() == ["3", "3", "2", "2", "1", "1"], "in order of time"
    assert Columns.time not in log.interactions
    assert log.times is Times.none
    assert log.users.index.tolist() == ["crowd 0", "crowd 1"]
    assert log.users.loc["crowd 1"].tolist() == ["a", "e", "c", "d"]
    assert any("a crowd and no person (2 of them)" in note for note in log.notes)
    with pytest.raises(LogError, match="users='me' is unknown; use 'features' or 'rows'"):
        read_log(tmp_path, users="me")


def test_a_row_is_a_user_seen_once_where_that_is_asked_for(tmp_path: Path) -> None:
    log = read_log(make_campaign(tmp_path, "random", "men") / "random" / "men", users="rows")
    rows = log.interactions
    assert rows[Columns.user].tolist() == ["random/0", "random/1"]
    assert rows[Columns.item].tolist() == ["2", "1"]
    assert rows[Columns.position].tolist() == [1, 2], "places are counted from 0"
    assert rows[Columns.propensity].tolist() == [0.5, 0.25]
    assert rows[Columns.policy].tolist() == ["random", "random"]
    assert rows["click"].tolist() == [0, 1]
    assert rows[Columns.time].tolist()[1] == 1574553705.0
    assert log.users.loc["random/1"].tolist() == ["a", "e", "c", "d"]
    assert any("no ids of users: every row is a user of its own" in note for note in log.notes)
    slates = compile_sequences(clean(log)[0])[0].slates
    assert slates is not None
    assert slates.items.shape == (2, 1)


def test_items_have_numbers_for_titles_and_hashed_features_for_triples(tmp_path: Path) -> None:
    log = read_log(make_campaign(tmp_path, "bts", "women") / "bts" / "women" / "women.csv")
    assert log.items[Columns.title].tolist() == ["Item 0", "Item 1", "Item 2", "Item 3"]
    assert log.items["item_feature_0"].tolist() == [-0.01, -0.11, -0.21, -0.31]
    assert log.knowledge is not None
    assert log.knowledge.relations == ("item_feature_1",), "what all items share, or none, says nothing"


def test_both_policies_of_a_campaign_are_one_log(tmp_path: Path) -> None:
    for policy in ("random", "bts"):
        make_campaign(tmp_path, policy, "men")
        make_campaign(tmp_path, policy, "women")
    log = read_log(tmp_path, campaign="men")
    assert log.interactions[Columns.policy].value_counts().to_dict() == {"random": 2, "bts": 2}
    assert read_log(tmp_path, campaign="men", users="rows").users.index.is_unique
    assert len(read_log(tmp_path, campaign="men", policy="bts").interactions) == 2
    with pytest.raises(LogError, match=r"holds the campaigns men, women of Open Bandit.*campaign='men'"):
        read_log(tmp_path)
    with pytest.raises(LogError, match=r"holds no campaign 'all' of Open Bandit; it holds men, women"):
        read_log(tmp_path, campaign="all")


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (
            "2,2019-11-24 00:01:03+00:00,2,4,0,0.5,a,b,c,d,0",
            r"men\.csv, line 4, column 'position': '4\.0' is no place of 1",
        ),
        ("2,2019-11-24 00:01:03+00:00,2,1,2,0.5,a,b,c,d,0", r"line 4, column 'click': '2\.0' is neither 0 nor 1"),
        (
            "2,2019-11-24 00:01:03+00:00,2,1,0,0,a,b,c,d,0",
            r"line 4, column 'propensity_score': '0\.0' is no probability",
        ),
        ("2,yesterday,2,1,0,0.5,a,b,c,d,0", r"line 4, column 'timestamp': 'yesterday' is no time"),
    ],
)
def test_faults_of_open_bandit_are_named_or_counted(tmp_path: Path, cells: str, wanted: str) -> None:
    make_campaign(tmp_path, "random", "men", [*ROWS, cells])
    with pytest.raises(LogError, match=wanted):
        read_log(tmp_path)
    assert len(read_log(tmp_path, on_bad_rows="drop").interactions) == 2


def test_a_file_of_that_name_without_its_columns_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "men").mkdir()
    (tmp_path / "men" / "men.csv").write_text("user,item\nu,i\nv,j\n")
    assert read_log(tmp_path / "men").interactions[Columns.user].tolist() == ["u", "v"]
