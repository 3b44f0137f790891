"""Names are data at every border: terminal, HTML, spreadsheet, file system, command line."""

import csv
import io
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.names import csv_rows, csv_text, file_name, html_escape, separated, visible

TEXTS = st.text(max_size=30) | st.text(alphabet="=+-@'\"\t\r\n,;0123456789.e $<>&[]/\\\x1b\x9b\u202e", max_size=12)


def _shown(text: str) -> bool:
    """Nothing in it moves a cursor, turns a line round, or cannot be written."""
    text.encode()
    return not any(c < " " or "\x7f" <= c <= "\x9f" or "\u202a" <= c <= "\u202e" for c in text)


@given(TEXTS)
def test_a_terminal_is_never_moved(text: str) -> None:
    assert _shown(visible(text))
    assert visible(visible(text)) == visible(text)


def test_what_people_write_stays_as_it_is() -> None:
    for title in ("Amélie [/b] <i>", "日本 0", "Ёлки :smile:", "👩‍👩‍👧 family", "नमस्ते", "a\\x1b", "שלום 5%"):
        assert visible(title) == title


@given(TEXTS)
def test_html_is_text_again(text: str) -> None:
    escaped = html_escape(text)
    assert not set("<>\"'") & set(escaped)
    assert unescape(escaped) == visible(text, keep="\n\t")


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=4), max_size=4))
def test_no_cell_is_worked_out_and_none_is_lost(rows: list[list[str]]) -> None:
    rows = [[cell.encode(errors="backslashreplace").decode() for cell in row] for row in rows]
    text = csv_text(rows)
    assert csv_rows(text) == rows
    for cell in (cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row):
        if cell[:1] in set("=+-@\t\r"):
            assert not cell or float(cell) is not None


def test_numbers_stay_numbers_and_formulas_become_texts() -> None:
    assert csv_text([[-0.5, "-0.5", "+3e-5", "-inf", "=1+1", "-2+3", "@SUM(A1)", "+1 (555)", "- none", "a=b"]]) == (
        "-0.5,-0.5,+3e-5,-inf,'=1+1,'-2+3,'@SUM(A1),'+1 (555),'- none,a=b\n"
    )


def test_names_on_a_line_are_quoted_as_in_csv() -> None:
    assert separated("50, 181,,258,") == ["50", "181", "258"]
    assert separated('"Cafe, noir",50,"12"" single"') == ["Cafe, noir", "50", '12" single']
    assert separated("") == []
    for broken in ('"Cafe, noir', '"Cafe"x,5', "5\n6"):
        with pytest.raises(RecloopError, match="put one that holds a comma or a quote into double quotes"):
            separated(broken)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../outside", "/etc/x", "a/b", "a\\b", "C:x", ".hidden", "x.", "a\0b", "\ud800", "x" * 101],
)
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(RecloopError, match="of a simulator cannot be a file's"):
        file_name(name, "a simulator")


def test_plain_names_are_file_names() -> None:
    for name in ("train", "my users-2.1", "жури"):
        assert file_name(name, "a simulator") == name


def test_each_border_has_one_helper() -> None:
    """Who escapes by hand will forget it once."""
    root = Path(__file__).parents[3]
    homes = {
        "from html import": "encoders/base/names.py",
        "import html\n": "encoders/base/names.py",
        "csv.writer(": "encoders/base/names.py",
        "csv.DictWriter(": "encoders/base/names.py",
        ".to_csv(": "encoders/base/names.py",
        "rich.markup": "nowhere",
        "rich.console import": "experiments/report/tables.py",
        "rich import print": "nowhere",
    }
    wrong = [
        (str(path.relative_to(root)), mark)
        for room in ("encoders", "envs", "agents", "experiments")
        for path in (root / room).rglob("*.py")
        for mark, home in homes.items()
        if mark in path.read_text(encoding="utf-8") and str(path.relative_to(root)) != home
    ]
    assert wrong == []
