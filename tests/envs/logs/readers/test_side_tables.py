"""Tables of items and users: which column is what, and what becomes of it. The values decide, whatever their form."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.profiles import profile_features
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.readers.side_tables import LINKED, ItemsTable, UsersTable, items_of, users_of
from recloop.envs.logs.readers.text_table import BadRows, TextTable
from recloop.envs.logs.schema import Columns


def table(**columns: object) -> TextTable:
    """Fifteen items or users `i0` to `i14`; a column is a list, or one cell for all."""
    made = {name: cells if isinstance(cells, (list, pd.Series)) else [cells] * 15 for name, cells in columns.items()}
    frame = pd.DataFrame({"item_id": [f"i{n}" for n in range(15)], **made})
    return TextTable(Path("items.csv"), frame, np.arange(2, 17))


def items(relations: tuple[str, ...] | None = None, named: str | None = None, **columns: object) -> ItemsTable:
    return items_of(table(**columns), "item_id", relations=relations, title=named, bad_rows=BadRows())


def users(**columns: object) -> UsersTable:
    return users_of(table(**columns), "item_id", bad_rows=BadRows())


def roles(made: ItemsTable | UsersTable) -> dict[str, str]:
    return {use.name: use.role for use in made.columns}


FILMS = [f"Film {n}" for n in range(15)]
BRANDS = [f"brand{n % 3}" for n in range(15)]


def numbered(cells: list[object], row: int, cell: object) -> list[object]:
    return [cell if n == row else old for n, old in enumerate(cells)]


@pytest.mark.parametrize(
    "years",
    [
        [str(1990 + n) for n in range(15)],
        [f"{1990 + n}.0" for n in range(15)],
        pd.Series([1990 + n for n in range(15)], dtype="Int64"),
        pd.Series([1990.0 + n for n in range(15)]),
    ],
    ids=["words", "as pandas writes them", "Int64", "float64"],
)
def test_a_year_in_any_form_stands_behind_the_title_and_a_gap_leaves_the_title_bare(years: list[str]) -> None:
    gap = years.copy()
    gap[3] = None if isinstance(years, pd.Series) else ""
    made = items(title=FILMS, year=gap)
    assert made.frame[Columns.title].tolist()[2:5] == ["Film 2 (1992)", "Film 3", "Film 4 (1994)"]
    assert made.frame[Columns.text].tolist()[3] == "Film 3."
    assert np.isnan(made.frame["year"].iloc[3])


def test_columns_without_a_cell_leave_nothing() -> None:
    nothing = pd.Series([None] * 15, dtype="float64")
    made = items(title=FILMS, brand=nothing, note="NULL")
    assert made.frame[Columns.text].tolist()[0] == "Film 0."
    assert roles(made) == {"item_id": "id", "title": "title", "brand": "not used", "note": "not used"}


@pytest.mark.parametrize("cell", ["7", "1984", "2001.5"])
def test_one_number_does_not_turn_a_column_of_words_away(cell: str) -> None:
    made = items(name=FILMS, maker=numbered([f"house {n}" for n in range(15)], 4, cell))
    assert made.frame[Columns.text].tolist()[3:5] == ["Film 3. Maker: house 3.", f"Film 4. Maker: {cell}."]


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({"category_name": "Books", "product_name": FILMS}, "product_name"),
        ({"brand_name": "ACME", "title": FILMS}, "title"),
        ({"brand_name": [f"maker {n}" for n in range(15)], "title": FILMS}, "title"),
        ({"title": "Books", "product_name": FILMS}, "product_name"),
        ({"storeName": BRANDS, "movieTitle": FILMS}, "movieTitle"),
        ({"name_of_series": BRANDS, "Book-Title": FILMS}, "Book-Title"),
        ({"film": FILMS, "price": [str(n) for n in range(15)]}, "film"),
    ],
)
def test_the_title_is_found_by_its_values(columns: dict[str, object], wanted: str) -> None:
    for order in (columns, dict(reversed(columns.items()))):
        made = items(**order)
        assert made.frame[Columns.title].tolist() == FILMS
        assert roles(made)[wanted] == "title"


def test_no_column_is_a_title_by_force(tmp_path: Path) -> None:
    made = items(category_name="Books", sku=[f"B00GXE33{n}K" for n in range(15)])
    assert made.frame[Columns.title].tolist()[:2] == ["i0", "i1"]
    assert roles(made) == {"item_id": "id", "category_name": "text", "sku": "not used"}


def test_a_title_can_be_named_and_a_second_candidate_is_told() -> None:
    other = [f"Movie {n}" for n in range(15)]
    assert items(named="name", title=FILMS, name=other).frame[Columns.title].tolist() == other
    found = next(use for use in items(title=FILMS, name=numbered(other, 1, other[0])).columns if use.role == "title")
    assert found.name == "title"
    assert "'name' could be it too: --columns title=NAME" in found.why


@pytest.mark.parametrize(
    "genres",
    [
        "['Science Fiction', 'Drama']",
        '["Science Fiction", "Drama"]',
        "['Science Fiction' 'Drama']",
        "[{'id': 1, 'name': 'Science Fiction'}, {'id': 2, 'name': 'Drama'}]",
        "Science Fiction|Drama",
        "Science Fiction, Drama",
        "Science Fiction; Drama",
        [["Science Fiction", "Drama"]] * 15,
        [np.array(["Science Fiction", "Drama"], dtype=object)] * 15,
    ],
)
def test_lists_of_labels_in_any_form_are_lists(genres: object) -> None:
    made = items(title=FILMS, genres=genres)
    assert made.frame[Columns.text].tolist()[3] == "Film 3. Genres: Science Fiction, Drama."
    assert made.frame["genres"].tolist()[3] == "Science Fiction|Drama"
    assert made.knowledge is not None
    assert [name for name in made.knowledge.entities if name.startswith("genres:")] == [
        "genres:Drama",
        "genres:Science Fiction",
    ]


def test_a_comma_within_one_label_separates_nothing() -> None:
    made = items(title=FILMS, category=["Clothing, Shoes & Jewelry", "Sports, Outdoors", "Toys"] * 5)
    assert made.frame[Columns.category].tolist()[0] == "Clothing, Shoes & Jewelry"
    crossed = items(title=FILMS, genre=["War, Drama", "Drama", "War"] * 5)
    assert crossed.frame["genre"].tolist()[0] == "War|Drama"


def test_token_sequences_are_separated_at_blanks(tmp_path: Path) -> None:
    (tmp_path / "t.inter").write_text("user_id:token\titem_id:token\nu\ta\nu\tb\n")
    (tmp_path / "t.item").write_text(
        "item_id:token\ttitle:token_seq\tclass:token_seq\tmaker:token\na\tHeat\tDrama War\tAcme\nb\tAlien\tWar\tAcme\n"
    )
    log = read_log(tmp_path)
    assert log.items[Columns.text].tolist() == [
        "Heat. Genres: Drama, War. Maker: Acme.",
        "Alien. Genres: War. Maker: Acme.",
    ]
    assert log.knowledge is not None
    assert log.knowledge.relations == ("class",)


def test_attributes_of_a_shop_become_a_knowledge_graph(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n" + "".join(f"u{n % 4},{n % 7}\n" for n in range(40)) + "u1,x\n")
    (tmp_path / "items.csv").write_text(
        "item,title,brand,colours,price\n"
        + "".join(
            f'{n},Shoe {n // 2},{"Acme" if n < 4 else "Red"},"{["Red", "Red|Blue"][n % 2]}",{n}.5\n' for n in range(7)
        )
    )
    log = read_log(tmp_path / "log.csv", items=tmp_path / "items.csv")
    graph = log.knowledge
    assert graph is not None
    assert graph.relations == ("brand", "colours")
    assert [name for name in graph.entities if not name.startswith("item:")] == [
        *("brand:Acme", "brand:Red", "colours:Blue", "colours:Red")
    ], "a brand and a colour of one name are two entities"
    linked = log.items[Columns.entity]
    assert linked.notna().tolist() == [True] * 7 + [False]
    assert linked.nunique() == 7, "items that share a title are told apart"
    assert linked["6"] == "item:Shoe 3"
    head, tail = graph.entity_rows(["item:Shoe 3", "brand:Red"])
    assert [head, graph.relation("brand"), tail] in graph.triples.tolist()
    assert log.items["price"].tolist()[:2] == [0.5, 1.5]
    assert any(LINKED in note and "brand, colours" in note for note in log.notes)
    without = read_log(tmp_path / "log.csv", items=tmp_path / "items.csv", item_relations=())
    assert without.knowledge is None
    assert Columns.entity not in without.items
    assert read_log(tmp_path / "log.csv", items=tmp_path / "items.csv", item_relations=("price",)).knowledge is not None
    with pytest.raises(LogError, match="no column 'brnd'"):
        read_log(tmp_path / "log.csv", items=tmp_path / "items.csv", item_relations=("brnd",))


def test_a_graph_of_the_logs_own_wins(tmp_path: Path) -> None:
    (tmp_path / "t.inter").write_text("user_id:token\titem_id:token\nu\ta\nu\tb\n")
    (tmp_path / "t.item").write_text("item_id:token\ttitle:token\tbrand:token\na\tA\tAcme\nb\tB\tAcme\n")
    (tmp_path / "t.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\nx\tmaker\ty\n")
    (tmp_path / "t.link").write_text("item_id:token\tentity_id:token\na\tx\n")
    log = read_log(tmp_path)
    assert log.knowledge is not None
    assert log.knowledge.relations == ("maker",)
    with pytest.raises(LogError, match=r"brand cannot become triples: .*t\.kg is the knowledge graph"):
        read_log(tmp_path, item_relations=("brand",))


def test_what_becomes_of_every_column_is_said() -> None:
    made = items(
        title=FILMS,
        brand=BRANDS,
        category=["Shoes", "Hats", "Shoes"] * 5,
        category_id=[str(n % 3) for n in range(15)],
        price=[f"{n}.5" for n in range(15)],
        sold=[f"2024-01-{n + 1:02}" for n in range(15)],
        image=[f"https://shop.example/{n}.jpg" for n in range(15)],
        vector=[[0.5, 1.0]] * 15,
        new=["True", "false", ""] * 5,
    )
    assert roles(made) == {
        **{"item_id": "id", "title": "title", "brand": "relation", "category": "category", "category_id": "relation"},
        **{"price": "number", "sold": "not used", "image": "not used", "vector": "not used", "new": "number"},
    }
    assert all(use.why for use in made.columns)
    assert made.frame[Columns.text].tolist()[0] == "Film 0. Brand: brand0. Category: Shoes."
    assert made.frame["new"].tolist()[:2] == [1.0, 0.0]


@pytest.mark.parametrize("gap", ["", "unknown", "NULL", "\\N", "n/a", "-"])
def test_an_age_that_is_not_given_is_missing(gap: str) -> None:
    made = users(age=numbered([str(20 + n) for n in range(15)], 3, gap))
    assert np.isnan(made.frame["age"].iloc[3])
    profile = profile_features(made.frame, np.arange(15))
    assert profile.names == ("age",)
    assert profile.values[3].item() == 0
    assert profile.values[0].item() < 0 < profile.values[14].item()


def test_a_cell_that_breaks_a_column_of_numbers_is_named_or_counted() -> None:
    ages = numbered([str(20 + n) for n in range(15)], 3, "forty")
    with pytest.raises(
        LogError, match=r"items\.csv, line 5, column 'age': 'forty' is not a finite number.*--bad-rows drop"
    ):
        users(age=ages)
    bad_rows = BadRows("drop")
    made = users_of(table(age=ages), "item_id", bad_rows=bad_rows)
    assert len(made.frame) == 14
    assert dict(bad_rows.as_dropped()) == {"malformed age in items.csv": 1}


def test_zip_codes_are_left_out_and_it_is_said() -> None:
    made = users(zip_code=[f"0{1000 + n}" for n in range(15)], plan=["free", "paid", "unknown"] * 5)
    assert roles(made) == {"item_id": "id", "zip_code": "not used", "plan": "feature"}
    assert made.columns[1].why == "15 different values among 15 users"
    profile = profile_features(made.frame, np.arange(15))
    assert profile.names == ("plan=free", "plan=paid")
    assert profile.left_out == ("zip_code",)


def test_columns_of_users_that_cannot_be_features_are_left_away_and_it_is_said() -> None:
    made = users(born=[f"19{n + 80}-01-01" for n in range(15)], likes=[["tea"]] * 15, age=["30"] * 15)
    assert list(made.frame.columns) == ["age"]
    assert made.notes == ("Of the users, these columns are not read: born (dates), likes (lists of labels).",)


def test_none_is_an_answer_and_none_of_python_is_a_gap() -> None:
    made = users(job=["none", "None", "clerk"] * 5)
    assert profile_features(made.frame, np.arange(15)).names == ("job=clerk", "job=none")


def test_mixed_sizes_are_categories() -> None:
    made = users(size=["38", "M", "L"] * 5)
    assert profile_features(made.frame, np.arange(15)).names == ("size=38", "size=L", "size=M")


CELLS = st.one_of(
    st.sampled_from(
        ["", " ", "NULL", "7", "1990", "1990.0", "nan", "inf", "[", "]", "[]", "['a', 'b']", '["a"', "a|b"]
    ),
    st.sampled_from(
        ["(1, 2)", "{'name': 'x'}", "[{'name': 'x'}, {}]", "[1.5, 2]", "[None]", "'a' 'b'", "2024-01-01", "a, b"]
    ),
    st.text(max_size=6),
)
COLUMN = st.one_of(
    st.lists(CELLS, min_size=15, max_size=15).map(lambda cells: pd.Series(cells, dtype="str")),
    st.lists(
        st.one_of(st.none(), st.lists(st.one_of(CELLS, st.none(), st.floats()), max_size=3)), min_size=15, max_size=15
    ),
    st.lists(st.one_of(st.none(), st.integers(-9, 9)), min_size=15, max_size=15).map(
        lambda c: pd.Series(c, dtype="Int64")
    ),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=15, max_size=15).map(
        lambda c: pd.Series(c, dtype="boolean")
    ),
)
NAMES = st.sampled_from(
    ["title", "name", "brand", "genres", "year", "price", "note", "category", "entity", "text", "item"]
)


@settings(max_examples=150, deadline=None)
@given(columns=st.dictionaries(NAMES, COLUMN, max_size=4))
def test_whatever_stands_in_the_cells_a_table_comes_out_or_a_log_error(columns: dict[str, object]) -> None:
    for read in (items, users):
        with suppress(LogError):
            made = read(**columns)
            _holds_together(made, columns)


def _holds_together(made: ItemsTable | UsersTable, columns: dict[str, object]) -> None:
    assert made.frame.index.tolist() == [f"i{n}" for n in range(15)]
    assert [use.name for use in made.columns] == ["item_id", *columns]
    if isinstance(made, ItemsTable):
        assert all(made.frame[Columns.title])
        if made.knowledge is not None:
            assert (made.knowledge.entity_rows(made.frame[Columns.entity].dropna().tolist()) >= 0).any()
